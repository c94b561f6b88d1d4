"""The request's name: the client's when it is harmless, else a new one; known inside and shown in the answer."""

import asyncio
import time
from typing import Any

import pytest
from tollway.middleware.request_id import RequestIdMiddleware
from tollway.middleware.state import state_of

from .inner import CHAT, Inside, Message, scope_of
from .outer import call

pytestmark = pytest.mark.anyio


def asking(*ids: bytes, name: bytes = b"x-request-id") -> Message:
    return scope_of(CHAT.path, *((name, each) for each in ids))


async def shown(scope: Message, layer: RequestIdMiddleware | None = None) -> bytes:
    """The id in the answer, which is the one that the app inside has seen."""
    layer = layer or RequestIdMiddleware(Inside())
    client = await call(layer, scope)
    name = client.headers[b"x-request-id"]
    assert state_of(scope).request_id == name.decode()
    return name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"mine", id="a word"),
        pytest.param(b"7", id="one character"),
        pytest.param(b"3e9c1f0a-7b1c-4a53-9e57-6a0d9f3f2b11", id="a UUID"),
        pytest.param(b"Root=1-67891233-abcdef012345678912345678", id="a trace of a load balancer"),
        pytest.param(b"a/b+c==:d_e.f", id="every mark that is allowed"),
        pytest.param(b"x" * 128, id="128 characters"),
    ],
)
async def test_a_harmless_id_of_the_client_is_honoured(name: bytes) -> None:
    assert await shown(asking(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 129, id="129 characters"),
        pytest.param(b"two words", id="a space"),
        pytest.param(b"a\r\nset-cookie: b", id="a line break"),
        pytest.param(b"mine\n", id="a line break at the end"),
        pytest.param(b"a\0b", id="a null"),
        pytest.param(b'"}{"', id="quotes"),
        pytest.param(b"<script>", id="markup"),
        pytest.param(b"${jndi:ldap}", id="a lookup"),
        pytest.param(b"\x1b[31m", id="a terminal's escape"),
        pytest.param("größe".encode(), id="letters beyond ASCII"),
        pytest.param(b"\xff\xfe", id="not even text"),
    ],
)
async def test_any_other_id_is_replaced(name: bytes) -> None:
    found = await shown(asking(name))
    assert found != name
    assert found.startswith(b"req_")
    assert found.decode().isascii()


async def test_a_request_without_an_id_gets_one_that_would_be_honoured_itself() -> None:
    found = await shown(scope_of())
    assert await shown(asking(found)) == found


async def test_new_ids_are_unique_among_concurrent_requests_and_processes() -> None:
    layers = [RequestIdMiddleware(Inside()) for _ in range(4)]
    names = await asyncio.gather(*(shown(scope_of(), layer) for layer in layers for _ in range(250)))
    assert len(set(names)) == 1000


async def test_new_ids_sort_by_time_within_a_process() -> None:
    layer = RequestIdMiddleware(Inside())
    names = [await shown(scope_of(), layer) for _ in range(20)]
    assert names == sorted(names)


async def test_the_time_at_the_door_is_known_inside() -> None:
    before, scope = time.perf_counter(), scope_of()
    await call(RequestIdMiddleware(Inside()), scope)
    assert before <= state_of(scope).started <= time.perf_counter()


async def test_another_header_can_be_chosen() -> None:
    scope = asking(b"mine", name=b"x-correlation-id")
    client = await call(RequestIdMiddleware(Inside(), header="X-Correlation-Id"), scope)
    assert client.headers[b"x-correlation-id"] == b"mine"
    assert b"x-request-id" not in client.headers


async def test_the_answer_keeps_its_own_headers() -> None:
    client = await call(RequestIdMiddleware(Inside(content_type=b"text/plain")))
    assert client.headers[b"content-type"] == b"text/plain"


async def test_a_websocket_is_named_too() -> None:
    scope = asking(b"mine") | {"type": "websocket"}
    seen: list[str] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.append(state_of(scope).request_id)
        await send({"type": "websocket.accept"})

    client = await call(RequestIdMiddleware(inside), scope)
    assert seen == ["mine"]
    assert client.sent == [{"type": "websocket.accept"}]


async def test_the_answer_has_one_id_even_when_the_app_inside_names_it_too() -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"theirs")]})
        await send({"type": "http.response.body", "body": b""})

    client = await call(RequestIdMiddleware(inside), asking(b"mine"))
    assert [value for name, value in client.sent[0]["headers"] if name == b"x-request-id"] == [b"mine"]


async def test_two_layers_around_each_other_agree() -> None:
    """As where an app with a layer of its own mounts the gateway: its log and ours tell of one request."""
    inner = RequestIdMiddleware(Inside())
    assert await shown(scope_of(), RequestIdMiddleware(inner))
    both = await call(RequestIdMiddleware(inner, header="x-correlation-id"))
    assert both.headers[b"x-correlation-id"] == both.headers[b"x-request-id"]
