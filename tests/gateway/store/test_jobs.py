"""Who has a job: one living process at a time, told by conditional updates."""

import asyncio

import pytest
from tollway.gateway.store import Store, jobs, leases

pytestmark = pytest.mark.anyio

EVERY = 1_000
NAME = "sweep"


@pytest.fixture
async def ready(store: Store) -> Store:
    """A job, and three processes that know of it."""
    await jobs.add(store, NAME)
    for holder in ("a", "b", "c"):
        await leases.join(store, holder, host="", now_ms=0)
    return store


async def claim(store: Store, holder: str, now_ms: int = 0) -> int | None:
    return await jobs.claim(store, NAME, holder, now_ms=now_ms, every_ms=EVERY)


async def test_one_process_has_a_job_and_gives_it_back(ready: Store) -> None:
    assert await claim(ready, "a") == 1
    assert await claim(ready, "b") is None
    assert await jobs.has(ready, NAME, 1)
    assert await jobs.finish(ready, NAME, 1, due_ms=500)
    assert [await claim(ready, "b", now) for now in (0, 499, 500)] == [None, None, 2]


async def test_who_asks_at_the_same_time_gets_it_once(ready: Store) -> None:
    for number in range(10):
        found = await asyncio.gather(*(claim(ready, holder) for holder in "abcabc"))
        winners = {holder for holder, each in zip("abcabc", found, strict=True) if each is not None}
        assert len(winners) == 1, number
        last = max(each for each in found if each is not None)
        assert await jobs.finish(ready, NAME, last, due_ms=0)


async def test_a_process_that_was_cut_short_takes_its_job_again(ready: Store) -> None:
    assert await claim(ready, "a") == 1
    assert await claim(ready, "a") == 2
    assert not await jobs.has(ready, NAME, 1)
    assert not await jobs.finish(ready, NAME, 1, due_ms=10**9)
    assert await jobs.finish(ready, NAME, 2, due_ms=0)


async def test_the_job_of_a_process_that_has_left_is_free(ready: Store) -> None:
    assert await claim(ready, "a") == 1
    await leases.leave(ready, "a")
    assert await claim(ready, "b") == 2


async def test_the_job_of_a_process_that_is_taken_for_dead_is_free_and_it_learns_that(ready: Store) -> None:
    assert await claim(ready, "a") == 1
    seen = await leases.find(ready, "a")
    assert seen is not None
    assert await leases.expire(ready, seen)
    assert await claim(ready, "b") == 2
    assert await leases.beat(ready, "a") is False
    assert not await jobs.has(ready, NAME, 1)
    assert not await jobs.finish(ready, NAME, 1, due_ms=10**9)
    assert await claim(ready, "a") is None


async def test_a_due_time_that_no_right_clock_can_have_written_is_due(ready: Store) -> None:
    term = await claim(ready, "a", now_ms=10**12)
    assert term is not None
    await jobs.finish(ready, NAME, term, due_ms=10**12 + EVERY)
    assert await claim(ready, "b", now_ms=5_000) == term + 1


async def test_a_job_that_is_known_stays_as_it_is(ready: Store) -> None:
    assert await claim(ready, "a") == 1
    await jobs.add(ready, NAME)
    assert await claim(ready, "b") is None


async def test_a_job_that_nobody_added_is_nobodys(store: Store) -> None:
    assert await claim(store, "a") is None
