"""What only the fast transport promises: strictness, its pool, its memory, its silence about stale sockets."""

import asyncio
import contextlib
import socket

import pytest
from tollway.adapters.errors import UpstreamError, UpstreamGarbage, UpstreamRefused, UpstreamTruncated
from tollway.gateway.upstream.connection import Connection
from tollway.gateway.upstream.exchange import HIGH_WATER, SLICE, Exchange
from tollway.gateway.upstream.fast import FastTransport
from tollway.gateway.upstream.pool import Pool, PoolStats
from tollway.gateway.upstream.port import Timeouts
from tollway.gateway.upstream.request import Origin

from .helpers import PATIENT, ask, body_before_error, body_of, chunked, get, post, wire
from .scripted import Peer, Server, answers, ends, holds, upstream

pytestmark = pytest.mark.anyio

CHUNKED = chunked(b"hello", b"world", headers=(b"content-type: text/plain",))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(wire(b"hello", b"content-type: text/plain"), b"hello", id="with a length"),
        pytest.param(CHUNKED, b"helloworld", id="in chunks"),
    ],
)
async def test_an_answer_cut_at_any_byte_is_truncated_and_never_called_whole(
    fast: FastTransport, answer: bytes, body: bytes
) -> None:
    left = list(range(len(answer)))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer[: left.pop(0)])

    async with upstream(script) as server:
        for cut in range(len(answer)):
            try:
                incoming = await fast.send(post(server.url), PATIENT)
            except UpstreamTruncated:
                continue
            got, error = await body_before_error(incoming)
            assert isinstance(error, UpstreamTruncated), cut
            assert body.startswith(got)
            assert not incoming.complete
        assert len(server.requests) == len(answer), "a fresh connection is not tried twice"


@pytest.mark.parametrize("answer", [wire(b"hello"), CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + wire(b"hello")])
async def test_an_answer_may_come_byte_by_byte(fast: FastTransport, answer: bytes) -> None:
    async with upstream(holds(*(answer[i : i + 1] for i in range(len(answer))))) as server:
        status, body = await ask(fast, post(server.url))
        assert (status, body[:5]) == (200, b"hello")


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"?", id="a byte"),
        pytest.param(b"HTTP/1.1 2", id="the beginning of another answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfake", id="another answer"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["in the same packet", "later"])
async def test_bytes_behind_an_answer_spoil_the_connection_and_nothing_else(
    fast: FastTransport, extra: bytes, together: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if together:
            await peer.send(wire(b"1") + extra)
        else:
            await peer.send(wire(b"1"))
            await asyncio.sleep(0.02)
            await peer.send(extra)
        await peer.gone()

    async with upstream(script) as server:
        for _ in range(2):
            assert await ask(fast, post(server.url)) == (200, b"1")
            await asyncio.sleep(0.05)
            assert fast.stats() == PoolStats(open=0, idle=0)
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", id="line feeds alone"),
        pytest.param(b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n", id="a folded line"),
        pytest.param(b"HTTP/1.1 200 OK\r\na: b\rc\r\ncontent-length: 0\r\n\r\n", id="a bare CR"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab", id="a list of lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab", id="a length with a sign"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n", id="no CRLF after a chunk"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", id="an endless chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, id="a header without end"),
        pytest.param(b"HTTP/1.1 103 Hint\r\nlink: a\r\n\r\n" * 4000, id="interim answers without end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;" + b"x" * 100_000,
            id="a chunk extension without end",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: 1\r\n" * 30_000,
            id="trailers without end",
        ),
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="a greeting"),
    ],
)
async def test_what_http_forbids_is_garbage(fast: FastTransport, answer: bytes) -> None:
    async with upstream(holds(answer)) as server:
        with pytest.raises(UpstreamGarbage):
            await ask(fast, post(server.url))


async def test_64_kib_of_headers_are_taken(fast: FastTransport) -> None:
    value = b"a" * 65_000
    async with upstream(answers(wire(b"ok", b"x-long: " + value))) as server:
        incoming = await fast.send(post(server.url), PATIENT)
        assert incoming.headers == [(b"x-long", value)]
        assert await body_of(incoming) == b"ok"


async def test_a_stale_connection_is_replaced_silently_and_once(fast: FastTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(wire(b"first"))
            await peer.request()  # read, and never answered
            peer.reset()
        else:
            await peer.send(wire(b"second"))

    async with upstream(script) as server:
        assert await ask(fast, post(server.url)) == (200, b"first")
        assert await ask(fast, post(server.url)) == (200, b"second")
        assert len(server.requests) == 3


async def test_a_second_death_is_told(fast: FastTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(wire(b"first"))
            await peer.request()

    async with upstream(script) as server:
        await ask(fast, post(server.url))
        with pytest.raises(UpstreamTruncated):
            await ask(fast, post(server.url))
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    "first", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]
)
async def test_nothing_is_sent_twice_once_the_upstream_has_begun_to_answer(fast: FastTransport, first: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire(b"1"))
        await peer.request()
        await peer.send(first)

    async with upstream(script) as server:
        await ask(fast, post(server.url))
        with pytest.raises(UpstreamTruncated):
            await ask(fast, post(server.url))
        assert len(server.peers) == 1


async def test_a_timeout_on_a_kept_connection_is_not_retried(fast: FastTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire(b"1"))
        await peer.request()
        await peer.gone()

    async with upstream(script) as server:
        await ask(fast, post(server.url))
        with pytest.raises(UpstreamError) as failure:
            await ask(fast, post(server.url), Timeouts(first_byte=0.05))
        assert failure.value.code == "upstream_first_byte_timeout"
        assert len(server.requests) == 2


async def many(transport: FastTransport, server: Server, count: int) -> None:
    await asyncio.gather(*(ask(transport, post(server.url)) for _ in range(count)))


async def serve(peer: Peer) -> None:
    while True:
        await peer.request()
        await asyncio.sleep(0.02)
        await peer.send(wire(b"ok"))


async def test_connections_are_shared_and_counted(fast: FastTransport) -> None:
    asked = 0
    everyone, go_on = asyncio.Event(), asyncio.Event()

    async def serve_when_told(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 1
            if asked == 5:
                everyone.set()
            await go_on.wait()
            await peer.send(wire(b"ok"))

    async with upstream(serve_when_told) as server:
        task = asyncio.create_task(many(fast, server, 5))
        await everyone.wait()
        assert fast.stats() == PoolStats(open=5, idle=0)
        go_on.set()
        await task
        assert fast.stats() == PoolStats(open=5, idle=5)
        await many(fast, server, 5)
        assert len(server.peers) == 5


async def test_the_connection_used_last_is_used_first(fast: FastTransport) -> None:
    async with upstream(serve) as server:
        await many(fast, server, 3)
        for _ in range(3):
            await ask(fast, post(server.url))
        assert sorted(len(peer.requests) for peer in server.peers) == [1, 1, 4]


async def test_idle_connections_are_limited_over_all_origins_and_the_oldest_goes(anyio_backend: object) -> None:
    transport = FastTransport(max_idle=2)
    async with upstream(serve) as one, upstream(serve) as two:
        await ask(transport, post(one.url))
        await many(transport, two, 2)
        assert transport.stats().idle == 2
        await asyncio.wait_for(one.peers[0].over.wait(), 1)
        await transport.close()


async def test_no_idle_connections_means_none(anyio_backend: object) -> None:
    transport = FastTransport(max_idle=0)
    async with upstream(serve) as server:
        await ask(transport, post(server.url))
        assert transport.stats().idle == 0
        await transport.close()


async def test_idle_connections_expire(anyio_backend: object) -> None:
    transport = FastTransport(idle_seconds=0.05)
    async with upstream(serve) as server:
        await ask(transport, post(server.url))
        await asyncio.sleep(0.03)
        await many(transport, server, 2)  # one of these is the old one, used again
        assert transport.stats() == PoolStats(open=2, idle=2)
        await asyncio.sleep(0.1)
        assert transport.stats() == PoolStats(open=0, idle=0)
        await transport.close()


async def test_closing_the_transport_ends_what_is_being_read(anyio_backend: object) -> None:
    transport = FastTransport()
    async with upstream(holds(b"HTTP/1.1 200 OK\r\n\r\nhello")) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        await incoming.read()
        reading = asyncio.create_task(incoming.read())
        await asyncio.sleep(0)
        await transport.close()
        with pytest.raises(UpstreamTruncated):
            await reading
        assert transport.stats() == PoolStats(open=0, idle=0)


async def test_a_connection_that_comes_about_after_the_transport_was_closed_is_dropped(anyio_backend: object) -> None:
    known = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        await known.wait()
        return ["127.0.0.1"]

    transport = FastTransport(resolve=resolve)
    async with upstream(holds(wire(b"ok"))) as server:
        sending = asyncio.create_task(transport.send(post(server.url), PATIENT))
        await asyncio.sleep(0)
        await transport.close()
        known.set()
        with pytest.raises(UpstreamRefused):
            await sending
        await asyncio.sleep(0.01)
        assert transport.stats().open == 0


async def test_an_answer_that_nobody_reads_gives_its_connection_back_all_the_same(fast: FastTransport) -> None:
    async with upstream(answers(wire(b"1"), wire(b"2"))) as server:
        incoming = await fast.send(post(server.url), PATIENT)
        assert incoming.complete
        assert fast.stats() == PoolStats(open=1, idle=1)
        assert await ask(fast, post(server.url)) == (200, b"2")
        incoming.close()  # must not touch the connection, which has gone on to serve another
        assert await incoming.read() == b"1"


async def test_a_slow_reader_holds_the_upstream_back(fast: FastTransport) -> None:
    total = 50 * 1024 * 1024
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        piece = b"x" * 262_144
        while sent < total:
            await peer.send(piece)
            sent += len(piece)

    async with upstream(script) as server:
        incoming = await fast.send(post(server.url), PATIENT)
        await asyncio.sleep(0.3)
        # What the kernel's two socket buffers take, and what waits for the reader.
        assert sent < 16 * 1024 * 1024
        largest = got = 0
        while data := await incoming.read():
            largest = max(largest, len(data))
            got += len(data)
        assert got == total
        assert largest <= 3 * HIGH_WATER


async def test_a_read_returns_everything_that_has_come(fast: FastTransport) -> None:
    async with upstream(holds(chunked(b"a", b"b", b"c")[:-5], b"0\r\n\r\n")) as server:
        incoming = await fast.send(post(server.url), PATIENT)
        await asyncio.sleep(0.03)
        assert incoming.complete
        assert await incoming.read() == b"abc"


@pytest.mark.parametrize("status", [b"413 Too Large", b"401 Unauthorized"])
async def test_a_refusal_before_the_request_is_written_is_heard(fast: FastTransport, status: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(wire(b"no", status=status))
        await asyncio.sleep(5)  # and does not read on

    async with upstream(script) as server:
        started = asyncio.get_running_loop().time()
        answered, body = await ask(fast, post(server.url, b"x" * 30_000_000))
        assert (answered, body) == (int(status[:3]), b"no")
        assert asyncio.get_running_loop().time() - started < 1
        await asyncio.sleep(0.01)
        assert fast.stats() == PoolStats(open=0, idle=0)


async def test_a_refusal_ends_the_writing_of_the_request(fast: FastTransport) -> None:
    body = b"x" * 30_000_000
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nn")
        await asyncio.sleep(0.05)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while data := await peer.reader.read(65536):
                    received += len(data)
        await peer.send(b"o")
        await peer.gone()

    async with upstream(script) as server:
        assert await ask(fast, post(server.url, body)) == (413, b"no")
        await asyncio.wait_for(server.peers[0].over.wait(), 1)
        assert received < len(body)


async def test_a_request_that_goes_out_slowly_is_not_the_upstreams_silence(fast: FastTransport) -> None:
    body = b"x" * 20_000_000

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.03)
            await peer.reader.readexactly(len(body) // 10)
        await peer.send(wire(b"ok"))

    async with upstream(script) as server:
        assert await ask(fast, post(server.url, body), Timeouts(first_byte=0.2)) == (200, b"ok")


async def test_a_reset_is_no_end_of_a_body_that_ends_with_the_connection(fast: FastTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await asyncio.sleep(0.02)
        peer.reset()

    async with upstream(script) as server:
        incoming = await fast.send(post(server.url), PATIENT)
        got, error = await body_before_error(incoming)
        assert got == b"hel"
        assert isinstance(error, UpstreamTruncated)


async def test_a_connection_is_not_kept_when_its_request_was_not_sent_whole(anyio_backend: object) -> None:
    # Between two slices the socket may have drained: nothing waits to be written, and yet the request is not out.
    pool = Pool(most_idle=8, idle_seconds=60)
    connection = Connection(pool, Origin(False, "host", 80, False))
    transport = DrainedTransport()
    connection.connection_made(transport)
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop, connection, PATIENT, loop.time(), no_body=False)
    connection.pause_writing()
    sending = asyncio.create_task(exchange.perform(b"POST / HTTP/1.1\r\n\r\n", b"x" * (SLICE * 3)))
    await asyncio.sleep(0)
    connection.data_received(wire(b"early"))
    await sending
    assert await exchange.read() == b"early"
    assert pool.stats().idle == 0
    assert transport.aborted


class DrainedTransport(asyncio.Transport):
    """Takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


async def test_nothing_more_is_written_to_a_connection_that_broke(anyio_backend: object) -> None:
    connection = Connection(Pool(most_idle=8, idle_seconds=60), Origin(False, "host", 80, False))
    transport = BreakingTransport()
    connection.connection_made(transport)
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop, connection, PATIENT, loop.time(), no_body=False)
    sending = asyncio.create_task(exchange.perform(b"POST / HTTP/1.1\r\n\r\n", b"x" * (SLICE * 9)))
    await asyncio.sleep(0)
    connection.connection_lost(BrokenPipeError())
    with pytest.raises(UpstreamTruncated):
        await sending
    assert transport.writes == 1


class BreakingTransport(DrainedTransport):
    """Breaks at the first write, of which its protocol is told later."""

    writes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1

    def is_closing(self) -> bool:
        return bool(self.writes)


async def test_an_answer_may_begin_while_the_request_is_still_being_read(fast: FastTransport) -> None:
    body = b"x" * 20_000_000

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await asyncio.sleep(0.05)
        await peer.reader.readexactly(len(body))
        await peer.send(b"1\r\nb\r\n0\r\n\r\n")
        await peer.request()
        await peer.send(wire(b"again"))

    async with upstream(script) as server:
        assert await ask(fast, post(server.url, body)) == (200, b"ab")
        assert await ask(fast, post(server.url)) == (200, b"again")


async def test_an_upstream_that_does_not_read_the_request_runs_into_a_timeout(fast: FastTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    async with upstream(script) as server:
        with pytest.raises(UpstreamError) as failure:
            await ask(fast, post(server.url, b"x" * 30_000_000), Timeouts(first_byte=0.1))
        assert failure.value.code == "upstream_first_byte_timeout"


async def test_head_and_body_go_out_together(fast: FastTransport) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.reader.read(65536))
        await peer.send(wire(b"ok"))

    async with upstream(script) as server:
        incoming = await fast.send(post(server.url, b"the body"), PATIENT)
        assert seen[0].endswith(b"\r\n\r\nthe body")
        await body_of(incoming)


async def test_tcp_nodelay_is_set(fast: FastTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    set_options: list[int] = []
    made = Connection.connection_made

    def look(self: Connection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        set_options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(Connection, "connection_made", look)
    async with upstream(ends(wire(b"ok"))) as server:
        await ask(fast, get(server.url))
    assert set_options == [1]


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",)], ids=["head", "body"])
async def test_a_hundred_cancelled_requests_leave_nothing(fast: FastTransport, pieces: tuple[bytes, ...]) -> None:
    async with upstream(holds(*pieces)) as server:
        tasks = [asyncio.create_task(ask(fast, post(server.url))) for _ in range(100)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)
        assert fast.stats() == PoolStats(open=0, idle=0)
