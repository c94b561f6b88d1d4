"""Model requests of a user in a window: all of them, and those that succeed."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from tollway.adapters.errors import BadRequest, RateLimited
from tollway.config.live import Live
from tollway.config.options import MOST_IN_A_WINDOW, NEW_API_NAMES, OptionError, Options, parse_option
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.memory import MemoryLimiter
from tollway.middleware.rate_limit import RateLimitMiddleware
from tollway.middleware.state import Principal

from .inner import ALICE, CHAT, Client, Inside, Message
from .outer import Clock, Waiting, call, raising, silent, state_with, until, whole_scope

pytestmark = pytest.mark.anyio

ALICES_OTHER_KEY = replace(ALICE, token_id=9)
BOB = Principal(token_id=2, user_id=2)
VIP = replace(ALICE, group="vip")


class Gate:
    """A layer that limits model requests, and a clock that the test moves."""

    def __init__(self, app: Any = None, *, total: int = 0, successes: int = 0, **options: Any) -> None:
        self.clock = Clock()
        self.options = Live(
            Options(model_request_limit=True, model_request_total=total, model_request_successes=successes, **options)
        )
        self.app = app or Inside()
        self.layer = RateLimitMiddleware(self.run, limiter=MemoryLimiter(self.clock), options=self.options)

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    async def ask(self, principal: Principal | None = ALICE, scope: Message | None = None) -> Client:
        """One request. Raises `RateLimited`, and whatever the app raises."""
        return await call(self.layer, (scope or whole_scope()) | {"state": state_with(principal=principal)})

    async def passed(self, times: int, principal: Principal | None = ALICE, scope: Message | None = None) -> int:
        """How many were not refused, whatever became of them."""
        found = times
        for _ in range(times):
            try:
                with suppress(BadRequest, RuntimeError, asyncio.CancelledError):
                    await self.ask(principal, scope)
            except RateLimited:
                found -= 1
        return found


def beginning(*messages: Message) -> Any:
    """An app that sends these messages and breaks off."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise RuntimeError

    return app


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
FAILURES = {
    "status 400": Inside(status=400),
    "status 500": Inside(status=500),
    "it is refused further in": raising(BadRequest("no")),
    "it breaks before its head": raising(RuntimeError()),
    "it breaks behind its head": beginning(START),
    "it breaks behind an empty part": beginning(START, PART | {"body": b""}),
    "it breaks behind a part of an error": beginning(START | {"status": 502}, PART),
    "the client leaves before its head": raising(asyncio.CancelledError()),
    "there was no answer": silent,
}
SUCCESSES = {
    "status 200": Inside(),
    "status 302": Inside(status=302),
    "a stream": Inside(b"data: 1\n\n", b"data: 2\n\n", content_type=b"text/event-stream"),
    "nothing to say": Inside(b"", status=204),
    "it breaks behind its first event": beginning(START, PART),
}


@pytest.mark.parametrize("app", FAILURES.values(), ids=FAILURES)
async def test_a_failure_counts_among_all_and_not_among_the_successful(app: Any) -> None:
    assert await Gate(app, successes=1).passed(9) == 9
    assert await Gate(app, total=3, successes=1).passed(9) == 3


@pytest.mark.parametrize("app", SUCCESSES.values(), ids=SUCCESSES)
async def test_a_success_counts_among_both(app: Any) -> None:
    assert await Gate(app, successes=2).passed(9) == 2
    assert await Gate(app, total=3).passed(9) == 3
    assert await Gate(app, total=3, successes=2).passed(9) == 2


@pytest.mark.parametrize(
    ("principal", "scope", "passed"),
    [
        pytest.param(ALICE, whole_scope(), 0, id="the same key"),
        pytest.param(ALICES_OTHER_KEY, whole_scope(), 0, id="another key of the user"),
        pytest.param(ALICE, whole_scope("/v1/embeddings"), 0, id="another operation"),
        pytest.param(BOB, whole_scope(), 2, id="another user"),
        pytest.param(None, whole_scope(), 3, id="nobody"),
        pytest.param(ALICE, whole_scope("/v1/models", method="GET"), 3, id="the list of models"),
        pytest.param(ALICE, whole_scope("/dashboard"), 3, id="a path that is no operation"),
        pytest.param(ALICE, whole_scope(type="websocket"), 3, id="a websocket"),
        pytest.param(ALICE, whole_scope("/llm" + CHAT.path, root_path="/llm"), 0, id="under a prefix"),
    ],
)
async def test_who_and_what_is_counted_together(principal: Principal, scope: Message, passed: int) -> None:
    gate = Gate(successes=2)
    assert await gate.passed(5) == 2
    assert await gate.passed(3, principal, scope) == passed


async def test_the_window_slides() -> None:
    gate = Gate(successes=2, model_request_minutes=10)
    await gate.ask()
    gate.clock.now += 300
    await gate.ask()
    gate.clock.now += 299
    assert await gate.passed(1) == 0
    gate.clock.now += 1
    assert await gate.passed(2) == 1


async def test_requests_at_once_do_not_share_the_last_place_and_a_failed_one_gives_it_back() -> None:
    inside = Waiting()
    gate = Gate(inside, successes=3)
    tasks = [asyncio.create_task(gate.ask()) for _ in range(3)]
    await until(lambda: inside.inside == 3)
    assert await gate.passed(5) == 0
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    tasks.append(asyncio.create_task(gate.ask()))
    await until(lambda: inside.inside == 4)
    inside.go.set()
    await asyncio.gather(*tasks[1:])
    assert await gate.passed(5) == 0


async def test_a_refused_request_counts_nowhere() -> None:
    gate = Gate(total=3, successes=1, requests_per_minute_token=5)
    assert await gate.passed(20) == 1
    gate.app = Inside(status=500)
    gate.options.swap(replace(gate.options.current, model_request_successes=0))
    assert await gate.passed(20) == 2, "two of the three are left, for the refused ones were not counted"


@pytest.mark.parametrize(
    ("principal", "group_limits", "passed"),
    [
        pytest.param(ALICE, (("vip", 0, 5),), 3, id="another group's numbers"),
        pytest.param(VIP, (("vip", 0, 5),), 5, id="its own are higher"),
        pytest.param(VIP, (("default", 9, 9), ("vip", 2, 5)), 2, id="its own total"),
        pytest.param(VIP, (("vip", 0, 0),), 9, id="no limit"),
    ],
)
async def test_a_group_may_have_numbers_of_its_own(
    principal: Principal, group_limits: tuple[tuple[str, int, int], ...], passed: int
) -> None:
    assert await Gate(total=4, successes=3, model_request_groups=group_limits).passed(9, principal) == passed


async def test_switched_off_it_limits_nothing() -> None:
    gate = Gate(total=1, successes=1)
    assert await gate.passed(3) == 1
    gate.options.swap(replace(gate.options.current, model_request_limit=False))
    assert await gate.passed(3) == 3


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"total": 1}, "Too many requests, failed ones included: the limit is 1 in 5 minutes."),
        ({"successes": 1}, "Too many successful requests: the limit is 1 in 5 minutes."),
    ],
)
async def test_the_client_is_told(numbers: dict[str, int], text: str) -> None:
    gate = Gate(model_request_minutes=5, **numbers)
    shown = (await gate.ask()).headers
    assert (shown[b"x-ratelimit-limit-requests"], shown[b"x-ratelimit-remaining-requests"]) == (b"1", b"0")
    gate.clock.now += 100
    scope = whole_scope(state=state_with(principal=ALICE))
    client = await call(ErrorEnvelopeMiddleware(gate.layer), scope)
    assert (client.status, client.headers[b"retry-after"]) == (429, b"200")
    assert client.headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert client.headers[b"x-ratelimit-reset-requests"] == b"200.000s"
    assert f'"message":"{text} Try again in 200 s."'.encode() in client.body.replace(b'": ', b'":')
    assert b'"code":"rate_limit_exceeded"' in client.body.replace(b'": ', b'":')


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ModelRequestRateLimitEnabled", "true", True),
        ("ModelRequestRateLimitDurationMinutes", "60", 60),
        ("ModelRequestRateLimitCount", "0", 0),
        ("ModelRequestRateLimitSuccessCount", "1000", 1000),
        ("ModelRequestRateLimitGroup", '{"a": [200, 100], "vip": [0, 1000]}', (("a", 200, 100), ("vip", 0, 1000))),
        ("ModelRequestRateLimitGroup", "{}", ()),
        ("limits_without_redis", " Refuse ", "refuse"),
    ],
)
def test_options_are_read_by_the_names_that_new_api_gives_them(name: str, text: str, value: object) -> None:
    assert parse_option(name, text) == value
    assert getattr(Options.parse({name: text}), NEW_API_NAMES.get(name, name)) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model_request_minutes", "0"),
        ("model_request_total", "-1"),
        ("model_request_successes", str(MOST_IN_A_WINDOW + 1)),
        ("limits_without_redis", "allow"),
        ("limits_without_redis", ""),
        *(
            ("model_request_groups", text)
            for text in (
                "",
                "vip",
                "null",
                "[]",
                "[" * 100_000,
                '"vip"',
                '{"vip": 5}',
                '{"vip": "12"}',
                '{"vip": null}',
                '{"vip": [1]}',
                '{"vip": [1, 2, 3]}',
                '{"vip": [1, -1]}',
                '{"vip": [1.0, 2]}',
                '{"vip": [true, 2]}',
                '{"vip": [1, NaN]}',
                f'{{"vip": [1, {MOST_IN_A_WINDOW + 1}]}}',
            )
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=name):
        parse_option(name, text)
