"""Limits of the caller's pace: per key, user and address; what they tell, and that each place is given back."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from tollway.adapters.errors import RateLimited
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.memory import MemoryLimiter
from tollway.middleware.ports import Places
from tollway.middleware.rate_limit import RateLimitMiddleware
from tollway.middleware.state import Principal

from .inner import ALICE, Client, Inside, Message, scope_of
from .outer import Clock, Setting, Waiting, call, charge_of, raising, state_with, until

pytestmark = pytest.mark.anyio

ALICES_OTHER_KEY = replace(ALICE, token_id=9)
BOB = Principal(token_id=2, user_id=2)


class Gate:
    """A layer with its options, and a clock that the test moves."""

    def __init__(self, app: Any = None, **options: Any) -> None:
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)
        self.options = Live(Options(**options))
        self.layer = RateLimitMiddleware(app or Inside(), limiter=self.limiter, options=self.options)

    async def ask(self, principal: Principal | None = ALICE, address: str = "192.0.2.7") -> Client:
        """One request. Raises `RateLimited`."""
        return await call(self.layer, coming_from(principal, address))

    async def refused(self, principal: Principal | None = ALICE, address: str = "192.0.2.7") -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.ask(principal, address)
        return caught.value

    async def passed(self, times: int, principal: Principal | None = ALICE, address: str = "192.0.2.7") -> int:
        found = 0
        for _ in range(times):
            try:
                await self.ask(principal, address)
                found += 1
            except RateLimited:
                pass
        return found


async def free(limiter: MemoryLimiter, subject: str, *, limit: int) -> int:
    """How many of a subject's places are free."""
    return sum([(await limiter.admit([Places(f"{subject}:parallel", limit)])).passed for _ in range(limit)])


def coming_from(principal: Principal | None, address: str = "192.0.2.7") -> Message:
    return scope_of() | {"client": (address, 4711), "state": state_with(principal=principal)}


@pytest.mark.parametrize(
    ("options", "principal", "passed"),
    [
        pytest.param({}, ALICE, 9, id="no limit"),
        pytest.param({"requests_per_minute_user": 3}, ALICE, 3, id="the user's"),
        pytest.param({"requests_per_minute_token": 3}, ALICE, 3, id="the key's, by default"),
        pytest.param({}, replace(ALICE, requests_per_minute=3), 3, id="the key's own"),
        pytest.param(
            {"requests_per_minute_token": 3}, replace(ALICE, requests_per_minute=5), 5, id="its own is higher"
        ),
        pytest.param({"requests_per_minute_token": 5}, replace(ALICE, requests_per_minute=3), 3, id="its own is lower"),
        pytest.param(
            {"requests_per_minute_user": 3}, replace(ALICE, requests_per_minute=5), 3, id="the tightest counts"
        ),
        pytest.param({"requests_per_minute_address": 3}, ALICE, 3, id="the address's"),
        pytest.param({"requests_per_minute_address": 3}, None, 3, id="the address's, of a caller without a name"),
        pytest.param(
            {"requests_per_minute_user": 3, "requests_per_minute_token": 3}, None, 9, id="nobody is unlimited"
        ),
    ],
)
async def test_requests_per_minute(options: dict[str, int], principal: Principal | None, passed: int) -> None:
    assert await Gate(**options).passed(9, principal) == passed


@pytest.mark.parametrize(
    ("options", "principal", "address", "passed"),
    [
        pytest.param({"requests_per_minute_user": 2}, ALICES_OTHER_KEY, "192.0.2.7", 0, id="a user's keys share"),
        pytest.param({"requests_per_minute_token": 2}, ALICES_OTHER_KEY, "192.0.2.7", 2, id="each key has its own"),
        pytest.param({"requests_per_minute_user": 2}, BOB, "192.0.2.7", 2, id="each user has his own"),
        pytest.param({"requests_per_minute_address": 2}, BOB, "192.0.2.7", 0, id="all at one address share"),
        pytest.param({"requests_per_minute_address": 2}, ALICE, "192.0.2.8", 2, id="each address has its own"),
        pytest.param({"requests_per_minute_address": 2}, ALICE, "::ffff:192.0.2.7", 0, id="IPv4 in IPv6 clothes"),
    ],
)
async def test_who_shares_a_limit(options: dict[str, int], principal: Principal, address: str, passed: int) -> None:
    gate = Gate(**options)
    assert await gate.passed(5) == 2
    assert await gate.passed(5, principal, address) == passed


@pytest.mark.parametrize(
    ("address", "passed"),
    [
        pytest.param("2001:db8:0:1:ffff::2", 0, id="another address of the same network"),
        pytest.param("2001:db8:0:1::1%eth0", 0, id="with a zone"),
        pytest.param("2001:db8:0:2::1", 2, id="another network"),
    ],
)
async def test_an_ipv6_host_is_its_network(address: str, passed: int) -> None:
    gate = Gate(requests_per_minute_address=2)
    assert await gate.passed(5, None, "2001:db8:0:1::1") == 2
    assert await gate.passed(5, None, address) == passed


async def test_a_refusal_says_how_long_to_wait_and_that_is_true() -> None:
    gate = Gate(requests_per_minute_user=3)
    await gate.passed(3)
    failure = await gate.refused()
    assert (failure.status, failure.code, failure.retry_after) == (429, "rate_limit_exceeded", 20.0)
    assert dict(failure.headers) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"60.000s",
    }
    gate.clock.now += 19.9
    await gate.refused()
    gate.clock.now += 0.1
    await gate.ask()


async def test_the_client_is_told_by_header() -> None:
    gate = Gate(requests_per_minute_user=3)
    await gate.passed(3)
    gate.clock.now += 0.5
    client = await call(ErrorEnvelopeMiddleware(gate.layer), coming_from(ALICE))
    assert (client.status, client.headers[b"retry-after"]) == (429, b"20")
    assert client.headers[b"x-ratelimit-remaining-requests"] == b"0"


@pytest.mark.parametrize("status", [200, 404])
async def test_any_answer_shows_what_is_left(status: int) -> None:
    gate = Gate(Inside(status=status), requests_per_minute_user=5, tokens_per_minute_token=1000)
    client = await gate.ask()
    assert client.headers == {
        b"content-type": b"application/json",
        b"x-ratelimit-limit-requests": b"5",
        b"x-ratelimit-remaining-requests": b"4",
        b"x-ratelimit-reset-requests": b"12.000s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"1000",
        b"x-ratelimit-reset-tokens": b"0.000s",
    }


async def test_the_tightest_of_several_limits_is_shown() -> None:
    gate = Gate(requests_per_minute_user=5, requests_per_minute_token=3, requests_per_minute_address=9)
    assert (await gate.ask()).headers[b"x-ratelimit-limit-requests"] == b"3"


async def test_without_a_limit_nothing_is_shown() -> None:
    assert (await Gate().ask()).headers == {b"content-type": b"application/json"}


async def test_tokens_are_counted_when_they_have_been_used() -> None:
    gate = Gate(Setting(charge=charge_of(500, 100)), tokens_per_minute_user=1000)
    assert (await gate.ask()).headers[b"x-ratelimit-remaining-tokens"] == b"1000"
    assert (await gate.ask()).headers[b"x-ratelimit-remaining-tokens"] == b"400"
    failure = await gate.refused()
    assert failure.retry_after == pytest.approx(12.06)
    assert dict(failure.headers)[b"x-ratelimit-remaining-tokens"] == b"0"
    gate.clock.now += 12.06
    await gate.ask()


@pytest.mark.parametrize(
    ("options", "principal", "wait"),
    [
        pytest.param({"tokens_per_minute_user": 600}, ALICE, 60.1, id="the user's"),
        pytest.param({"tokens_per_minute_token": 600}, ALICE, 60.1, id="the key's, by default"),
        pytest.param({"tokens_per_minute_token": 9}, replace(ALICE, tokens_per_minute=600), 60.1, id="the key's own"),
        pytest.param({"tokens_per_minute_user": 1200, "tokens_per_minute_token": 600}, ALICE, 60.1, id="the tightest"),
    ],
)
async def test_a_debt_of_tokens_has_to_be_waited_for(
    options: dict[str, int], principal: Principal, wait: float
) -> None:
    gate = Gate(Setting(charge=charge_of(1000, 200)), **options)
    await gate.ask(principal)
    assert (await gate.refused(principal)).retry_after == pytest.approx(wait)


async def test_who_is_in_debt_does_not_spend_his_requests_on_asking() -> None:
    gate = Gate(Setting(charge=charge_of(1000, 200)), tokens_per_minute_user=600, requests_per_minute_user=3)
    assert await gate.passed(9) == 1
    gate.clock.now += 60.1
    assert (await gate.ask()).headers[b"x-ratelimit-remaining-requests"] == b"2"


async def test_a_failed_request_costs_no_tokens_unless_it_was_charged() -> None:
    assert await Gate(tokens_per_minute_user=1).passed(9) == 9


async def test_what_was_delivered_before_a_failure_is_counted() -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await Setting(charge=charge_of(1000, 200))(scope, receive, send)
        raise RuntimeError

    gate = Gate(half, tokens_per_minute_user=600)
    with pytest.raises(RuntimeError):
        await gate.ask()
    await gate.refused()


@pytest.mark.parametrize(
    ("options", "principal"),
    [
        pytest.param({"parallel_requests_user": 2}, ALICE, id="the user's"),
        pytest.param({"parallel_requests_token": 2}, ALICE, id="the key's, by default"),
        pytest.param({"parallel_requests_token": 9}, replace(ALICE, parallel_requests=2), id="the key's own"),
        pytest.param({"parallel_requests_address": 2}, None, id="the address's"),
    ],
)
async def test_requests_open_at_once(options: dict[str, int], principal: Principal | None) -> None:
    inside = Waiting()
    gate = Gate(inside, **options)
    tasks = [asyncio.create_task(gate.ask(principal)) for _ in range(2)]
    await until(lambda: inside.inside == 2)
    failure = await gate.refused(principal)
    assert (failure.status, failure.code) == (429, "rate_limit_exceeded")
    assert failure.retry_after is not None
    inside.go.set()
    await asyncio.gather(*tasks)
    await gate.ask(principal)


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(Inside(), id="it was answered"),
        pytest.param(raising(RuntimeError()), id="it failed"),
        pytest.param(raising(RuntimeError(), after=2), id="it failed in the middle"),
        pytest.param(raising(asyncio.CancelledError()), id="it was cancelled"),
        pytest.param(raising(KeyboardInterrupt()), id="the process is stopped"),
    ],
)
async def test_a_place_is_given_back_however_the_request_ends(app: Any) -> None:
    limiter = MemoryLimiter()
    options = Live(Options(parallel_requests_user=1, parallel_requests_token=1, parallel_requests_address=1))
    for _ in range(3):
        with suppress(RuntimeError, asyncio.CancelledError, KeyboardInterrupt):
            await call(RateLimitMiddleware(app, limiter=limiter, options=options), coming_from(ALICE))
    for subject in ("user:1", "token:1", "address:192.0.2.7"):
        assert await free(limiter, subject, limit=1) == 1


async def test_a_place_is_given_back_when_the_client_leaves() -> None:
    inside = Waiting()
    gate = Gate(inside, parallel_requests_user=1)
    task = asyncio.create_task(gate.ask())
    await until(lambda: inside.inside == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    inside.go.set()
    await gate.ask()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"parallel_requests_user": 5, "parallel_requests_token": 1}, id="no place for the key"),
        pytest.param({"parallel_requests_user": 5, "requests_per_minute_user": 1}, id="too many requests"),
        pytest.param({"parallel_requests_address": 5, "parallel_requests_user": 1}, id="no place for the user"),
    ],
)
async def test_a_refused_request_keeps_no_place(options: dict[str, int]) -> None:
    inside = Waiting()
    gate = Gate(inside, **options)
    task = asyncio.create_task(gate.ask())
    await until(lambda: inside.inside == 1)
    for _ in range(9):
        await gate.refused()
    inside.go.set()
    await task
    subject = "address:192.0.2.7" if "parallel_requests_address" in options else "user:1"
    assert await free(gate.limiter, subject, limit=5) == 5


async def test_a_key_that_is_too_fast_does_not_use_up_its_users_requests() -> None:
    gate = Gate(requests_per_minute_user=10, requests_per_minute_token=2)
    assert await gate.passed(50) == 2
    assert await gate.passed(2, ALICES_OTHER_KEY) == 2


async def test_options_that_change_are_felt_by_the_next_request() -> None:
    gate = Gate(requests_per_minute_user=1)
    assert await gate.passed(5) == 1
    gate.options.swap(Options())
    assert await gate.passed(5) == 5
    gate.options.swap(Options(requests_per_minute_token=2))
    assert await gate.passed(5) == 2


async def test_a_key_that_changes_is_felt_by_the_next_request() -> None:
    gate = Gate()
    assert await gate.passed(5, replace(ALICE, requests_per_minute=2)) == 2
    gate.clock.now += 60
    assert await gate.passed(5, replace(ALICE, requests_per_minute=4)) == 4


async def test_a_refused_request_is_not_read() -> None:
    gate, client = Gate(requests_per_minute_user=1), Client.sending(b"{}")
    await gate.ask()
    with pytest.raises(RateLimited):
        await call(gate.layer, coming_from(ALICE), client)
    assert (client.received, client.sent) == (0, [])


@pytest.mark.parametrize("client", [None, ()], ids=["a UNIX socket", "a server that does not tell"])
async def test_who_has_no_address_is_not_limited_by_it(client: Any) -> None:
    gate = Gate(requests_per_minute_address=1)
    for _ in range(3):
        await call(gate.layer, coming_from(ALICE) | {"client": client})


async def test_websockets_are_limited_and_their_messages_pass() -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    gate = Gate(inside, requests_per_minute_user=1)
    client = await call(gate.layer, coming_from(ALICE) | {"type": "websocket"})
    assert client.sent == [{"type": "websocket.accept"}]
    with pytest.raises(RateLimited):
        await call(gate.layer, coming_from(ALICE) | {"type": "websocket"})


async def test_lifespan_is_not_counted() -> None:
    gate = Gate(requests_per_minute_address=1)
    for _ in range(3):
        await call(gate.layer, {"type": "lifespan"})
