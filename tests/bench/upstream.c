/* A fast mock of an upstream that speaks OpenAI's chat completions. One thread, epoll, keep-alive, loopback only.
 *
 *   cc -O2 -o upstream upstream.c && ./upstream -p 9001
 *
 * Any POST is answered, whatever its path:
 *   without "stream":true    a JSON answer of some 600 bytes with its usage
 *   with "stream":true       N events of some 180 bytes, one with the usage, [DONE]
 * Options travel in the body's "user" field, which every gateway passes on:
 *   "user":"n64,i0,d0"       n events, i milliseconds between them (0: all in one write), d milliseconds before the
 *                            first byte
 * GET answers 200, to see that it is up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

#define MOST_FDS 65536

typedef struct {
    char *in, *out;
    size_t in_size, in_room, out_size, out_room;
    unsigned generation; /* a timer of a connection that is gone finds another number here */
    int open, busy, is_stream, events, events_left, gap_ms;
} Connection;

typedef struct {
    uint64_t due;
    int fd;
    unsigned generation;
} Timer;

typedef struct {
    char bytes[2048];
    size_t size;
} Text;

static Connection connections[MOST_FDS];
static Timer *timers; /* a heap, the earliest first */
static size_t timer_count, timer_room;
static int poll_fd;
static Text json_answer, stream_head, token_event, usage_event, last_event;

static const char PONG[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
static const char CHUNK[] = "{\"id\":\"chatcmpl-9f8e7d6c5b4a3928\",\"object\":\"chat.completion.chunk\","
                            "\"created\":1760000000,\"model\":\"mock-model\",";

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void add_timer(Timer timer) {
    if (timer_count == timer_room)
        timers = realloc(timers, (timer_room = timer_room ? timer_room * 2 : 1024) * sizeof *timers);
    size_t i = timer_count++;
    for (; i && timers[(i - 1) / 2].due > timer.due; i = (i - 1) / 2)
        timers[i] = timers[(i - 1) / 2];
    timers[i] = timer;
}

static Timer take_timer(void) {
    Timer first = timers[0], last = timers[--timer_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < timer_count; i = child) {
        if (child + 1 < timer_count && timers[child + 1].due < timers[child].due)
            child++;
        if (timers[child].due >= last.due)
            break;
        timers[i] = timers[child];
    }
    timers[i] = last;
    return first;
}

static void write_chunk(Text *text, const char *head, const char *rest) {
    size_t size = strlen(head) + strlen(rest) + 8; /* "data: " and the blank line */
    text->size = sprintf(text->bytes, "%zx\r\ndata: %s%s\n\n\r\n", size, head, rest);
}

static void prepare_answers(void) {
    char body[1500];
    sprintf(body,
            "{\"id\":\"chatcmpl-9f8e7d6c5b4a39281706f5e4d3c2b1a0\",\"object\":\"chat.completion\","
            "\"created\":1760000000,\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
            "\"assistant\",\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
            "\"prompt_tokens\":412,\"completion_tokens\":64,\"total_tokens\":476,\"prompt_tokens_details\":{"
            "\"cached_tokens\":0}},\"system_fingerprint\":\"fp_0123456789\"}",
            "The quick brown fox jumps over the lazy dog and then walks home along the river, thinking about budgets, "
            "latency and the price of a token, until the sun goes down over the hills.");
    json_answer.size = sprintf(json_answer.bytes,
                               "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                               "x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 1\r\n\r\n%s",
                               strlen(body), body);
    stream_head.size = sprintf(stream_head.bytes,
                               "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                               "x-request-id: req_0123456789abcdef\r\nTransfer-Encoding: chunked\r\n\r\n");
    write_chunk(&token_event, CHUNK,
                "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}");
    write_chunk(&usage_event, CHUNK,
                "\"choices\":[],\"usage\":{\"prompt_tokens\":412,\"completion_tokens\":64,\"total_tokens\":476}}");
    write_chunk(&last_event, "[DONE]", "");
    last_event.size += sprintf(last_event.bytes + last_event.size, "0\r\n\r\n");
}

static void watch(int fd, int operation, uint32_t what) {
    struct epoll_event event = {.events = what, .data.fd = fd};
    epoll_ctl(poll_fd, operation, fd, &event);
}

static void hang_up(int fd) {
    Connection *c = &connections[fd];
    c->generation++;
    c->open = c->busy = 0;
    c->in_size = c->out_size = 0;
    close(fd);
}

static void put(int fd, const char *data, size_t size) {
    Connection *c = &connections[fd];
    if (!c->open)
        return;
    if (!c->out_size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            hang_up(fd);
            return;
        }
        n = n < 0 ? 0 : n;
        data += n;
        size -= n;
        if (!size)
            return;
        watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    if (c->out_size + size > c->out_room)
        c->out = realloc(c->out, c->out_room = (c->out_size + size) * 2);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void read_requests(int fd);

static void finish(int fd) {
    connections[fd].busy = 0;
    read_requests(fd);
}

static void wake_later(int fd, uint64_t us) {
    add_timer((Timer){now_us() + us, fd, connections[fd].generation});
}

/* The gap between two events. That behind the first one is a part of it, another for each connection: streams that
 * began together would send together for good, as streams of different callers do not. */
static uint64_t gap_us(int fd) {
    const Connection *c = &connections[fd];
    uint64_t gap = c->gap_ms * 1000ull;
    return c->events_left == c->events - 1 ? fd * 2654435769ull % (1ull << 32) * gap >> 32 : gap;
}

static char *append(char *end, const Text *text) {
    return (char *)memcpy(end, text->bytes, text->size) + text->size;
}

static void answer_in_one_write(int fd) {
    Connection *c = &connections[fd];
    static char *buffer;
    static size_t room;
    size_t most = stream_head.size + c->events * token_event.size + usage_event.size + last_event.size;
    if (most > room)
        buffer = realloc(buffer, room = most);
    char *end = append(buffer, &stream_head);
    for (int i = 0; i < c->events; i++)
        end = append(end, &token_event);
    end = append(append(end, &usage_event), &last_event);
    put(fd, buffer, end - buffer);
    if (c->open)
        finish(fd);
}

/* Send what is due of the answer under way. */
static void answer(int fd) {
    Connection *c = &connections[fd];
    if (!c->is_stream) {
        put(fd, json_answer.bytes, json_answer.size);
    } else if (!c->gap_ms) {
        answer_in_one_write(fd);
        return;
    } else {
        if (c->events_left == c->events)
            put(fd, stream_head.bytes, stream_head.size);
        if (c->events_left > 0) {
            c->events_left--;
            put(fd, token_event.bytes, token_event.size);
            if (c->open)
                wake_later(fd, gap_us(fd));
            return;
        }
        put(fd, usage_event.bytes, usage_event.size);
        put(fd, last_event.bytes, last_event.size);
    }
    if (c->open)
        finish(fd);
}

static int option(const char *text, char name, int otherwise) {
    for (const char *p = text; *p && *p != '"'; p++)
        if (*p == name && (p == text || p[-1] == ','))
            return atoi(p + 1);
    return otherwise;
}

/* Where the value of a JSON field begins, after blanks; NULL when the body has no such field. */
static const char *value_of(const char *body, size_t size, const char *field) {
    const char *p = memmem(body, size, field, strlen(field));
    if (!p)
        return NULL;
    for (p += strlen(field); *p == ' ' || *p == ':'; p++)
        ;
    return p;
}

static void read_options(Connection *c, const char *body, size_t size) {
    const char *stream = value_of(body, size, "\"stream\"");
    const char *user = value_of(body, size, "\"user\":");
    const char *options = user && *user == '"' ? user + 1 : "";
    c->is_stream = stream && *stream == 't';
    c->events = c->events_left = option(options, 'n', 64);
    c->gap_ms = option(options, 'i', 0);
    c->busy = 1;
}

/* Begin the next answer, if the whole request is here. */
static void read_requests(int fd) {
    Connection *c = &connections[fd];
    char *blank_line = c->busy || !c->in_size ? NULL : memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!blank_line)
        return;
    char *body = blank_line + 4;
    size_t head_size = body - c->in, body_size = 0;
    int chunked = 0;
    for (char *line = c->in; line < blank_line; line = (char *)memchr(line, '\n', body - line) + 1) {
        if (!strncasecmp(line, "content-length:", 15))
            body_size = strtoul(line + 15, 0, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            chunked = 1;
    }
    if (chunked) {
        char *end = memmem(blank_line + 2, c->in_size - head_size + 2, "\r\n0\r\n\r\n", 7);
        if (!end)
            return;
        body_size = end + 7 - body;
    }
    if (c->in_size < head_size + body_size)
        return;
    int is_get = c->in[0] == 'G', delay_ms = 0;
    if (!is_get) {
        read_options(c, body, body_size);
        const char *user = value_of(body, body_size, "\"user\":");
        delay_ms = user && *user == '"' ? option(user + 1, 'd', 0) : 0;
    }
    c->in_size -= head_size + body_size;
    memmove(c->in, body + body_size, c->in_size);
    if (is_get)
        put(fd, PONG, sizeof PONG - 1);
    else if (delay_ms)
        wake_later(fd, delay_ms * 1000ull);
    else
        answer(fd);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[fd].open = 1;
        connections[fd].generation++;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void on_writable(int fd) {
    Connection *c = &connections[fd];
    ssize_t n = send(fd, c->out, c->out_size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        hang_up(fd);
        return;
    }
    if (n > 0) {
        c->out_size -= n;
        memmove(c->out, c->out + n, c->out_size);
    }
    if (!c->out_size)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void on_readable(int fd) {
    Connection *c = &connections[fd];
    if (c->in_room - c->in_size < 65536)
        c->in = realloc(c->in, c->in_room = c->in_room ? c->in_room * 2 : 131072);
    ssize_t n = recv(fd, c->in + c->in_size, c->in_room - c->in_size - 1, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        hang_up(fd);
    } else if (n > 0) {
        c->in_size += n;
        c->in[c->in_size] = 0;
        read_requests(fd);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    static struct epoll_event ready[512];
    int port = 9001, letter;
    while ((letter = getopt(argc, argv, "p:")) != -1)
        if (letter == 'p')
            port = atoi(optarg);
    prepare_answers();
    int listener = listen_on(port);
    poll_fd = epoll_create1(0);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct timespec timeout = {0};
        if (timer_count) {
            uint64_t now = now_us(), wait = timers[0].due > now ? timers[0].due - now : 0;
            timeout = (struct timespec){wait / 1000000, wait % 1000000 * 1000};
        }
        int n = epoll_pwait2(poll_fd, ready, 512, timer_count ? &timeout : NULL, 0);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener)
                accept_all(listener);
            if (ready[i].events & EPOLLOUT && connections[fd].open && connections[fd].out_size)
                on_writable(fd);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && connections[fd].open)
                on_readable(fd);
        }
        uint64_t now = now_us();
        while (timer_count && timers[0].due <= now) {
            Timer timer = take_timer();
            if (connections[timer.fd].open && connections[timer.fd].generation == timer.generation)
                answer(timer.fd);
        }
    }
}
