"""Jobs: done once over all processes, in small steps, and taken over from a process that ended in the middle."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import select
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.gateway.jobs import DAY_MS, ROWS_AT_ONCE, Job, Jobs, housekeeping
from tollway.gateway.store import Store, StoreError, leases, logs, migrate
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.schema import changes, hourly
from tollway.gateway.store.schema import logs as table

pytestmark = pytest.mark.anyio

NOW = 1_000 * DAY_MS


async def opened(path: Path) -> Store:
    await migrate.upgrade(str(path))
    store = Store(str(path))
    await store.connect()
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    store = await opened(tmp_path / "main.db")
    for number in range(4):
        await leases.join(store, f"process-{number}", host="", now_ms=0)
    yield store
    await store.close()


def jobs_of(store: Store, *work: Job, holder: str = "process-0", look_every_s: float = 30) -> Jobs:
    return Jobs(store, holder, work, look_every_s=look_every_s, clock=lambda: NOW / 1000)


async def running(*all_jobs: Jobs, seconds: float) -> None:
    tasks = [asyncio.create_task(each.run()) for each in all_jobs]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_of_all_processes_one_does_what_is_due_and_then_nobody(store: Store) -> None:
    done: list[int] = []

    async def step(now_ms: int) -> bool:
        done.append(now_ms)
        return len(done) < 3

    job = Job("j", 1_000, step)
    await running(*(jobs_of(store, job, holder=f"process-{n}", look_every_s=0.01) for n in range(4)), seconds=0.5)
    assert done == [NOW] * 3


async def test_a_job_whose_process_has_died_is_finished_by_another(store: Store) -> None:
    left = [True]

    async def cut(_: int) -> bool:
        raise asyncio.CancelledError

    async def step(_: int) -> bool:
        return left.pop()

    with pytest.raises(asyncio.CancelledError):
        await jobs_of(store, Job("j", 1_000, cut)).attempt(Job("j", 1_000, cut))
    successor = jobs_of(store, holder="process-1")
    assert not await successor.attempt(Job("j", 1_000, step))
    await leases.leave(store, "process-0")
    left.append(False)
    assert not left[1]
    assert await successor.attempt(Job("j", 1_000, step))


async def test_who_has_lost_a_job_stops(store: Store) -> None:
    steps = 0

    async def step(_: int) -> bool:
        nonlocal steps
        steps += 1
        seen = await leases.find(store, "process-0")
        assert seen is not None
        await leases.expire(store, seen)
        await jobs_of(store, holder="process-1").attempt(Job("j", 1_000, nothing))
        return True

    async def nothing(_: int) -> bool:
        return False

    assert not await jobs_of(store).attempt(Job("j", 1_000, step))
    assert steps == 1


async def test_a_failure_of_one_job_stops_neither_the_others_nor_its_own_next_time(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    done = {"away": 0, "wrong": 0, "fine": 0}

    async def away(_: int) -> bool:
        done["away"] += 1
        raise StoreError("the log database is away")

    async def wrong(_: int) -> bool:
        done["wrong"] += 1
        raise ValueError("a defect")

    async def fine(_: int) -> bool:
        done["fine"] += 1
        return False

    work = (Job("away", 1_000, away), Job("wrong", 1_000, wrong), Job("fine", 1_000, fine))
    await running(jobs_of(store, *work, look_every_s=0.02), seconds=0.4)
    assert done["away"] > 1
    assert done["wrong"] > 1
    assert done["fine"] == 1
    assert "the job away goes on later: the log database is away" in caplog.text
    assert "the job wrong failed" in caplog.text


async def fill(store: Store, ages_in_days: list[float]) -> None:
    rows = [(int(NOW - age * DAY_MS), 2, 1, 1, "m") for age in ages_in_days]
    await store.bulk(table, ("created_at", "type", "quota", "user_id", "model"), rows)


async def left(store: Store) -> list[float]:
    rows = await logs.find(store, LogFilter(), limit=10_000)
    return [(NOW - row.created_at) / DAY_MS for row in reversed(rows)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param({}, [89.9, 1], id="90 days unless it is set"),
        pytest.param({"log_retention_days": "1"}, [1], id="days that are set"),
        pytest.param({"log_retention_days": "0"}, [400, 90.1, 89.9, 1], id="0 is for ever"),
    ],
)
async def test_old_log_rows_are_forgotten(store: Store, options: dict[str, str], wanted: list[float]) -> None:
    await fill(store, [400, 90.1, 89.9, 1])
    _, forget = housekeeping(store, None, Live(Options.parse(options)))
    assert await jobs_of(store).attempt(forget)
    assert await left(store) == wanted


async def test_many_old_rows_go_in_steps_and_their_hours_stay(store: Store) -> None:
    await fill(store, [100.0] * (2 * ROWS_AT_ONCE + 1))
    await store.bulk(hourly, ("hour", "user_id", "token_id", "channel_id", "model"), [(1, 1, 1, 1, "m")])
    _, forget = housekeeping(store, None, Live(Options()))
    assert await forget.step(NOW)
    assert await logs.count(store, LogFilter()) == ROWS_AT_ONCE + 1
    assert await jobs_of(store).attempt(forget)
    assert await logs.count(store, LogFilter()) == 0
    assert len(await store.all(select(hourly))) == 1


async def test_rows_in_a_database_of_their_own_are_forgotten_there(store: Store, tmp_path: Path) -> None:
    log_store = await opened(tmp_path / "logs.db")
    await fill(store, [400])
    await fill(log_store, [400, 1])
    _, forget = housekeeping(store, log_store, Live(Options()))
    assert await jobs_of(store).attempt(forget)
    assert (await left(store), await left(log_store)) == ([400], [1])
    await log_store.close()


async def test_changes_of_yesterday_are_forgotten(store: Store) -> None:
    rows = [("user", ref, NOW - int(ref * DAY_MS / 2)) for ref in (3, 1)]
    await store.bulk(changes, ("kind", "ref", "created_at"), rows)
    forget, _ = housekeeping(store, None, Live(Options()))
    assert await jobs_of(store).attempt(forget)
    assert [row["ref"] for row in await store.all(select(changes))] == [1]
