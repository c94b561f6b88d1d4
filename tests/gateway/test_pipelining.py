"""Requests that a client sends before it has read the answers to those before, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from tollway.gateway.http_protocol import MOST_WAITING, HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter, HttpProtocol]
Connect = Callable[[ASGIApp], Awaitable[Client]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(app)`: a connection to a server of that app, and its protocol there."""
    async with AsyncExitStack() as stack:

        async def connect(app: ASGIApp) -> Client:
            config = uvicorn.Config(app, http=HttpProtocol, ws="none", interface="asgi3", log_config=None)
            config.load()
            made: list[HttpProtocol] = []

            def protocol() -> HttpProtocol:
                made.append(HttpProtocol(config=config, server_state=ServerState(), app_state={}))
                return made[0]

            server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
            stack.callback(server.close)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            stack.callback(writer.close)
            return reader, writer, made[0]

        yield connect


async def until(passes: Callable[[], bool]) -> None:
    for _ in range(1000):
        if passes():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not come to pass")


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_as_many_as_may_wait_are_served_in_turn(connect: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send)

    reader, writer, _ = await connect(app)
    writer.write(GET * (1 + MOST_WAITING))
    seen = b""
    while seen.count(b"\r\n\r\nok") <= MOST_WAITING:
        seen += await asyncio.wait_for(reader.read(65536), 10)
    assert seen.count(b"HTTP/1.1 200 OK") == 1 + MOST_WAITING


async def test_more_than_may_wait_end_the_connection(connect: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    reader, writer, protocol = await connect(app)
    writer.write(GET * (2 + MOST_WAITING))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert not protocol.pipeline


async def test_a_flood_is_not_read_on_with_each_answer(connect: Connect) -> None:
    """What waits stays what came in one read, however long the client goes on and whatever is answered meanwhile."""
    go = asyncio.Semaphore(0)
    served = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        await go.acquire()
        await answer(send)
        served += 1

    _, writer, protocol = await connect(app)
    writer.write(GET * 10)
    await until(lambda: len(protocol.pipeline) == 9)
    writer.write(GET * 10)
    for number in range(1, 10):
        go.release()
        await until(lambda number=number: served == number)
        assert len(protocol.pipeline) == 9 - number
    go.release()
    await until(lambda: len(protocol.pipeline) == 9)


async def test_a_hang_up_reaches_the_request_that_is_served_and_starts_no_other(connect: Connect) -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        heard.append(message["type"])
        await answer(send)

    _, writer, protocol = await connect(app)
    writer.write(GET * 3)
    await until(lambda: len(protocol.pipeline) == 2)
    writer.transport.abort()
    await until(lambda: bool(heard))
    await asyncio.sleep(0.05)
    assert heard == ["http.disconnect"]


async def test_a_client_that_leaves_behind_a_second_request_is_noticed(connect: Connect) -> None:
    heard = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        heard.set()

    _, writer, protocol = await connect(app)
    writer.write(GET)
    await until(lambda: protocol.cycle is not None and not protocol.cycle.more_body)
    await asyncio.sleep(0.05)  # the app waits for nothing but the end
    writer.write(GET)
    await until(lambda: len(protocol.pipeline) == 1)
    writer.close()
    await asyncio.wait_for(heard.wait(), 5)


async def test_of_what_comes_behind_two_that_wait_nothing_is_read(connect: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    _, writer, protocol = await connect(app)
    for waiting in (0, 1, 2, 2):
        writer.write(GET)
        await until(lambda waiting=waiting: len(protocol.pipeline) == waiting)
        await asyncio.sleep(0.05)
    assert len(protocol.pipeline) == 2
