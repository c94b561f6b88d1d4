"""What a server that runs takes over, when several things change at once and when it has missed what changed."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import delete
from tollway.config.budget import BudgetKind, Period
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.ledger.budget_book import BudgetBook
from tollway.gateway.ledger.core import Core
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import (
    Store,
    StoreError,
    Transaction,
    budgets,
    changes,
    groups,
    options,
    schema,
    tokens,
    users,
)
from tollway.gateway.store.records import GroupRow, TokenStatus

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 60 * 60 * 1000
START_MS = 20_000 * DAY_MS
"""A day of 2024, at midnight."""


@dataclass
class Seen:
    """A server's view of a user with two keys."""

    snapshot: Snapshot
    keys: list[str]

    @property
    def store(self) -> Store:
        return self.snapshot.store

    def is_good(self, key: str) -> bool:
        principal = self.snapshot.tokens.find(key)
        return principal is not None and not principal.disabled


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncGenerator[Seen]:
    opened = await open_data_dir(Settings(data_dir=tmp_path))
    user_id = await users.create(opened.store, username="ada", now_ms=START_MS)
    made = [await tokens.create(opened.store, opened.vault, user_id=user_id, now_ms=START_MS) for _ in range(2)]
    snapshot = Snapshot(opened.store, opened.vault, defaults=Options())
    seen = Seen(snapshot, [key.reveal() for _, key in made])
    await snapshot.load()
    assert all(map(seen.is_good, seen.keys))
    yield seen
    await opened.store.close()


Change = Callable[[Store], Awaitable[object]]


async def option(store: Store) -> None:
    await options.set_many(store, {"log_retention_days": "30"}, now_ms=START_MS)


async def group(store: Store) -> None:
    await groups.put(store, GroupRow("vip", Decimal("0.5"), ""), now_ms=START_MS)


async def budget_of_a_group(store: Store) -> None:
    await budgets.put(store, BudgetKind.GROUP, "vip", Period.DAILY, amount=1, soft_percent=0, now_ms=START_MS)


@pytest.mark.parametrize("other", [option, group, budget_of_a_group])
async def test_a_key_that_is_deleted_while_something_else_changes_is_refused(seen: Seen, other: Change) -> None:
    await tokens.delete(seen.store, 1, now_ms=START_MS)
    await other(seen.store)
    await seen.snapshot.poll()
    assert [seen.is_good(key) for key in seen.keys] == [False, True]


async def sleep_through(seen: Seen, change: Change) -> None:
    """`change` is made, and another server, for which it is two days later, forgets it before this one looks again."""
    await change(seen.store)
    await changes.trim(seen.store, now_ms=START_MS + 2 * DAY_MS)


async def test_who_slept_until_changes_were_forgotten_takes_them_over(seen: Seen) -> None:
    async def change(store: Store) -> None:
        await tokens.delete(store, 1, now_ms=START_MS)
        await tokens.set_status(store, 2, TokenStatus.DISABLED, now_ms=START_MS)

    await sleep_through(seen, change)
    await seen.snapshot.poll()
    assert [seen.is_good(key) for key in seen.keys] == [False, False]


async def test_budgets_that_were_set_and_removed_meanwhile_are_known(seen: Seen) -> None:
    book = BudgetBook(seen.store, Core("a"))
    for kind in (BudgetKind.USER, BudgetKind.TOKEN):
        await budgets.put(seen.store, kind, "1", Period.DAILY, amount=1, soft_percent=0, now_ms=START_MS)
    await book.load()
    seen.snapshot.all_changed = book.load

    async def change(store: Store) -> None:
        await budgets.remove(store, BudgetKind.USER, "1", Period.DAILY, now_ms=START_MS)
        await budgets.put(store, BudgetKind.USER, "1", Period.WEEKLY, amount=1, soft_percent=0, now_ms=START_MS)

    await sleep_through(seen, change)
    await seen.snapshot.poll()
    ada = seen.snapshot.tokens.find(seen.keys[0])
    assert ada is not None
    assert [(budget.kind, budget.period) for budget in book.of(ada)] == [("user", "weekly"), ("token", "daily")]


async def test_a_load_that_failed_is_made_up_for(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    await sleep_through(seen, lambda store: tokens.delete(store, 1, now_ms=START_MS))

    async def away(store: Store) -> tuple[()]:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "all_kept", away)
        with pytest.raises(StoreError):
            await seen.snapshot.poll()
    await seen.snapshot.poll()
    assert not seen.is_good(seen.keys[0])


async def test_a_load_without_the_budgets_is_made_up_for(seen: Seen) -> None:
    loads = 0

    async def load_budgets() -> None:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise StoreError("away")

    seen.snapshot.all_changed = load_budgets
    await sleep_through(seen, option)
    with pytest.raises(StoreError):
        await seen.snapshot.poll()
    for _ in range(3):
        await seen.snapshot.poll()
    assert loads == 2


async def test_an_older_backup_that_is_put_back_is_seen(seen: Seen) -> None:
    async def put_back(transaction: Transaction) -> None:
        last = await changes.latest(transaction)
        await transaction.change(delete(schema.changes).where(schema.changes.c.id == last))
        await transaction.change(delete(schema.tokens).where(schema.tokens.c.id == 2))

    await seen.store.run(put_back)
    await seen.snapshot.poll()
    assert [seen.is_good(key) for key in seen.keys] == [True, False]


async def test_who_looks_in_time_loads_only_what_changed(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load() -> None:
        pytest.fail("everything is loaded again")

    monkeypatch.setattr(seen.snapshot, "load", load)
    for day in range(5):
        if day % 2:
            await option(seen.store)
        await seen.snapshot.poll()
        await changes.trim(seen.store, now_ms=START_MS + (day + 2) * DAY_MS)
