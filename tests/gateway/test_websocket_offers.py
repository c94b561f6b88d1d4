"""Offers to become a WebSocket: each is taken, refused or passed over; none keeps a connection. Over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tollway.gateway.http_protocol import HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

OFFER = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
GET, POST = b"GET /v1/realtime HTTP/1.1\r\n" + OFFER, b"POST /v1/realtime HTTP/1.1\r\n" + OFFER
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class App:
    """Refuses WebSockets; answers requests with their path, the slow one once `go` is set."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["path"] == "/slow":
            self.begun.set()
            await self.go.wait()
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def connect(app: App) -> AsyncIterator[Connect]:
    config = uvicorn.Config(app, http=HttpProtocol, interface="asgi3", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writers.append(writer)
        return reader, writer

    async with server:
        yield connect
        for writer in writers:
            writer.close()


OFFERS = [
    pytest.param(GET + KEY, 403, id="one that can be taken"),
    pytest.param(GET, 400, id="without a key"),
    pytest.param(POST + KEY, 405, id="by another method"),
    pytest.param(GET + KEY + b"Content-Length: 4\r\n", 400, id="with a body"),
    pytest.param(POST + KEY + b"Content-Length: 4\r\n", 400, id="by another method with a body"),
    pytest.param(GET + KEY + b"Transfer-Encoding: chunked\r\n", 400, id="with a body in chunks"),
    pytest.param(GET + KEY + b"X-A: %b\r\n" % (b"y" * 9000), 400, id="with a long line"),
    pytest.param(GET + KEY + b"".join(b"X-%d: y\r\n" % at for at in range(200)), 400, id="with many lines"),
]


@pytest.mark.parametrize(("offer", "status"), OFFERS)
async def test_each_is_answered_and_its_connection_ends(offer: bytes, status: int, connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(offer + b"\r\n")
    said = await asyncio.wait_for(reader.read(), 30)
    assert said.startswith(b"HTTP/1.1 %d " % status)


async def test_one_behind_a_request_that_is_served_is_passed_over(app: App, connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(SLOW + GET + KEY + b"\r\n")
    await asyncio.wait_for(app.begun.wait(), 30)
    app.go.set()
    writer.write(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 30)
    answers = [said.find(b"\r\n\r\n" + body) for body in (b"/slow", b"/v1/realtime", b"/last")]
    assert 0 < answers[0] < answers[1] < answers[2]
