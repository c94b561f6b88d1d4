"""Several processes on one Redis: totals are exact, and one that is killed holds nothing for long."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process

import pytest
from tollway.middleware.ports import Places

from .conftest import OwnServer, limiter_at

pytestmark = pytest.mark.anyio

PROCESS = """
import asyncio, sys
from tollway.config.secret import Secret
from tollway.gateway.redis import RedisLimiter
from tollway.middleware.ports import Places, Rate, Window

DAY = 86400.0
CHECKS = {"rate": Rate("key", 250, DAY), "window": Window("key", 250, DAY), "places": Places("key", 250)}
FAILS = Window("fails", 40, DAY)

async def main(url, kind, lease):
    async with RedisLimiter.opened(Secret(url), patience=20, lease=lease) as limiter:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if kind == "failing":
            async def one():
                admission = await limiter.admit([FAILS])
                await asyncio.sleep(0)
                admission.leave(give_back=FAILS)
                return admission.passed
        else:
            async def one():
                return (await limiter.admit([CHECKS[kind]])).passed
        passed = 0
        for _ in range(80):  # slowly enough that both are at it at the same time
            passed += sum(await asyncio.gather(*(one() for _ in range(5))))
            await asyncio.sleep(0.01)
        print(passed, limiter.local_admissions, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


async def started(url: str, kind: str, lease: float = 30.0) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, url, kind, str(lease), stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def told(process: Process) -> tuple[int, int]:
    """How many passed there, and how many of all were counted in that process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    passed, local = (await process.stdout.readline()).split()
    return int(passed), int(local)


async def ended(*processes: Process) -> None:
    for process in processes:
        await process.communicate(b"end\n")
        assert process.returncode == 0


@pytest.mark.parametrize("kind", ["rate", "window", "places"])
async def test_two_processes_share_a_limit_to_the_very_one(redis_url: str, kind: str) -> None:
    processes = await asyncio.gather(started(redis_url, kind), started(redis_url, kind))
    (one, one_local), (other, other_local) = await asyncio.gather(*map(told, processes))
    await ended(*processes)
    assert (one_local, other_local) == (0, 0)
    assert one + other == 250
    assert min(one, other) > 0, "they were meant to run at the same time"


async def test_what_all_give_back_is_free_for_all(redis_url: str) -> None:
    processes = await asyncio.gather(started(redis_url, "failing"), started(redis_url, "failing"))
    found = await asyncio.gather(*map(told, processes))
    await ended(*processes)
    assert sum(passed for passed, _ in found) >= 40
    again = await started(redis_url, "failing")
    assert (await told(again))[0] >= 40
    await ended(again)


async def test_the_places_of_a_process_that_was_killed_come_free(server: OwnServer) -> None:
    lease = 1.0
    process = await started(server.url, "places", lease)
    assert (await told(process))[0] == 250
    check = Places("key", 250)
    async with limiter_at(server.url, lease=lease) as limiter:
        await asyncio.sleep(1.5 * lease)
        assert not (await limiter.admit([check])).passed, "a living process holds its places"
        process.kill()
        await process.wait()
        killed = time.monotonic()
        async with asyncio.timeout(10):
            while not (await limiter.admit([check])).passed:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.05)
        assert time.monotonic() - killed < 3 * lease
