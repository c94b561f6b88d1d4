"""The limiter in memory: the contract of all limiters, and models of its rates and windows in exact arithmetic."""

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.middleware.memory import MemoryLimiter
from tollway.middleware.memory.limiter import PRUNE_RATES_ABOVE, PRUNE_WINDOWS_ABOVE
from tollway.middleware.ports import Admission, LimitState, Rate, Window

from .limiter_contract import LimiterContract
from .outer import Clock


class LimitedHere:
    """A limiter with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    async def take(self, limit: int, period: float = 60.0, cost: int = 1, key: str = "key") -> LimitState:
        return (await self.limiter.admit([Rate(key, limit, period, cost)])).answers[0]


class TestMemoryLimiter(LimiterContract):
    @pytest.fixture
    def limited(self) -> LimitedHere:
        return LimitedHere()


@settings(max_examples=150, deadline=None)
@given(
    limit=st.integers(1, 50),
    period=st.sampled_from([1.0, 60.0, 3600.0]),
    steps=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), min_size=1, max_size=60),
)
def test_no_span_ever_holds_more_than_the_limit_and_what_came_back_in_it(
    limit: int, period: float, steps: list[tuple[int, int]]
) -> None:
    """Steps are pauses, in hundredths of the period, and costs. `limit` is the burst, `limit / period` the rate."""

    async def taken() -> list[tuple[float, int]]:
        limited = LimitedHere()
        found: list[tuple[float, int]] = []
        for pause, cost in steps:
            await limited.advance(pause * period / 100)
            if (await limited.take(limit, period, cost)).wait == 0.0:
                found.append((limited.clock.now, cost))
        return found

    passed = asyncio.run(taken())
    for first, (since, _) in enumerate(passed):
        total = 0
        for now, cost in passed[first:]:
            total += cost
            assert total <= limit + (now - since) * limit / period + 1e-6


@settings(max_examples=100, deadline=None)
@given(limit=st.integers(1, 50), pauses=st.lists(st.integers(0, 30), min_size=1, max_size=80))
def test_a_rate_lets_pass_whatever_a_bucket_of_tokens_would(limit: int, pauses: list[int]) -> None:
    """GCRA and the token bucket are two ways to write the same thing; this bucket reckons in exact fractions."""

    async def by_gcra() -> list[bool]:
        limited = LimitedHere()
        found: list[bool] = []
        for pause in pauses:
            await limited.advance(pause)
            found.append((await limited.take(limit, 64.0)).wait == 0.0)
        return found

    tokens, by_bucket = Fraction(limit), list[bool]()
    for pause in pauses:
        tokens = min(Fraction(limit), tokens + Fraction(pause * limit, 64))
        by_bucket.append(tokens >= 1)
        tokens -= by_bucket[-1]
    assert asyncio.run(by_gcra()) == by_bucket


@settings(max_examples=300, deadline=None)
@given(
    limit=st.integers(1, 80),
    steps=st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 500))), max_size=400),
)
def test_a_window_counts_as_one_would_on_paper(limit: int, steps: list[tuple[int, int | None]]) -> None:
    """Steps are pauses and what happens then: a request, or the end of an earlier one, which has failed."""

    async def in_memory() -> list[tuple[bool, int, float]]:
        limited, admitted, found = LimitedHere(), list[Admission](), list[tuple[bool, int, float]]()
        check = Window("key", limit, 60.0)
        for pause, failed in steps:
            await limited.advance(pause)
            if failed is not None:
                if admitted:
                    admitted.pop(failed % len(admitted)).leave(give_back=check)
                continue
            admission = await limited.limiter.admit([check])
            answer = admission.answers[0]
            found.append((admission.passed, answer.remaining, answer.wait))
            if admission.passed:
                admitted.append(admission)
        return found

    now, numbers, counting, open_ones, on_paper = 0, 0, dict[int, int](), list[int](), list[tuple[bool, int, float]]()
    for pause, failed in steps:
        now += pause
        if failed is not None:
            if open_ones:
                counting.pop(open_ones.pop(failed % len(open_ones)), None)
            continue
        ages = sorted(now - since for since in counting.values() if now - since < 60)
        passes = len(ages) < limit
        on_paper.append((passes, max(0, limit - len(ages) - passes), 0.0 if passes else 60.0 - ages[limit - 1]))
        if passes:
            numbers += 1
            counting[numbers] = now
            open_ones.append(numbers)
    assert asyncio.run(in_memory()) == on_paper


@pytest.mark.anyio
async def test_rates_that_are_whole_again_are_forgotten_and_the_others_are_not() -> None:
    limited = LimitedHere()
    for number in range(PRUNE_RATES_ABOVE + 1):
        await limited.take(1, key=f"old:{number}")
    await limited.advance(61.0)
    await limited.take(1, key="new")
    for _ in range(3):
        await limited.take(100, key="other")
    assert (await limited.take(1, key="new")).wait > 0.0
    assert (await limited.take(1, key="old:0")).wait == 0.0


@pytest.mark.anyio
async def test_windows_that_are_over_are_forgotten_and_the_others_are_not() -> None:
    limited = LimitedHere()
    for number in range(PRUNE_WINDOWS_ABOVE + 1):
        await limited.limiter.admit([Window(f"old:{number}", 1, 60.0)])
    await limited.advance(30.0)
    await limited.limiter.admit([Window("new", 1, 60.0)])
    await limited.advance(31.0)
    await limited.limiter.admit([Window("other", 1, 60.0)])
    assert not (await limited.limiter.admit([Window("new", 1, 60.0)])).passed
    assert (await limited.limiter.admit([Window("old:0", 1, 60.0)])).passed
