"""The server's answers on the wire: framing, what an app may not say, and how many writes it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tollway.gateway.http_cycle import JOIN_UP_TO
from tollway.gateway.http_protocol import HttpProtocol
from uvicorn.server import ServerState

pytestmark = pytest.mark.anyio

Headers = list[tuple[bytes, bytes]]
Script = Callable[[Receive, Send], Awaitable[None]]


class Pipe(asyncio.Transport):
    """The client's end of a connection: each write, and whether it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answered(script: Script, request: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") -> Pipe:
    """What a client gets of an app that does this."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await script(receive, send)

    config = uvicorn.Config(app, http=HttpProtocol, ws="none", log_config=None)
    config.load()
    protocol = HttpProtocol(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
    pipe = Pipe()
    protocol.connection_made(pipe)
    protocol.data_received(request)
    for _ in range(20):
        await asyncio.sleep(0)
    return pipe


def saying(*pieces: bytes, headers: Headers | None = None, status: int = 200) -> Script:
    """An app that answers with these pieces of a body."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return script


def whole(body: bytes, *headers: tuple[bytes, bytes]) -> Script:
    async def script(receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": body})

    return script


async def test_a_whole_answer_is_one_write() -> None:
    pipe = await answered(whole(b"hello", (b"X-Case", b"as it is")))
    assert pipe.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-case: as it is\r\n\r\nhello"]
    assert not pipe.closed


async def test_a_large_answer_arrives_whole() -> None:
    body = b"x" * (JOIN_UP_TO + 1)
    pipe = await answered(whole(body))
    assert b"".join(pipe.writes).partition(b"\r\n\r\n")[2] == body


async def test_what_has_no_length_goes_in_chunks_each_at_once() -> None:
    pipe = await answered(saying(b"one", b"two"))
    assert pipe.writes == [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"0\r\n\r\n",
    ]


async def test_an_old_client_gets_no_chunks_and_the_connection_ends_the_answer() -> None:
    pipe = await answered(saying(b"one", b"", b"two"), b"GET / HTTP/1.0\r\nhost: x\r\n\r\n")
    head, _, body = b"".join(pipe.writes).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"onetwo"
    assert pipe.closed


async def test_an_empty_piece_is_no_end_mark() -> None:
    pipe = await answered(saying(b"", b"one"))
    assert b"".join(pipe.writes).endswith(b"\r\n\r\n3\r\none\r\n0\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_says_nothing_of_one(status: int) -> None:
    pipe = await answered(saying(status=status))
    assert b"chunked" not in pipe.writes[0]
    assert pipe.writes[0].endswith(b"\r\n\r\n")


async def test_the_answer_to_head_has_no_body() -> None:
    pipe = await answered(whole(b"hello"), b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert pipe.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]


@pytest.mark.parametrize(
    ("request_bytes", "headers"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", [], id="the client wants it"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", [(b"connection", b"close")], id="the app wants it"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", [], id="an old client"),
    ],
)
async def test_a_connection_ends_when_either_side_wants_it(request_bytes: bytes, headers: Headers) -> None:
    pipe = await answered(whole(b"hello", *headers), request_bytes)
    assert pipe.writes[0].count(b"connection: close\r\n") == 1
    assert pipe.closed


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((b"x-a", b"b\r\nset-cookie: c"), id="a line break in a value"),
        pytest.param((b"x-a", b"b\nc"), id="a bare line feed"),
        pytest.param((b"x-a", b"b\rc"), id="a bare return"),
        pytest.param((b"x-a", b"b\0"), id="a null"),
        pytest.param((b"x a", b"b"), id="a space in a name"),
        pytest.param((b"x-a: b\r\nx-c", b"d"), id="a line break in a name"),
        pytest.param((b"", b"b"), id="no name"),
    ],
)
async def test_what_is_no_header_is_not_sent(header: tuple[bytes, bytes]) -> None:
    pipe = await answered(whole(b"hello", header))
    assert pipe.writes == []
    assert pipe.closed


@pytest.mark.parametrize("length", [4, 6])
async def test_a_body_of_another_length_breaks_the_connection(length: int) -> None:
    pipe = await answered(saying(b"hello", headers=[(b"content-length", b"%d" % length)]))
    assert pipe.closed


async def test_messages_out_of_order_are_refused() -> None:
    refused: list[str] = []

    async def script(receive: Receive, send: Send) -> None:
        for message in ({"type": "http.response.body"}, {"type": "http.response.start", "status": 200}) * 2:
            try:
                await send(message)
            except RuntimeError:
                refused.append(message["type"])

    pipe = await answered(script)
    assert refused == ["http.response.body", "http.response.start"]  # before the head, and behind the end
    assert pipe.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_waits_for_it_is_told_to_go_on() -> None:
    async def script(receive: Receive, send: Send) -> None:
        await receive()

    pipe = await answered(script, b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    assert pipe.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_pieces_of_a_body_that_came_together_are_read_together() -> None:
    got: list[Any] = []

    async def script(receive: Receive, send: Send) -> None:
        got.append(await receive())

    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    await answered(script, chunked)
    assert got == [{"type": "http.request", "body": b"onetwo", "more_body": False}]
