/* A small HTTP/1.1 load client for gateways, JSON and SSE alike. One thread, epoll, loopback only.
 *
 *   cc -O2 -o load load.c -lm && ./load -p 8001 -c 32 -t 3 -b body.json -H 'authorization: Bearer k'
 *
 *   -p port   -P path (default /v1/chat/completions)   -b body file   -H header (repeatable)
 *   -c connections   -t seconds
 *   -r requests a second: open loop, latency counted from the moment a request was due (no coordinated
 *      omission); without it, closed loop
 *   -D a stream must end in [DONE]   -E events a stream must bring, no more and no less
 *
 * When the time is up it waits, at most 10 s, for the answers under way. Prints one line of JSON: `ok`, `bad` and
 * `events` cover the whole run, so the server's CPU time divides by them; `rps` counts what ended inside the time.
 * Latencies are microseconds. An answer is bad unless its status is 200 and it is whole.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_US 10000000
#define TAIL 7 /* enough to see "\r\n0\r\n\r\n", the end of a chunked body */

typedef struct {
    int fd, busy, in_head, chunked, failed, saw_done, is_stream;
    long body_left; /* with a content-length */
    char head[8192];
    size_t head_size;
    char tail[TAIL];
    size_t tail_size;
    char last; /* the last byte of the previous read: an event's end may be cut in two */
    long events;
    uint64_t due, first_byte;
    size_t written;
} Connection;

static Connection *connections;
static int connection_count = 16, port = 8001, want_done, poll_fd;
static long want_events = -1;
static const char *path = "/v1/chat/completions";
static char *request;
static size_t request_size;
static uint64_t ok, bad, events, reconnects;
static char first_error[256];

/* Latencies in buckets half a per cent wide. */
#define BUCKETS 4000
static uint32_t latency[BUCKETS], first_byte_latency[BUCKETS];

static int bucket_of(uint64_t us) {
    int bucket = us < 1 ? 0 : (int)(log((double)us) * 200.0);
    return bucket >= BUCKETS ? BUCKETS - 1 : bucket;
}

static double percentile(const uint32_t *histogram, double share) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        all += histogram[i];
    uint64_t wanted = (uint64_t)ceil(all * share);
    for (int i = 0; i < BUCKETS && all; i++) {
        seen += histogram[i];
        if (seen >= wanted)
            return exp((i + .5) / 200.0);
    }
    return 0;
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void watch(Connection *c, int operation, uint32_t what) {
    struct epoll_event event = {.events = what, .data.ptr = c};
    epoll_ctl(poll_fd, operation, c->fd, &event);
}

static void dial(Connection *c) {
    int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    c->busy = 0;
}

static void write_request(Connection *c) {
    while (c->written < request_size) {
        ssize_t n = send(c->fd, request + c->written, request_size - c->written, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN)
                watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return; /* any other failure shows when reading */
        }
        c->written += n;
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin(Connection *c, uint64_t due) {
    c->busy = c->in_head = 1;
    c->chunked = c->failed = c->saw_done = c->is_stream = 0;
    c->head_size = c->tail_size = c->written = 0;
    c->body_left = -1;
    c->events = 0;
    c->first_byte = 0;
    c->last = 0;
    c->due = due;
    write_request(c);
}

static void finish(Connection *c) {
    uint64_t now = now_us();
    c->busy = 0;
    if (want_events >= 0 && c->events != want_events)
        c->failed = 1;
    if (c->failed || (want_done && !c->saw_done)) {
        if (!first_error[0])
            snprintf(first_error, sizeof first_error, "an answer with %ld events%s", c->events,
                     c->saw_done ? "" : " and without [DONE]");
        bad++;
        return;
    }
    ok++;
    latency[bucket_of(now - c->due)]++;
    first_byte_latency[bucket_of((c->first_byte ? c->first_byte : now) - c->due)]++;
}

static void count_events(Connection *c, const char *data, size_t size) {
    long found = c->last == '\n' && data[0] == '\n';
    const char *end = data + size;
    for (const char *p = data; p < end && (p = memchr(p, '\n', end - p)) && p + 1 < end; p++)
        found += p[1] == '\n';
    c->events += found;
    events += found;
    if (memmem(data, size, "[DONE]", 6))
        c->saw_done = 1;
}

/* Keep the last bytes of a chunked body; say whether they end it. */
static int ends_chunked(Connection *c, const char *data, size_t size) {
    if (size >= TAIL) {
        memcpy(c->tail, data + size - TAIL, c->tail_size = TAIL);
    } else {
        size_t keep = c->tail_size + size > TAIL ? TAIL - size : c->tail_size;
        memmove(c->tail, c->tail + c->tail_size - keep, keep);
        memcpy(c->tail + keep, data, size);
        c->tail_size = keep + size;
    }
    return c->tail_size >= 5 && !memcmp(c->tail + c->tail_size - 5, "0\r\n\r\n", 5) &&
           (c->tail_size == 5 || c->tail[c->tail_size - 6] == '\n');
}

static void read_body(Connection *c, const char *data, size_t size) {
    if (!size)
        return;
    if (!c->first_byte)
        c->first_byte = now_us();
    if (c->is_stream)
        count_events(c, data, size);
    c->last = data[size - 1];
    if (!c->chunked)
        c->body_left -= size;
    if (c->chunked ? ends_chunked(c, data, size) : c->body_left <= 0)
        finish(c);
}

static void note_error(Connection *c) {
    c->failed = 1;
    if (first_error[0])
        return;
    snprintf(first_error, sizeof first_error, "%.250s", c->head);
    for (char *p = first_error; *p; p++)
        if (*p < ' ' || *p == '"' || *p == '\\')
            *p = ' ';
}

static void read_answer(Connection *c, const char *data, size_t size) {
    if (!c->busy)
        return;
    if (!c->in_head) {
        read_body(c, data, size);
        return;
    }
    size_t room = sizeof c->head - 1 - c->head_size, taken = size < room ? size : room, before = c->head_size;
    memcpy(c->head + before, data, taken);
    c->head_size += taken;
    c->head[c->head_size] = 0;
    char *blank_line = strstr(c->head, "\r\n\r\n");
    if (!blank_line) {
        if (taken == room) {
            fprintf(stderr, "head too long\n");
            exit(1);
        }
        return;
    }
    if (c->head_size < 12 || memcmp(c->head + 9, "200", 3))
        note_error(c);
    for (char *line = c->head; line < blank_line; line = strchr(line, '\n') + 1) {
        if (!strncasecmp(line, "content-length:", 15))
            c->body_left = atol(line + 15);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            c->chunked = 1;
        else if (!strncasecmp(line, "content-type: text/event-stream", 31))
            c->is_stream = 1;
    }
    c->in_head = 0;
    size_t head_end = blank_line - c->head + 4 - before;
    if (c->chunked || c->body_left > 0) {
        read_body(c, data + head_end, size - head_end);
        return;
    }
    c->failed |= c->body_left < 0; /* neither length nor chunks: its end cannot be known */
    finish(c);
}

/* Read what has come. A connection that the server closed is dialled anew; its answer, if any was due, is bad. */
static void on_readable(Connection *c) {
    static char buffer[1 << 18];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n > 0) {
        read_answer(c, buffer, n);
    } else if (n == 0 || errno != EAGAIN) {
        bad += c->busy;
        reconnects++;
        close(c->fd);
        dial(c);
    }
}

static int busy_connections(void) {
    int busy = 0;
    for (int i = 0; i < connection_count; i++)
        busy += connections[i].busy;
    return busy;
}

/* Closed loop: every free connection asks again. Open loop: free connections take what is due, oldest first. */
static void start_requests(double interval_us, uint64_t now, uint64_t *next_due) {
    for (int i = 0; i < connection_count; i++) {
        if (connections[i].busy)
            continue;
        if (interval_us) {
            if (*next_due > now)
                return;
            begin(&connections[i], *next_due);
            *next_due += interval_us;
        } else {
            begin(&connections[i], now_us());
        }
    }
}

static void run(double seconds, double rate) {
    struct epoll_event ready[256];
    double interval_us = rate ? 1e6 / rate : 0;
    uint64_t start = now_us(), end = start + seconds * 1e6, now = start, next_due = start, ok_in_time = 0, ended = 0;
    for (;;) {
        if (now >= end && !ended) {
            ok_in_time = ok;
            ended = now;
        }
        if (ended && (!busy_connections() || now > end + DRAIN_US))
            break;
        if (!ended)
            start_requests(interval_us, now, &next_due);
        uint64_t until = ended ? now + 20000 : end;
        if (interval_us && !ended && next_due > now && next_due < until)
            until = next_due;
        uint64_t wait = until > now ? until - now : 0;
        struct timespec timeout = {wait / 1000000, wait % 1000000 * 1000};
        int n = epoll_pwait2(poll_fd, ready, 256, &timeout, 0);
        for (int i = 0; i < n; i++) {
            Connection *c = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT)
                write_request(c);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                on_readable(c);
        }
        now = now_us();
    }
    bad += busy_connections();
    double elapsed = (ended - start) / 1e6;
    printf("{\"ok\":%lu,\"bad\":%lu,\"events\":%lu,\"seconds\":%.3f,\"rps\":%.1f,\"p50\":%.0f,\"p99\":%.0f,"
           "\"first_byte_p50\":%.0f,\"first_byte_p99\":%.0f,\"reconnects\":%lu,\"first_error\":\"%s\"}\n",
           ok, bad, events, elapsed, ok_in_time / elapsed, percentile(latency, .5), percentile(latency, .99),
           percentile(first_byte_latency, .5), percentile(first_byte_latency, .99), reconnects, first_error);
}

static int compose_request(const char *body_file, const char *headers) {
    FILE *file = fopen(body_file, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(body_file);
        return 0;
    }
    long size = ftell(file);
    rewind(file);
    request = malloc(size + 8192);
    request_size = sprintf(request,
                           "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                           "%sContent-Length: %ld\r\n\r\n",
                           path, port, headers, size);
    size_t n = fread(request + request_size, 1, size, file);
    fclose(file);
    request_size += n;
    return n == (size_t)size;
}

int main(int argc, char **argv) {
    double seconds = 3, rate = 0;
    const char *body_file = "body.json";
    char headers[4096] = "";
    size_t used = 0;
    int option;
    while ((option = getopt(argc, argv, "p:P:b:H:c:t:r:DE:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'P': path = optarg; break;
        case 'b': body_file = optarg; break;
        case 'H': used += snprintf(headers + used, sizeof headers - used, "%s\r\n", optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'D': want_done = 1; break;
        case 'E': want_events = atol(optarg); break;
        default: return 2;
        }
        if (used >= sizeof headers)
            return 2;
    }
    if (!compose_request(body_file, headers))
        return 1;
    poll_fd = epoll_create1(0);
    connections = calloc(connection_count, sizeof *connections);
    for (int i = 0; i < connection_count; i++)
        dial(&connections[i]);
    run(seconds, rate);
    return 0;
}
