"""The list of changes, as other processes read it while many write."""

import asyncio
import random

import pytest
from tollway.gateway.store import Store, Transaction, changes

pytestmark = pytest.mark.anyio


async def test_no_change_appears_behind_one_that_was_read(store: Store) -> None:
    noted, go_on = asyncio.Event(), asyncio.Event()

    async def slow(transaction: Transaction) -> None:
        await changes.note(transaction, "user", 1, now_ms=1)
        noted.set()
        await go_on.wait()

    async def quick(transaction: Transaction) -> None:
        await changes.note(transaction, "user", 2, now_ms=1)

    first = asyncio.create_task(store.run(slow))
    await noted.wait()
    second = asyncio.create_task(store.run(quick))
    await asyncio.wait([second], timeout=0.2)
    read = await changes.since(store, 0)
    go_on.set()
    await asyncio.gather(first, second)
    read += await changes.since(store, read[-1].id if read else 0)
    assert [change.ref for change in read] == [1, 2]


async def test_who_has_missed_changes_is_told(store: Store) -> None:
    async def note(now_ms: int) -> int:
        await store.run(lambda transaction: changes.note(transaction, "user", 1, now_ms=now_ms))
        return await changes.latest(store)

    old, last = await note(1), await note(2)
    assert await changes.trim(store, now_ms=changes.KEPT_MS + 100) == 1
    assert await changes.since(store, last) == ()
    with pytest.raises(changes.Forgotten):
        await changes.since(store, old)
    with pytest.raises(changes.Forgotten):  # an older backup was put back
        await changes.since(store, last + 1)
    new = await note(200)
    assert [change.id for change in await changes.since(store, last)] == [new]
    assert [change.id for change in await changes.since(store, 0)] == [last, new]


async def test_a_reader_misses_nothing_while_many_write(store: Store, database_url: str) -> None:
    other = Store(database_url)
    await other.connect()
    draw = random.Random(7)

    async def write(each: Store, ref: int) -> None:
        async def work(transaction: Transaction) -> None:
            await changes.note(transaction, "token", ref, now_ms=1)
            await asyncio.sleep(draw.random() * 0.005)

        await asyncio.sleep(draw.random() * 0.1)
        await each.run(work)

    writers = [asyncio.create_task(write(draw.choice((store, other)), ref)) for ref in range(60)]
    read: list[int] = []
    last = 0
    while not all(writer.done() for writer in writers) or last != await changes.latest(store):
        for change in await changes.since(store, last):
            read.append(change.ref)
            last = change.id
    await asyncio.gather(*writers)
    assert sorted(read) == list(range(60))
    await other.close()
