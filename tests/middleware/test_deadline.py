"""A deadline interrupts what takes too long, and nothing else."""

import asyncio

import pytest
from tollway.middleware.deadline import Deadline

pytestmark = pytest.mark.anyio


async def given(value: int, after: float = 0.0) -> int:
    await asyncio.sleep(after)
    return value


async def test_what_is_in_time_passes() -> None:
    assert await Deadline(1.0).within(given(7)) == 7


async def test_what_takes_too_long_is_interrupted() -> None:
    with pytest.raises(TimeoutError):
        await Deadline(0.05).within(given(7, after=30.0))


async def test_each_is_judged_by_its_own_time() -> None:
    deadline = Deadline(0.3)
    slow = asyncio.create_task(deadline.within(given(1, after=30.0)))
    await asyncio.sleep(0.2)
    assert await deadline.within(given(2, after=0.2)) == 2
    with pytest.raises(TimeoutError):
        await slow


async def test_a_cancellation_from_outside_stays_one() -> None:
    task = asyncio.create_task(Deadline(5.0).within(given(7, after=30.0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_passes() -> None:
    async def failing() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Deadline(1.0).within(failing())


async def test_the_task_can_go_on_after_its_deadline() -> None:
    deadline = Deadline(0.05)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await deadline.within(given(7, after=30.0))
    assert await deadline.within(given(8)) == 8
    await asyncio.sleep(0.2)  # nothing is left that would interrupt what comes later


def test_it_outlives_its_event_loop() -> None:
    deadline = Deadline(0.05)
    assert asyncio.run(deadline.within(given(7))) == 7

    async def late() -> None:
        with pytest.raises(TimeoutError):
            await deadline.within(given(7, after=30.0))

    asyncio.run(late())
