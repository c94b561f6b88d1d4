"""The small tables: options, groups, prices, and the list of changes that all of them write to."""

from decimal import Decimal

import pytest
from sqlalchemy import text
from tollway.gateway.store import Store, Transaction, changes, groups, options, prices
from tollway.gateway.store.records import Change, GroupRow, PriceRow

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 60 * 60 * 1000


async def test_options_are_set_replaced_and_unset(store: Store) -> None:
    await options.set_many(store, {"a": "1", "b": "2"}, now_ms=1)
    await options.set_many(store, {"b": "3"}, now_ms=2)
    assert await options.list_all(store) == {"a": "1", "b": "3"}
    assert await options.unset(store, "a", now_ms=3)
    assert not await options.unset(store, "a", now_ms=4)
    assert await options.list_all(store) == {"b": "3"}
    assert [change.created_at for change in await changes.since(store, 0)] == [1, 2, 3]


async def test_a_groups_ratio_is_exact(store: Store) -> None:
    ratio = Decimal("0.1000000000000000000001")
    await groups.put(store, GroupRow("vip", Decimal(1), ""), now_ms=1)
    await groups.put(store, GroupRow("vip", ratio, "for friends"), now_ms=2)
    assert await groups.list_all(store) == (GroupRow("vip", ratio, "for friends"),)
    assert await groups.delete(store, "vip", now_ms=3)
    assert not await groups.delete(store, "vip", now_ms=4)
    assert [change.kind for change in await changes.since(store, 0)] == ["group"] * 3


async def test_prices_are_put_and_deleted(store: Store) -> None:
    await prices.put(store, "m", "{}", now_ms=1)
    await prices.put(store, "m", '{"input": "1"}', now_ms=2)
    assert await prices.list_all(store) == (PriceRow("m", '{"input": "1"}', 2),)
    assert await prices.delete(store, "m", now_ms=3)
    assert not await prices.delete(store, "m", now_ms=4)
    assert [change.kind for change in await changes.since(store, 0)] == ["price"] * 3


async def test_many_prices_are_one_change(store: Store) -> None:
    await prices.put(store, "m7", "{}", now_ms=1)
    texts = {f"m{i}": f"price {i}" for i in range(1500)}
    await prices.put_many(store, texts, now_ms=2)
    await prices.put_many(store, {}, now_ms=3)
    assert {row.model: row.price for row in await prices.list_all(store)} == texts
    assert {row.updated_at for row in await prices.list_all(store)} == {2}
    # What a process takes over at one look has a limit, so that many changes would reach it late.
    noted = await changes.since(store, 0)
    assert [(change.kind, change.created_at) for change in noted] == [("price", 1), ("price", 2)]


@pytest.mark.parametrize("engine_name", ["postgresql-local"], indirect=True)
async def test_names_are_in_one_order_whatever_the_language_of_the_database(store: Store) -> None:
    for column in ("prices ALTER model", "groups ALTER name"):
        await store.change(text(f'ALTER TABLE {column} TYPE varchar(64) COLLATE "en-x-icu"'))
    for name in ("a", "B", "_"):
        await prices.put(store, name, "{}", now_ms=1)
        await groups.put(store, GroupRow(name, Decimal(1), ""), now_ms=1)
    assert [row.model for row in await prices.list_all(store)] == ["B", "_", "a"]
    assert [row.name for row in await groups.list_all(store)] == ["B", "_", "a"]


async def test_changes_are_read_from_where_one_stopped(store: Store) -> None:
    assert await changes.latest(store) == 0
    for at in (1, 2, 3):
        await options.set_many(store, {"a": str(at)}, now_ms=at)
    assert await changes.since(store, 1, limit=1) == (Change(id=2, kind="option", ref=0, created_at=2),)
    assert await changes.since(store, await changes.latest(store)) == ()


async def test_a_change_is_noted_only_if_its_write_is_kept(store: Store) -> None:
    async def work(transaction: Transaction) -> None:
        await options.set_many(transaction, {"a": "1"}, now_ms=1)
        await groups.put(transaction, GroupRow("g", Decimal(1), ""), now_ms=1)
        raise LookupError

    with pytest.raises(LookupError):
        await store.run(work)
    assert await changes.since(store, 0) == ()
    assert await options.list_all(store) == {}


async def test_old_changes_are_trimmed_and_numbers_not_used_again(store: Store) -> None:
    for at in (1, 2):
        await options.set_many(store, {"a": "1"}, now_ms=at)
    assert await changes.trim(store, now_ms=DAY_MS + 2) == 1
    assert await changes.trim(store, now_ms=DAY_MS + 3) == 0, "the newest is kept, for readers to find themselves by"
    await options.set_many(store, {"a": "1"}, now_ms=3)
    assert await changes.latest(store) == 3
