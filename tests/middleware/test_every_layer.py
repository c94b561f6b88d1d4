"""What holds for each layer alone: it keeps to ASGI on both sides, and lets pass whatever is not its business."""

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from tollway.config.channel import ChannelType
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.middleware.access_log import AccessLogMiddleware
from tollway.middleware.channel_select import ChannelSelectMiddleware
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.failover import FailoverMiddleware
from tollway.middleware.intake import IntakeMiddleware
from tollway.middleware.memory import MemoryChannelPool, MemoryLedger, MemoryLimiter, MemoryTokens
from tollway.middleware.metering import MeteringMiddleware
from tollway.middleware.model_suffix import ModelSuffixMiddleware
from tollway.middleware.paths import relayed_operation
from tollway.middleware.prometheus import PrometheusMiddleware, RelayMetrics
from tollway.middleware.rate_limit import RateLimitMiddleware
from tollway.middleware.request_id import RequestIdMiddleware
from tollway.middleware.state import Candidate, Plan, RelayState, state_of
from tollway.middleware.token_auth import TokenAuthMiddleware
from tollway.middleware.token_quota import TokenQuotaMiddleware

from tests.asgi_lint import ASGILint

from .inner import ALICE, CHAT, Client, Message, call_of, channel
from .outer import HELLO, JSON, echo, fastapi_app, raising, starlette_app, until, whole_scope

pytestmark = pytest.mark.anyio

KEY = (b"authorization", b"Bearer sk-alice")
CHANNEL = replace(channel(1), type=ChannelType.ECHO)
OPTIONS = Live(Options(requests_per_minute_address=1000, tokens_per_minute_user=100_000, parallel_requests_address=100))


def pool() -> MemoryChannelPool:
    return MemoryChannelPool([CHANNEL])


LAYERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "request_id": RequestIdMiddleware,
    "access_log": lambda app: AccessLogMiddleware(app, write=str),
    "prometheus": lambda app: PrometheusMiddleware(app, metrics=RelayMetrics(CollectorRegistry())),
    "error_envelope": ErrorEnvelopeMiddleware,
    "token_auth": lambda app: TokenAuthMiddleware(app, tokens=MemoryTokens({"sk-alice": ALICE})),
    "rate_limit": lambda app: RateLimitMiddleware(app, limiter=MemoryLimiter(), options=OPTIONS),
    "intake": IntakeMiddleware,
    "token_quota": lambda app: TokenQuotaMiddleware(app, ledger=MemoryLedger(users={1: 500_000})),
    "model_suffix": ModelSuffixMiddleware,
    "channel_select": lambda app: ChannelSelectMiddleware(app, pool=pool()),
    "failover": lambda app: FailoverMiddleware(app, pool=pool()),
    "metering": lambda app: MeteringMiddleware(app, prices=PriceBook.builtin()),
}
NEEDS: dict[str, Callable[[], dict[str, Any]]] = {
    "token_quota": lambda: {"principal": ALICE},
    "channel_select": lambda: {"call": call_of()},
    "failover": lambda: {"plan": Plan((Candidate(CHANNEL, 0),), "gpt-4o")},
}
"""What layers further out write, where a layer cannot do without it; all but token_auth for operations only."""


@dataclass
class Layer:
    """One layer, made around any app; and what the layers around it would have written."""

    name: str

    def around(self, app: Any) -> Any:
        return LAYERS[self.name](app)

    def linted(self, app: Any) -> ASGILint:
        """The layer around an app, with both neighbours looking closely."""
        layer = self.around(ASGILint(app, "the app inside"))

        async def prepared(scope: Any, receive: Any, send: Any) -> None:
            self.prepare(scope)
            await layer(scope, receive, send)

        return ASGILint(prepared, self.name)

    def prepare(self, scope: Message) -> None:
        if self.name not in NEEDS or scope["type"] == "lifespan":
            return
        if self.name == "token_quota" or relayed_operation(scope) is not None:
            for field, value in NEEDS[self.name]().items():
                setattr(state_of(scope), field, value)


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


def chat_scope(**given: Any) -> Message:
    return whole_scope(CHAT.path, KEY, JSON, **given)


@pytest.mark.parametrize("parts", [1, 2, 7])
async def test_both_sides_keep_to_asgi(layer: Layer, parts: int) -> None:
    size = -(-len(HELLO) // parts)
    client = Client.sending(*(HELLO[at : at + size] for at in range(0, len(HELLO), size)))
    app = layer.linted(echo)
    await app(chat_scope(), client.receive, client.send)
    assert (client.status, client.body, app.streams) == (200, HELLO, 1)


async def test_lifespan_passes_untouched(layer: Layer) -> None:
    """Whatever stands in the state of the lifespan is copied into every request."""
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    seen: list[Any] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["theirs"] = 1
        await send({"type": "lifespan.startup.complete"})

    client = Client([{"type": "lifespan.startup"}])
    await layer.around(inside)(scope, client.receive, client.send)
    assert seen == [{"type": "lifespan", "asgi": {"version": "3.0"}, "state": {"theirs": 1}}]
    assert client.sent == [{"type": "lifespan.startup.complete"}]


async def test_requests_share_nothing_after_a_lifespan(layer: Layer) -> None:
    """As servers do it: each request gets a shallow copy of the state that the lifespan has left."""
    lifespan: Message = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    states: list[RelayState] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            states.append(state_of(scope))
            await echo(scope, receive, send)

    wrapped = layer.around(inside)
    await wrapped(lifespan, Client().receive, Client().send)
    for _ in range(2):
        scope, client = chat_scope(state=lifespan["state"].copy()), Client.sending(HELLO)
        layer.prepare(scope)
        await wrapped(scope, client.receive, client.send)
    assert states[0] is not states[1]


async def test_websockets_pass(layer: Layer) -> None:
    frames: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close", "code": 1000})

    scope, client = chat_scope(type="websocket"), Client(frames)
    layer.prepare(scope)
    await layer.around(inside)(scope, client.receive, client.send)
    accepted, *others = client.sent
    assert accepted["type"] == "websocket.accept"  # a layer may show something in its headers
    assert others == [{"type": "websocket.send", "text": "hello"}, {"type": "websocket.close", "code": 1000}]


async def test_a_websocket_that_the_app_refuses_is_refused_as_it_said(layer: Layer) -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 1008})

    scope, client = chat_scope(type="websocket"), Client([{"type": "websocket.connect"}])
    layer.prepare(scope)
    await layer.around(inside)(scope, client.receive, client.send)
    assert client.sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("prefix", ["", "/llm"], ids=["at the root", "mounted"])
@pytest.mark.parametrize("make", [starlette_app, fastapi_app], ids=["starlette", "fastapi"])
async def test_it_works_around_any_app(layer: Layer, make: Callable[[], ASGIApp], prefix: str) -> None:
    app = layer.linted(make())
    whole = Starlette(routes=[Mount(prefix, app=app)]) if prefix else app
    headers = {"authorization": "Bearer sk-alice"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(whole), base_url="http://gateway", headers=headers
    ) as client:
        chat = await client.post(prefix + CHAT.path, json=json.loads(HELLO))
        health = await client.get(f"{prefix}/health")
        missing = await client.get(f"{prefix}/nowhere")
    assert (chat.status_code, chat.json()) == (200, {"model": "gpt-4o", "url": f"http://gateway{prefix}{CHAT.path}"})
    assert (health.status_code, health.text) == (203, "one two")
    assert missing.status_code == 404
    assert app.streams == 3


@pytest.mark.parametrize("outer", LAYERS)
async def test_it_works_behind_a_mount_whatever_is_around_the_mounting_app(layer: Layer, outer: str) -> None:
    """What a layer outside has seen in the whole path is not what the layer inside goes by."""
    seen: list[str | None] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        operation = relayed_operation(scope)
        seen.append(None if operation is None else operation.name)
        await echo(scope, receive, send)

    whole = Layer(outer).around(Starlette(routes=[Mount("/llm", app=layer.linted(inside))]))
    scope, client = whole_scope(f"/llm{CHAT.path}", KEY, JSON), Client.sending(HELLO)
    Layer(outer).prepare(scope)
    await whole(scope, client.receive, client.send)
    assert (client.status, client.body, seen) == (200, HELLO, [CHAT.name])


EVENTS = [
    b'data: {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n',
    b'data: {"model": "gpt-4o", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


async def test_a_stream_passes_event_by_event(layer: Layer) -> None:
    """The app goes on only when the client has what was sent: a layer that held an event back would wait for ever."""
    client = Client.sending(HELLO)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await until(lambda: len(client.sent) == 1)
        for at, event in enumerate(EVENTS):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await until(lambda: len(client.sent) == at + 2)  # noqa: B023 - awaited before `at` goes on
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    await layer.linted(inside)(chat_scope(), client.receive, client.send)
    assert [message["body"] for message in client.sent[1:]] == [*EVENTS, b""]


@pytest.mark.parametrize("after", [0, 1, 2], ids=["at once", "after the head", "in the middle of the body"])
async def test_a_failure_of_the_app_inside_comes_out_unchanged(layer: Layer, after: int) -> None:
    failure, client = ZeroDivisionError("theirs"), Client.sending(HELLO)
    app = layer.linted(raising(failure, after=after))
    if layer.name == "error_envelope" and not after:
        await app(chat_scope(), client.receive, client.send)
        assert client.status == 500
        return
    with pytest.raises(ZeroDivisionError) as caught:
        await app(chat_scope(), client.receive, client.send)
    assert caught.value is failure
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert len(client.sent) == after


async def test_cancelling_reaches_the_app_inside_and_comes_out(layer: Layer) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    client = Client.sending(HELLO)
    task = asyncio.create_task(layer.linted(inside)(chat_scope(), client.receive, client.send))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert client.sent == []


async def test_nothing_of_the_scope_is_changed_but_our_own_state(layer: Layer) -> None:
    scope = chat_scope(state={"theirs": ["kept"]}, root_path="", server=("gateway", 80), extensions={"theirs": {}})
    before = deepcopy(scope)
    client = Client.sending(HELLO)
    await layer.linted(echo)(scope, client.receive, client.send)
    assert scope["state"].keys() <= {"theirs", "tollway"}
    scope["state"].pop("tollway", None)
    assert scope == before


async def test_a_scope_without_a_state_will_do(layer: Layer) -> None:
    scope, client = chat_scope(), Client.sending(HELLO)
    del scope["state"]
    await layer.linted(echo)(scope, client.receive, client.send)
    assert client.body == HELLO


async def test_a_message_that_the_app_inside_keeps_is_not_written_into(layer: Layer) -> None:
    """An app may send the same head each time. One client's headers must not stand in the next one's answer."""
    head = {"type": "http.response.start", "status": 204, "headers": [(b"server", b"theirs")]}
    body = {"type": "http.response.body", "body": b"", "more_body": False}
    before = deepcopy((head, body))

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send(head)
        await send(body)

    app = layer.linted(inside)
    clients = [Client.sending(HELLO), Client.sending(HELLO)]
    for client in clients:
        await app(chat_scope(), client.receive, client.send)
    assert (head, body) == before
    assert len(clients[0].headers) == len(clients[1].sent[0]["headers"])


async def test_headers_that_can_be_read_once_only_reach_the_client(layer: Layer) -> None:
    """ASGI asks for an iterable, and some frameworks give a generator."""

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": iter([(b"server", b"theirs")])})
        await send({"type": "http.response.body", "body": b"{}"})

    client = Client.sending(HELLO)
    scope = chat_scope()
    layer.prepare(scope)
    await layer.around(inside)(scope, client.receive, client.send)
    assert (b"server", b"theirs") in list(client.sent[0]["headers"])


async def test_requests_at_once_do_not_mix(layer: Layer) -> None:
    inside_now: list[RelayState] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        inside_now.append(state_of(scope))
        await until(lambda: len(inside_now) == 4)
        if scope["query_string"] == b"2":
            raise ZeroDivisionError("only this one")
        await echo(scope, receive, send)

    app = layer.linted(inside)
    bodies = [HELLO[:-1] + b', "user": "%d"}' % number for number in range(4)]
    clients = [Client.sending(body) for body in bodies]
    results = await asyncio.gather(
        *(
            app(chat_scope(query_string=b"%d" % number), client.receive, client.send)
            for number, client in enumerate(clients)
        ),
        return_exceptions=True,
    )
    assert len({id(state) for state in inside_now}) == 4
    assert [client.body for number, client in enumerate(clients) if number != 2] == [*bodies[:2], bodies[3]]
    assert [type(result) for number, result in enumerate(results) if number != 2] == [type(None)] * 3
    assert isinstance(results[2], ZeroDivisionError) or clients[2].status == 500


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b""}
BREACHES = [
    pytest.param([], "without having ended", id="no answer"),
    pytest.param([START], "without having ended", id="no end"),
    pytest.param([END], "before its head", id="a body without a head"),
    pytest.param([START, START], "twice", id="two heads"),
    pytest.param([START, END, END], "behind its last", id="two ends"),
    pytest.param([START | {"headers": [(b"X-A", b"")]}, END], "capitals", id="a name in capitals"),
    pytest.param([START | {"headers": [("x-a", b"")]}, END], "not bytes", id="a name that is text"),
    pytest.param([START | {"headers": [(b"x-a", "")]}, END], "not bytes", id="a value that is text"),
    pytest.param([START | {"headers": [(b"x-a", b"a\r\nb")]}, END], "line break", id="two headers in one"),
    pytest.param([START | {"status": "200"}, END], "whole number", id="a status that is text"),
    pytest.param([START, END | {"body": "text"}], "bytes", id="a body that is text"),
    pytest.param([START, END | {"more_body": None}], "bool", id="more_body is neither"),
    pytest.param([{"type": "websocket.accept"}], "over HTTP", id="a message of another protocol"),
]


@pytest.mark.parametrize(("messages", "complaint"), BREACHES)
async def test_the_lint_that_these_tests_rely_on_sees_a_breach(messages: list[Message], complaint: str) -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    client = Client.sending(b"")
    with pytest.raises(AssertionError, match=complaint):
        await ASGILint(inside)(chat_scope(), client.receive, client.send)


async def test_the_lint_sees_a_body_that_is_given_twice() -> None:
    client = Client.sending(b"{}")
    client.messages *= 2
    with pytest.raises(AssertionError, match="behind its end"):
        await ASGILint(echo_twice)(chat_scope(), client.receive, client.send)


async def echo_twice(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await receive()
