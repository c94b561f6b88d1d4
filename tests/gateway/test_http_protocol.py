"""The server's protocol: a head is bounded in size and time, and no bytes of a client's become something else."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tollway.gateway import http_protocol
from tollway.gateway.http_protocol import MOST_HEAD_BYTES, MOST_WAITING, HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

KIB = 1024
POST = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: x\r\n"
WHOLE = POST + b"Content-Length: 4\r\n\r\nbody"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"
H2C = POST + b"Connection: Upgrade, HTTP2-Settings, keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


class Pipe(asyncio.Transport):
    """The client's end of a connection: what it was sent, and whether it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = asyncio.Event()
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.ended.set()

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def status(self) -> int:
        return int(self.sent.split(b" ", 2)[1])

    @property
    def error(self) -> Any:
        return json.loads(self.sent.partition(b"\r\n\r\n")[2])["error"]


class App:
    """Reads each request whole and answers 200, once `go` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[Scope, bytes]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begins_first = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.asked.append((scope, body))
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        if self.begins_first:
            await send(head)
            await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await self.go.wait()
        if not self.begins_first:
            await send(head)
        await send({"type": "http.response.body", "body": b"k" if self.begins_first else b"ok"})


@pytest.fixture
async def app() -> App:
    return App()


Connect = Callable[..., tuple[HttpProtocol, Pipe]]


@pytest.fixture
async def connect(app: App) -> Connect:
    """`connect()`: a new connection of one server."""
    config = uvicorn.Config(app, http=HttpProtocol, ws="none", log_config=None)
    config.load()
    state = ServerState()

    def connect(**named: Any) -> tuple[HttpProtocol, Pipe]:
        vars(config).update(named)
        protocol = HttpProtocol(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
        pipe = Pipe()
        protocol.connection_made(pipe)
        return protocol, pipe

    return connect


async def served() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def send(protocol: HttpProtocol, pipe: Pipe, data: bytes, piece: int = 256 * KIB) -> None:
    """`data` in reads of `piece` bytes, for as long as the server reads."""
    for start in range(0, len(data), piece):
        if pipe.closed:
            return
        protocol.data_received(data[start : start + piece])
        await served()


@pytest.mark.parametrize("piece", [1, 7, 64 * KIB])
@pytest.mark.parametrize("request_bytes", [WHOLE, CHUNKED + b"\r\n"], ids=["with a length", "in chunks"])
async def test_a_request_arrives_however_it_is_cut(
    request_bytes: bytes, piece: int, connect: Connect, app: App
) -> None:
    protocol, pipe = connect()
    for _ in range(2):
        await send(protocol, pipe, request_bytes, piece)
    assert [body for _, body in app.asked] == [b"body"] * 2
    assert app.asked[0][0]["query_string"] == b"a=b"
    assert pipe.sent.count(b"HTTP/1.1 200 OK") == 2
    assert not pipe.closed


TOO_LARGE = {
    "lines": POST + (b"x-a: " + b"b" * 1000 + b"\r\n") * 80 + b"\r\n",
    "lines without an end": POST + (b"x-a: " + b"b" * 1000 + b"\r\n") * 800,
    "tiny lines": POST + b"a:\r\n" * 20_000,
    "a value": POST + b"x-a: " + b"b" * 80 * KIB + b"\r\n\r\n",
    "a value without an end": POST + b"x-a: " + b"b" * 800 * KIB,
    "a name": POST + b"b" * 800 * KIB,
    "a path": b"GET /" + b"a" * 80 * KIB + b" HTTP/1.1\r\n\r\n",
    "a path without an end": b"GET /" + b"a" * 800 * KIB,
}


@pytest.mark.parametrize("piece", [1400, 256 * KIB])
@pytest.mark.parametrize("head", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_head_beyond_the_limit_is_refused(head: bytes, piece: int, connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, head, piece)
    assert pipe.status == 431
    assert pipe.error["code"] == "request_header_too_large"
    assert b"x-request-id: " + pipe.error["request_id"].encode() in pipe.sent
    assert b"connection: close" in pipe.sent
    assert pipe.closed
    assert not app.asked


@pytest.mark.parametrize("piece", [1400, 256 * KIB])
async def test_a_head_within_the_limit_is_served_whatever_its_body(piece: int, connect: Connect, app: App) -> None:
    body = b"x" * 300 * KIB
    head = POST + b"x-a: " + b"b" * (MOST_HEAD_BYTES - 200) + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    protocol, pipe = connect()
    await send(protocol, pipe, head + body, piece)
    assert app.asked[0][1] == body
    assert pipe.status == 200


async def test_a_body_in_tiny_chunks_is_no_head(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    chunks = b"1\r\nx\r\n" * 40_000
    await send(protocol, pipe, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", 1400)
    assert app.asked[0][1] == b"x" * 40_000
    assert pipe.status == 200


@pytest.mark.parametrize("trailer", [b"x-a: b\r\n" * 100_000, b"x-a: " + b"b" * 800 * KIB], ids=["lines", "a value"])
async def test_trailers_are_bounded_too(trailer: bytes, connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, CHUNKED + trailer, 1400)
    assert pipe.status == 431
    assert pipe.closed
    assert not app.asked


async def test_trailers_are_no_headers(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, CHUNKED + b"Authorization: Bearer sk-late\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
    assert app.asked[0][0]["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_WITHIN", 0.1)
    monkeypatch.setattr(http_protocol, "SWEEP_EVERY", 0.02)


async def over(pipe: Pipe, within: float = 1.0) -> bool:
    """Whether the connection is ended by the server."""
    try:
        async with asyncio.timeout(within):
            await pipe.ended.wait()
    except TimeoutError:
        return False
    return True


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize(
    "begun", [b"", b"\r\n\r\n", b"G", POST, b"%bx-a: b" % POST], ids=["nothing", "blank", "G", "lines", "a part"]
)
@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "second"])
async def test_a_head_that_does_not_end_is_dropped(begun: bytes, before: bytes, connect: Connect) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, before)
    await send(protocol, pipe, begun)
    ends = bool(begun) or not before  # a connection that is kept alive is left to uvicorn's own timer
    assert await over(pipe, 1.0 if ends else 0.3) is ends


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "second"])
async def test_a_head_that_trickles_is_dropped(before: bytes, connect: Connect) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, before)
    for byte in (POST * 20)[:100]:
        if pipe.closed:
            return
        protocol.data_received(bytes([byte]))
        await asyncio.sleep(0.01)
    pytest.fail("the connection is still open")


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("behind", [b"", POST], ids=["alone", "with the next head begun"])
async def test_a_request_that_is_served_may_take_its_time(behind: bytes, connect: Connect, app: App) -> None:
    app.go.clear()
    protocol, pipe = connect()
    await send(protocol, pipe, POST[:20])
    await send(protocol, pipe, WHOLE[20:] + behind)
    assert not await over(pipe, 0.3)
    app.go.set()
    await served()
    assert pipe.sent.endswith(b"ok")


@pytest.mark.usefixtures("in_no_time")
async def test_a_slow_body_is_not_ours_to_end(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, WHOLE[:-1])
    assert not await over(pipe, 0.3)
    await send(protocol, pipe, WHOLE[-1:])
    assert pipe.status == 200


async def test_requests_set_no_timers(connect: Connect, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand requests in one piece each, none does."""
    protocol, pipe = connect()
    timers: list[object] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda *arguments: timers.append(arguments))
    monkeypatch.setattr(loop, "call_at", lambda *arguments: timers.append(arguments))
    for _ in range(1000):
        await send(protocol, pipe, WHOLE)
    assert len(app.asked) == 1000
    assert not timers


@pytest.mark.usefixtures("in_no_time")
async def test_a_connection_without_another_request_is_dropped(connect: Connect) -> None:
    protocol, pipe = connect(timeout_keep_alive=0.15)
    await send(protocol, pipe, WHOLE)
    assert not await over(pipe, 0.1)
    await send(protocol, pipe, WHOLE)
    assert not await over(pipe, 0.1)
    assert await over(pipe)


@pytest.mark.usefixtures("in_no_time")
async def test_a_long_request_is_no_wait_for_another(connect: Connect, app: App) -> None:
    app.go.clear()
    protocol, pipe = connect(timeout_keep_alive=0.05)
    await send(protocol, pipe, WHOLE)
    assert not await over(pipe, 0.2)
    app.go.set()
    await served()
    assert pipe.sent.endswith(b"ok")
    assert await over(pipe)


async def test_a_connection_that_is_gone_is_forgotten(connect: Connect) -> None:
    protocol, _ = connect()
    sweep = vars(protocol.server_state)["sweep"]
    assert protocol in sweep.connections
    protocol.connection_lost(None)
    assert not sweep.connections


@pytest.mark.parametrize("piece", [1, 64 * KIB])
@pytest.mark.parametrize("protocol_name", [b"h2c", b"TLS/1.0", b"websocket"])
async def test_an_upgrade_that_is_not_served_keeps_its_body(
    protocol_name: bytes, piece: int, connect: Connect, app: App
) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, H2C.replace(b"h2c", protocol_name) + b"Content-Length: 4\r\n\r\nbody" + WHOLE, piece)
    (scope, body), (_, following) = app.asked
    assert (body, following) == (b"body", b"body")
    assert scope["path"] == "/v1/chat/completions"
    assert scope["query_string"] == b"a=b"
    headers = dict(scope["headers"])
    assert b"upgrade" not in headers
    assert b"upgrade" not in headers[b"connection"].lower()
    assert (headers[b"host"], headers[b"content-length"]) == (b"x", b"4")
    assert pipe.sent.count(b"HTTP/1.1 200 OK") == 2


async def test_an_upgrade_in_chunks_keeps_its_body(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, H2C + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    assert app.asked[0][1] == b"body"
    assert pipe.status == 200


async def test_many_upgrades_at_once_are_requests_like_others(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, (H2C + b"\r\n") * MOST_WAITING)
    for _ in range(MOST_WAITING):
        await served()
    assert len(app.asked) == MOST_WAITING
    assert not pipe.closed


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param(b"http://x/v1/models?a=b", "/v1/models", b"a=b", id="a path"),
        pytest.param(b"http://x", "/", b"", id="no path"),
        pytest.param(b"http://x?a=b", "/", b"a=b", id="no path, but a query"),
    ],
)
async def test_a_target_may_be_a_whole_url(target: bytes, path: str, query: bytes, connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert pipe.status == 200
    ((scope, _),) = app.asked
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, path.encode(), query)


async def test_connect_is_refused(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    assert pipe.status == 400
    assert pipe.error["message"]
    assert pipe.closed
    assert not app.asked


GARBAGE = [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"POST / HTTP/1.1\r\n\x00: a\r\n\r\n"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["TLS", "a line", "a name"])
async def test_what_is_no_http_is_refused_in_the_shape_of_every_error(
    garbage: bytes, connect: Connect, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, garbage)
    assert (pipe.status, pipe.error["code"]) == (400, "invalid_http")
    assert pipe.closed
    assert not app.asked
    assert not caplog.records


async def test_a_body_that_breaks_is_refused(connect: Connect, app: App) -> None:
    protocol, pipe = connect()
    await send(protocol, pipe, POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await send(protocol, pipe, b"no size\r\n")
    assert pipe.status == 400
    assert pipe.closed


@pytest.mark.parametrize("behind", [*GARBAGE, b"GET /" + b"a" * 800 * KIB])
async def test_a_refusal_breaks_into_no_answer(behind: bytes, connect: Connect, app: App) -> None:
    app.begins_first = True
    app.go.clear()
    protocol, pipe = connect()
    await send(protocol, pipe, WHOLE)
    begun = pipe.sent
    assert begun.startswith(b"HTTP/1.1 200 OK")
    await send(protocol, pipe, behind)
    assert pipe.closed
    assert pipe.sent == begun
