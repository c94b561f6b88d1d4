"""Bodies that a client codes for their transfer: in chunks, and in no other way. Over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tollway.gateway.http_protocol import HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"4\r\nbody\r\n0\r\n\r\n"
H2C = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"

Say = Callable[[bytes, int], Awaitable[bytes]]


@pytest.fixture
async def bodies() -> list[bytes]:
    """What the app has got."""
    return []


@pytest.fixture
async def say(bodies: list[bytes]) -> AsyncIterator[Say]:
    """`await say(request, piece)`: all that the server says to a request that comes in such pieces, until it closes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, http=HttpProtocol, ws="none", interface="asgi3", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )

    async def say(request: bytes, piece: int) -> bytes:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            for start in range(0, len(request), piece):
                writer.write(request[start : start + piece])
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()

    async with server:
        yield say


def coded(*lines: bytes) -> bytes:
    return POST + b"".join(b"Transfer-Encoding: %b\r\n" % line for line in lines) + b"\r\n" + CHUNKS


REFUSED = [
    pytest.param([b"gzip, chunked"], 501, "unsupported_transfer_coding", id="another before it"),
    pytest.param([b"gzip", b"chunked"], 501, "unsupported_transfer_coding", id="another on a line before it"),
    pytest.param([b"identity,chunked"], 501, "unsupported_transfer_coding", id="none before it"),
    pytest.param([b"chunked, Chunked"], 400, "invalid_http", id="twice"),
    pytest.param([b"chunked", b"chunked"], 400, "invalid_http", id="on two lines"),
    pytest.param([b"chunked, gzip"], 400, "invalid_http", id="another behind it"),
    pytest.param([b"chunked", b"gzip"], 400, "invalid_http", id="another on a line behind it"),
    pytest.param([b"chunked;a=b"], 400, "invalid_http", id="with a parameter"),
    pytest.param([b"gzip"], 400, "invalid_http", id="another"),
    pytest.param([b"xchunked"], 400, "invalid_http", id="a longer name"),
    pytest.param([b""], 400, "invalid_http", id="nothing"),
]


@pytest.mark.parametrize("piece", [60, 1024])
@pytest.mark.parametrize(("lines", "status", "code"), REFUSED)
async def test_no_transfer_coding_but_chunked_is_taken(
    lines: list[bytes], status: int, code: str, piece: int, say: Say, bodies: list[bytes]
) -> None:
    head, _, body = (await say(coded(*lines), piece)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["code"] == code
    assert b"\r\nconnection: close" in head
    # OpenAI's clients send again what gets a 5xx, unless they are told not to.
    assert (b"\r\nx-should-retry: false" in head) is (status == 501)
    assert not bodies


@pytest.mark.parametrize("coding", [b"chunked", b"CHUNKED", b"  chunked "])
async def test_chunked_is_chunked_however_it_is_written(coding: bytes, say: Say, bodies: list[bytes]) -> None:
    assert (await say(coded(coding), 1024)).startswith(b"HTTP/1.1 200 ")
    assert bodies == [b"body"]


async def test_a_transfer_coding_beside_an_offer_of_another_protocol_is_refused_too(
    say: Say, bodies: list[bytes]
) -> None:
    offer = coded(b"gzip, chunked").replace(POST, POST + H2C)
    assert (await say(offer, 1024)).startswith(b"HTTP/1.1 501 ")
    assert not bodies
