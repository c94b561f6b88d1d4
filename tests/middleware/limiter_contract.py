"""What every limiter promises. Each implementation has a subclass of `LimiterContract` and a `Limited` of its own."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import pytest
from tollway.middleware.ports import Admission, Check, Limiter, LimitState, Places, Rate, Window

DAY = 86400.0
"""A period beside which it does not matter how long a test takes."""
SOON = DAY / 100


class Limited(Protocol):
    """A limiter, and a way to let time pass for it."""

    limiter: Limiter

    async def advance(self, seconds: float) -> None: ...


async def ask(limited: Limited, *checks: Check) -> Admission:
    return await limited.limiter.admit(checks)


async def take(limited: Limited, limit: int, cost: int = 1, key: str = "key") -> LimitState:
    """The answer of a rate of `limit` a day."""
    return (await ask(limited, Rate(key, limit, DAY, cost))).answers[0]


async def passed(limited: Limited, times: int, *checks: Check) -> int:
    return sum([(await ask(limited, *checks)).passed for _ in range(times)])


def rate(limit: int, key: str = "key", cost: int = 1) -> Rate:
    return Rate(key, limit, DAY, cost)


def window(limit: int, key: str = "key") -> Window:
    return Window(key, limit, DAY)


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=SOON)


@pytest.mark.anyio
class LimiterContract:
    @pytest.mark.parametrize("limit", [1, 2, 7, 60, 1000])
    async def test_a_whole_rate_may_be_taken_at_once_and_no_more(self, limited: Limited, limit: int) -> None:
        assert await passed(limited, limit + 5, rate(limit)) == limit

    @pytest.mark.parametrize(
        ("limit", "pause", "again"),
        [
            pytest.param(60, 0.0, 0, id="at once"),
            pytest.param(60, 0.99 / 60, 0, id="just before one is back"),
            pytest.param(60, 1 / 60, 1, id="when one is back"),
            pytest.param(60, 0.5, 30, id="after half of the period"),
            pytest.param(60, 1.0, 60, id="after the whole period"),
            pytest.param(60, 30.0, 60, id="a month is no credit"),
            pytest.param(1, 0.99, 0, id="once a day, too early"),
            pytest.param(1, 1.0, 1, id="once a day"),
            pytest.param(7, 1 / 7, 1, id="an interval that binary fractions cannot hold"),
        ],
    )
    async def test_a_rate_comes_back_evenly(self, limited: Limited, limit: int, pause: float, again: int) -> None:
        await passed(limited, limit, rate(limit))
        await limited.advance(pause * DAY)
        assert await passed(limited, limit + 5, rate(limit)) == again

    async def test_a_rate_tells_what_is_left_and_when_it_is_whole_again(self, limited: Limited) -> None:
        found = [await take(limited, 3) for _ in range(4)]
        assert [each.remaining for each in found] == [2, 1, 0, 0]
        assert [each.reset for each in found] == [near(DAY / 3), near(2 * DAY / 3), near(DAY), near(DAY)]
        assert [each.wait for each in found] == [0.0, 0.0, 0.0, near(DAY / 3)]
        assert {each.limit for each in found} == {3}

    @pytest.mark.parametrize("check", [rate(7), window(7)], ids=["a rate", "a window"])
    async def test_who_waits_as_long_as_told_passes(self, limited: Limited, check: Check) -> None:
        for _ in range(7):
            await ask(limited, check)
            await limited.advance(DAY / 70)
        for _ in range(20):
            await limited.advance((await ask(limited, check)).answers[0].wait)
            assert (await ask(limited, check)).passed

    async def test_a_refused_cost_is_not_counted(self, limited: Limited) -> None:
        assert (await take(limited, 10, 8)).remaining == 2
        assert (await take(limited, 10, 3)).wait > 0.0
        assert (await take(limited, 10, 2)).wait == 0.0

    async def test_more_than_the_limit_never_fits(self, limited: Limited) -> None:
        assert (await take(limited, 10, 11)).wait > 0.0
        assert (await take(limited, 10, 10)).wait == 0.0

    async def test_asking_counts_nothing(self, limited: Limited) -> None:
        assert [(await take(limited, 2, 0)).remaining for _ in range(9)] == [2] * 9
        assert await passed(limited, 5, rate(2)) == 2

    @pytest.mark.parametrize(
        ("used", "pause", "wait"),
        [
            pytest.param(59, 0, 0, id="less than the limit"),
            pytest.param(60, 0, 1, id="the limit, so that not even one fits"),
            pytest.param(60, 1, 0, id="the limit, and one is back"),
            pytest.param(180, 0, 121, id="three limits at once"),
            pytest.param(180, 120, 1, id="three limits, when two are paid back"),
            pytest.param(180, 121, 0, id="three limits, when the debt is gone"),
        ],
    )
    async def test_what_was_used_already_is_counted_into_debt(
        self, limited: Limited, used: int, pause: int, wait: int
    ) -> None:
        """Pause and wait are in units of what brings one back."""
        limited.limiter.charge([rate(60), rate(60, "other")], used)
        await limited.advance(pause * DAY / 60)
        found = await take(limited, 60, 0)
        assert found.wait == near(wait * DAY / 60)
        assert (found.wait == 0.0) == (wait == 0)
        assert found.remaining >= 0
        assert (await take(limited, 60, 0, "other")).wait == near(wait * DAY / 60)

    async def test_charges_add_up(self, limited: Limited) -> None:
        for _ in range(4):
            limited.limiter.charge([rate(60)], 30)
        assert (await take(limited, 60, 0)).wait == near(DAY * 61 / 60)

    async def test_keys_do_not_share(self, limited: Limited) -> None:
        assert (await ask(limited, rate(1, "one"))).passed
        assert (await ask(limited, rate(1, "two"))).passed
        assert not (await ask(limited, rate(1, "one"))).passed

    async def test_a_rate_that_is_raised_is_felt_at_once(self, limited: Limited) -> None:
        await ask(limited, rate(1))
        await limited.advance(DAY / 10)
        assert (await ask(limited, rate(10))).passed

    async def test_a_window_holds_its_limit_and_nothing_comes_back_before_it_is_over(self, limited: Limited) -> None:
        assert await passed(limited, 5, window(3)) == 3
        await limited.advance(0.99 * DAY)
        assert await passed(limited, 5, window(3)) == 0
        await limited.advance(0.02 * DAY)
        assert await passed(limited, 5, window(3)) == 3

    async def test_a_window_slides(self, limited: Limited) -> None:
        for _ in range(3):
            await ask(limited, window(3))
            await limited.advance(DAY / 4)
        assert (await ask(limited, window(3))).answers[0].wait == near(DAY / 4)
        await limited.advance(DAY / 4)
        assert await passed(limited, 3, window(3)) == 1

    async def test_a_window_tells_what_is_left_and_when_it_is_whole_again(self, limited: Limited) -> None:
        first = (await ask(limited, window(2))).answers[0]
        await limited.advance(DAY / 4)
        second = (await ask(limited, window(2))).answers[0]
        await limited.advance(DAY / 4)
        third = (await ask(limited, window(2))).answers[0]
        assert [each.remaining for each in (first, second, third)] == [1, 0, 0]
        assert [each.reset for each in (first, second, third)] == [near(DAY), near(DAY), near(DAY * 3 / 4)]
        assert [each.wait for each in (first, second, third)] == [0.0, 0.0, near(DAY / 2)]

    async def test_what_is_given_back_to_a_window_may_be_taken_again(self, limited: Limited) -> None:
        check = window(2)
        kept, failed = await ask(limited, check), await ask(limited, check)
        kept.leave()
        failed.leave(give_back=check)
        assert await passed(limited, 3, check) == 1

    async def test_only_the_window_that_is_named_gets_something_back(self, limited: Limited) -> None:
        total, successes = window(2, "total"), window(1, "successes")
        for _ in range(2):
            (await ask(limited, total, successes)).leave(give_back=successes)
        assert [each.remaining for each in (await ask(limited, total, successes)).answers] == [0, 1]

    async def test_giving_back_what_has_left_by_itself_makes_no_room(self, limited: Limited) -> None:
        check = window(1)
        old = await ask(limited, check)
        await limited.advance(1.5 * DAY)
        assert (await ask(limited, check)).passed
        old.leave(give_back=check)
        assert await passed(limited, 2, check) == 0

    async def test_a_window_that_shrinks_lets_nobody_pass_until_enough_have_left(self, limited: Limited) -> None:
        for _ in range(4):
            await ask(limited, window(4))
            await limited.advance(DAY / 8)
        found = (await ask(limited, window(2))).answers[0]
        assert (found.remaining, found.wait) == (0, near(DAY * 6 / 8))

    async def test_places_are_taken_and_given_back(self, limited: Limited) -> None:
        admitted = [await ask(limited, Places("key", 2)) for _ in range(4)]
        assert [each.passed for each in admitted] == [True, True, False, False]
        assert [each.answers[0].remaining for each in admitted] == [1, 0, 0, 0]
        assert admitted[3].answers[0].wait > 0.0
        admitted[0].leave()
        assert await passed(limited, 2, Places("key", 2)) == 1

    @pytest.mark.parametrize("at", [0, 1], ids=["one that was admitted, twice", "one that was refused"])
    async def test_leaving_once_too_often_makes_no_room(self, limited: Limited, at: int) -> None:
        check = Places("key", 1), window(1, "window")
        admitted = [await ask(limited, *check) for _ in range(2)]
        admitted[at].leave()
        admitted[at].leave(give_back=check[1])
        assert not (await ask(limited, check[1])).passed
        assert await passed(limited, 3, check[0]) == 1 - at

    @pytest.mark.parametrize(
        "full", [rate(1, "full"), window(1, "full"), Places("full", 1)], ids=["a rate", "a window", "places"]
    )
    @pytest.mark.parametrize("at", [0, 3], ids=["first", "last"])
    async def test_what_one_limit_refuses_counts_against_no_other(self, limited: Limited, full: Check, at: int) -> None:
        await ask(limited, full)
        others: Sequence[Check] = (rate(3, "rate"), window(3, "window"), Places("places", 3))
        checks = (*others[:at], full, *others[at:])
        for _ in range(5):
            refused = await ask(limited, *checks)
            refused.leave()
            assert not refused.passed
            assert [each.wait > 0.0 for each in refused.answers] == [check is full for check in checks]
        assert [each.remaining for each in (await ask(limited, *others)).answers] == [2, 2, 2]

    @pytest.mark.parametrize("check", [rate(10), window(10), Places("key", 10)], ids=["a rate", "a window", "places"])
    async def test_no_two_at_once_take_the_same(self, limited: Limited, check: Check) -> None:
        found = await asyncio.gather(*(ask(limited, check, Places("all", 1000)) for _ in range(100)))
        assert sum(each.passed for each in found) == 10
