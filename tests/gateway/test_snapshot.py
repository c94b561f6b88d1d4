"""What a server that runs takes over, when several things change at once and when it has missed what changed."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Table, delete, update
from tollway.config.budget import BudgetKind, Period
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
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
    channels,
    groups,
    options,
    prices,
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


def written_by_a_newer_version(table: Table, id: int, **values: int) -> Change:
    async def work(transaction: Transaction) -> None:
        await transaction.change(update(table).where(table.c.id == id).values(**values))
        await changes.note(transaction, KINDS[table], id, now_ms=START_MS)

    return lambda store: store.run(work)


KINDS: Mapping[Table, changes.ChangeKind] = {schema.channels: "channel", schema.tokens: "token", schema.users: "user"}


@pytest.mark.parametrize(
    "newer",
    [
        written_by_a_newer_version(schema.channels, 1, type=9999),
        written_by_a_newer_version(schema.channels, 1, status=9999),
        written_by_a_newer_version(schema.tokens, 2, status=9999),
        written_by_a_newer_version(schema.users, 1, status=9999),
        written_by_a_newer_version(schema.users, 1, role=9999),
    ],
)
async def test_what_a_newer_version_wrote_hides_no_other_change(seen: Seen, newer: Change) -> None:
    channel = Channel(id=0, name="newer", type=ChannelType.ECHO, models=("m",))
    await channels.create(seen.store, seen.snapshot.vault, channel, now_ms=START_MS)
    await newer(seen.store)
    await seen.snapshot.poll()
    await tokens.delete(seen.store, 1, now_ms=START_MS)
    await seen.snapshot.poll()
    assert not seen.is_good(seen.keys[0])
    await Snapshot(seen.store, seen.snapshot.vault, defaults=Options()).load()


@pytest.mark.parametrize("table", [schema.tokens, schema.users])
async def test_a_status_that_is_not_known_lets_nobody_in(seen: Seen, table: Table) -> None:
    await written_by_a_newer_version(table, 1, status=9999)(seen.store)
    await seen.snapshot.poll()
    assert not seen.is_good(seen.keys[0])


async def test_an_option_of_a_newer_version_keeps_no_other_from_its_value(seen: Seen) -> None:
    await options.set_many(seen.store, {"limits_without_redis": "refuse"}, now_ms=START_MS)
    await seen.snapshot.poll()
    newer = {"limits_without_redis": "newer", "requests_per_minute_user": "7"}
    await options.set_many(seen.store, newer, now_ms=START_MS)
    await seen.snapshot.poll()
    started = Snapshot(seen.store, seen.snapshot.vault, defaults=Options())
    await started.load()
    now, after_start = seen.snapshot.options.current, started.options.current
    assert (now.requests_per_minute_user, now.limits_without_redis) == (7, "refuse")
    assert (after_start.requests_per_minute_user, after_start.limits_without_redis) == (7, "local")


async def test_a_group_has_its_own_ratio_whatever_the_options_of_groups_say(seen: Seen) -> None:
    await options.set_many(seen.store, {"GroupRatio": '{"default": 3}'}, now_ms=START_MS)
    await seen.snapshot.poll()
    await options.set_many(seen.store, {"GroupRatio": '{"default": {"newer": 1}}'}, now_ms=START_MS)
    await group(seen.store)
    await seen.snapshot.poll()
    started = Snapshot(seen.store, seen.snapshot.vault, defaults=Options())
    await started.load()
    assert [seen.snapshot.ratios.ratio("default", name) for name in ("default", "vip")] == [3, Decimal("0.5")]
    assert started.ratios.ratio("default", "vip") == Decimal("0.5")


async def test_a_price_that_cannot_be_read_stays_as_it_was(seen: Seen) -> None:
    price = '[models."gpt-4o"]\ninput = {}\noutput = 2\nsource = "these tests"\nchecked = 2026-11-01\n'
    await prices.put(seen.store, "gpt-4o", price.format(1000), now_ms=START_MS)
    await seen.snapshot.poll()
    before = seen.snapshot.prices.price_for("gpt-4o", "gpt-4o")
    await prices.put(seen.store, "gpt-4o", price.format('"newer"'), now_ms=START_MS)
    await prices.put(seen.store, "other", price.format(3).replace("gpt-4o", "other"), now_ms=START_MS)
    await seen.snapshot.poll()
    assert seen.snapshot.prices.price_for("gpt-4o", "gpt-4o") == before != PriceBook.builtin().prices["gpt-4o"]
    assert seen.snapshot.prices.price_for("other", "other") is not None
