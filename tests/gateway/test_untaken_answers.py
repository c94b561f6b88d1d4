"""Clients that take nothing of their answers keep neither a socket nor what was written for them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from tollway.gateway import http_protocol
from tollway.gateway.http_protocol import HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MOST = 8 * 1024 * 1024
"""Bytes: more than the kernel takes over."""
SOON = 0.3


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SWEEP_EVERY", 0.02)
    monkeypatch.setattr(http_protocol, "TAKES_WITHIN", SOON)


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % MOST)]})
    await send({"type": "http.response.body", "body": bytes(MOST)})


async def broken_off(scope: Scope, receive: Receive, send: Send) -> None:
    """As the relay does with a client that has taken nothing for too long."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(MOST), "more_body": True})


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    await broken_off(scope, receive, send)
    await send({"type": "http.response.body", "body": b"more", "more_body": True})
    await receive()


async def until(passes: Callable[[], bool]) -> None:
    for _ in range(500):
        if passes():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not come to pass")


Asked = tuple[socket.socket, Collection[object]]
Ask = Callable[[ASGIApp], Awaitable[Asked]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """`await ask(app)`: a client that has asked and not read, and the server's connections."""
    async with AsyncExitStack() as stack:

        async def ask(app: ASGIApp) -> Asked:
            config = uvicorn.Config(
                app, http=HttpProtocol, ws="none", interface="asgi3", log_config=None, timeout_keep_alive=0
            )
            config.load()
            state = ServerState()
            loop = asyncio.get_running_loop()
            server = await loop.create_server(
                lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
            )
            stack.callback(server.close)
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            await loop.sock_sendall(client, GET)
            await until(lambda: bool(state.connections))
            return client, state.connections

        yield ask


@pytest.mark.parametrize("app", [whole, broken_off, waits])
async def test_one_that_takes_nothing_is_given_up(ask: Ask, app: ASGIApp) -> None:
    _, connections = await ask(app)
    await until(lambda: not connections)


async def test_one_that_is_slow_gets_all_of_it(ask: Ask) -> None:
    client, connections = await ask(whole)
    loop, taken, began = asyncio.get_running_loop(), 0, asyncio.get_running_loop().time()
    while taken < MOST and (data := await loop.sock_recv(client, MOST // 20)):
        taken += len(data)
        await asyncio.sleep(0.05)
    assert loop.time() - began > 2 * SOON
    assert taken > MOST
    assert not connections
