"""After its start the relay asks the store nothing: what statements there are come from those who watch it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import always, answers
from .wire import CHAT, HELLO, SERVER_ERROR, completion, whole

METHODS = ("one", "all", "insert", "change", "upsert", "bulk", "run", "run_plain")
# A poll each 500 ms, a flush each 200 ms, recalled leases each 250 ms, a sign of life each 2 s, a look for jobs
# that are due each 30 s: all by the clock. A lease is fetched by the first request of a user, and more of it before it
# is used up.
# What else the ledger asks in tasks of its own, on a machine that is late, no request waits for.
MAY_ASK = ("Snapshot.run", "StoreLedger.", "Jobs.run", "_every")
MOST_A_SECOND = 10
MOST_ONCE_MORE = 10
"""Each of those timers may fire once more than its rate says, and there is a lease and more of it."""
REQUESTS = 50


@pytest.fixture
def asked(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Who has called a method of the store, by the name of the task's coroutine."""
    store, callers = gateway.snapshot.store, Counter[str]()

    def counted(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            callers[getattr(task.get_coro(), "__qualname__", "somebody")] += 1
            return await method(*arguments, **named)

        return call

    for name in METHODS:
        monkeypatch.setattr(store, name, counted(getattr(store, name)))
    return callers


def test_the_relay_asks_nothing(gateway: Gateway, account: Account, upstream: UpstreamOf, asked: Counter[str]) -> None:
    """Whole answers, streams, failovers, refusals and lists of models."""
    broken = [whole(SERVER_ERROR, 503)] * 4
    gateway.channel(account, upstream(answers(*broken, whole(completion()), times=100)).url, priority=10)
    gateway.channel(account, upstream(always(HELLO)).url)
    assert gateway.chat(account, CHAT).status == 200
    time.sleep(0.05)
    asked.clear()
    since = time.monotonic()
    for number in range(REQUESTS):
        match number % 5:
            case 0 | 1:
                assert gateway.chat(account, CHAT).status == 200
            case 2:
                assert gateway.chat(account, CHAT | {"stream": True}).status == 200
            case 3:
                assert gateway.chat(account, CHAT | {"model": "gpt-9"}).status == 404
            case _:
                assert gateway.ask("/v1/models", account).status == 200
    took = time.monotonic() - since
    time.sleep(0.6)
    assert [name for name in asked if not name.startswith(MAY_ASK)] == []
    # Nothing that grows with the number of requests.
    assert asked["StoreLedger._take"] + asked["StoreLedger._refill"] <= 3
    assert asked["StoreLedger._write"] >= 1
    assert sum(asked.values()) <= MOST_A_SECOND * (took + 0.6) + MOST_ONCE_MORE
