"""The limiter in memory: rates by GCRA, debts of what was used already, and places in use."""

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.middleware.memory import MemoryLimiter
from tollway.middleware.memory.limiter import PRUNE_ABOVE
from tollway.middleware.ports import Taken

from .outer import Clock

pytestmark = pytest.mark.anyio


class Limited:
    """One key of a limiter with a clock that the test moves: so much per 60 s."""

    def __init__(self, limit: int, period: float = 60.0) -> None:
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)
        self.limit = limit
        self.period = period

    async def take(self, cost: int = 1, key: str = "key") -> Taken:
        return await self.limiter.take(key, limit=self.limit, period=self.period, cost=cost)

    async def charge(self, cost: int) -> None:
        await self.limiter.charge("key", limit=self.limit, period=self.period, cost=cost)

    async def passed(self, times: int) -> int:
        return sum([(await self.take()).wait == 0.0 for _ in range(times)])


@pytest.mark.parametrize("limit", [1, 2, 7, 60, 1000])
async def test_a_whole_limit_may_be_taken_at_once_and_no_more(limit: int) -> None:
    assert await Limited(limit).passed(limit + 5) == limit


@pytest.mark.parametrize(
    ("limit", "pause", "again"),
    [
        pytest.param(60, 0.0, 0, id="at once"),
        pytest.param(60, 0.999, 0, id="just before one is back"),
        pytest.param(60, 1.0, 1, id="when one is back"),
        pytest.param(60, 30.0, 30, id="after half of the period"),
        pytest.param(60, 60.0, 60, id="after the whole period"),
        pytest.param(60, 86400.0, 60, id="a day is no credit"),
        pytest.param(1, 59.9, 0, id="once a minute, too early"),
        pytest.param(1, 60.0, 1, id="once a minute"),
        pytest.param(7, 60 / 7, 1, id="an interval that binary fractions cannot hold"),
    ],
)
async def test_what_was_taken_comes_back_evenly(limit: int, pause: float, again: int) -> None:
    key = Limited(limit)
    await key.passed(limit)
    key.clock.now += pause
    assert await key.passed(limit + 5) == again


async def test_it_is_told_what_is_left_and_when_it_is_whole_again() -> None:
    key = Limited(3)
    found = [await key.take() for _ in range(4)]
    assert [each.remaining for each in found] == [2, 1, 0, 0]
    assert [each.reset for each in found] == pytest.approx([20.0, 40.0, 60.0, 60.0])
    assert [each.wait for each in found] == pytest.approx([0.0, 0.0, 0.0, 20.0])
    assert {each.limit for each in found} == {3}


async def test_who_waits_as_long_as_told_passes() -> None:
    key = Limited(7)
    await key.passed(7)
    for _ in range(50):
        key.clock.now += (await key.take()).wait
        assert (await key.take()).wait == 0.0


async def test_a_refused_cost_is_not_counted() -> None:
    key = Limited(10)
    assert (await key.take(8)).remaining == 2
    assert (await key.take(3)).wait > 0.0
    assert (await key.take(2)).wait == 0.0


async def test_more_than_the_limit_never_fits() -> None:
    key = Limited(10)
    assert (await key.take(11)).wait > 0.0
    assert (await key.take(10)).wait == 0.0


async def test_asking_counts_nothing() -> None:
    key = Limited(2)
    assert [(await key.take(0)).remaining for _ in range(9)] == [2] * 9
    assert await key.passed(5) == 2


@pytest.mark.parametrize(
    ("used", "pause", "wait"),
    [
        pytest.param(59, 0.0, 0.0, id="less than the limit"),
        pytest.param(60, 0.0, 1.0, id="the limit, so that not even one fits"),
        pytest.param(60, 1.0, 0.0, id="the limit, and one is back"),
        pytest.param(180, 0.0, 121.0, id="three limits at once"),
        pytest.param(180, 120.0, 1.0, id="three limits, when two are paid back"),
        pytest.param(180, 121.0, 0.0, id="three limits, when the debt is gone"),
    ],
)
async def test_what_was_used_already_is_counted_into_debt(used: int, pause: float, wait: float) -> None:
    key = Limited(60)
    await key.charge(used)
    key.clock.now += pause
    found = await key.take(0)
    assert found.wait == pytest.approx(wait, abs=1e-6)
    assert found.remaining >= 0


async def test_charges_add_up() -> None:
    key = Limited(60)
    for _ in range(4):
        await key.charge(30)
    assert (await key.take(0)).wait == pytest.approx(61.0)


async def test_keys_do_not_share() -> None:
    key = Limited(1)
    assert (await key.take(key="one")).wait == 0.0
    assert (await key.take(key="two")).wait == 0.0
    assert (await key.take(key="one")).wait > 0.0


async def test_a_limit_that_is_raised_is_felt_at_once() -> None:
    key = Limited(1)
    await key.passed(1)
    key.limit = 10
    key.clock.now += 6.0
    assert (await key.take()).wait == 0.0


@settings(max_examples=150, deadline=None)
@given(
    limit=st.integers(1, 50),
    period=st.sampled_from([1.0, 60.0, 3600.0]),
    steps=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_than_the_limit_and_what_came_back_in_it(
    limit: int, period: float, steps: list[tuple[int, int]]
) -> None:
    """Steps are pauses, in hundredths of the period, and costs. `limit` is the burst, `limit / period` the rate."""

    async def taken() -> list[tuple[float, int]]:
        key = Limited(limit, period)
        found: list[tuple[float, int]] = []
        for pause, cost in steps:
            key.clock.now += pause * period / 100
            if (await key.take(cost)).wait == 0.0:
                found.append((key.clock.now, cost))
        return found

    passed = asyncio.run(taken())
    for first, (since, _) in enumerate(passed):
        total = 0
        for now, cost in passed[first:]:
            total += cost
            assert total <= limit + (now - since) * limit / period + 1e-6


@settings(max_examples=100, deadline=None)
@given(limit=st.integers(1, 50), pauses=st.lists(st.integers(0, 30), min_size=1, max_size=80))
def test_it_lets_pass_whatever_a_bucket_of_tokens_would(limit: int, pauses: list[int]) -> None:
    """GCRA and the token bucket are two ways to write the same thing; this bucket reckons in exact fractions."""

    async def by_gcra() -> list[bool]:
        key = Limited(limit, 64.0)
        found: list[bool] = []
        for pause in pauses:
            key.clock.now += pause
            found.append((await key.take()).wait == 0.0)
        return found

    tokens, by_bucket = Fraction(limit), list[bool]()
    for pause in pauses:
        tokens = min(Fraction(limit), tokens + Fraction(pause * limit, 64))
        by_bucket.append(tokens >= 1)
        tokens -= by_bucket[-1]
    assert asyncio.run(by_gcra()) == by_bucket


async def test_places_are_taken_and_given_back() -> None:
    limiter = MemoryLimiter()
    assert [await limiter.enter("key", limit=2) for _ in range(4)] == [True, True, False, False]
    limiter.leave("key")
    assert [await limiter.enter("key", limit=2) for _ in range(2)] == [True, False]


async def test_places_of_keys_are_apart_and_apart_from_rates() -> None:
    limiter = MemoryLimiter()
    assert await limiter.enter("one", limit=1)
    assert await limiter.enter("two", limit=1)
    assert (await limiter.take("one", limit=1, period=60.0)).wait == 0.0


async def test_leaving_once_too_often_makes_no_room() -> None:
    limiter = MemoryLimiter()
    limiter.leave("key")
    assert [await limiter.enter("key", limit=1) for _ in range(2)] == [True, False]


async def test_keys_that_are_whole_again_are_forgotten_and_the_others_are_not() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    for number in range(PRUNE_ABOVE + 1):
        await limiter.take(f"old:{number}", limit=1, period=60.0)
    clock.now += 61.0
    await limiter.take("new", limit=1, period=60.0)
    for _ in range(3):
        await limiter.take("other", limit=100, period=60.0)
    assert (await limiter.take("new", limit=1, period=60.0)).wait > 0.0
    assert (await limiter.take("old:0", limit=1, period=60.0)).wait == 0.0
