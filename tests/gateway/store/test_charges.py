import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from tollway.config.channel import Channel, ChannelType
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, Unavailable, channels, charges, logs, tokens, users
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.records import ChargeRecord, LogType
from tollway.gateway.store.schema import logs as table

pytestmark = pytest.mark.anyio


@pytest.fixture
async def parties(store: Store, vault: Vault) -> tuple[int, int, int]:
    """A user with a balance of 1000, a token with 600 and a channel."""
    user_id = await users.create(store, username="ada", quota=1000, now_ms=1)
    token_id, _ = await tokens.create(store, vault, user_id=user_id, remain_quota=600, now_ms=1)
    channel = Channel(id=0, name="c", type=ChannelType.ECHO, models=("m",))
    return user_id, token_id, (await channels.create(store, vault, channel, now_ms=1)).id


def charge(charge_id: str, parties: Sequence[int], quota: int = 0, **fields: Any) -> ChargeRecord:
    user_id, token_id, channel_id = parties
    named: dict[str, Any] = {"user_id": user_id, "token_id": token_id, "channel_id": channel_id, "created_at": 5}
    return ChargeRecord(charge_id=charge_id, quota=quota, **(named | fields))


async def balances(store: Store, parties: Sequence[int]) -> tuple[int, ...]:
    """User: quota, used, requests. Token: remaining, used. Channel: used."""
    user = await users.by_id(store, parties[0])
    (token,) = await tokens.by_ids(store, [parties[1]])
    state = (await channels.states(store))[parties[2]]
    assert user is not None
    return user.quota, user.used_quota, user.request_count, token.remain_quota, token.used_quota, state.used_quota


async def test_a_batch_is_taken_from_everyone_it_touches(store: Store, parties: tuple[int, int, int]) -> None:
    left = await charges.flush(store, [charge("a", parties, 30), charge("b", parties, 12)], 77)
    assert (left.charged, left.users, left.tokens) == (2, {parties[0]: 958}, {parties[1]: 558})
    assert await balances(store, parties) == (958, 42, 2, 558, 42, 42)
    (token,) = await tokens.by_ids(store, [parties[1]])
    assert token.accessed_at == 77


async def test_a_record_comes_back_as_a_log_row(store: Store, parties: tuple[int, int, int]) -> None:
    record = charge(
        "a",
        parties,
        7,
        type=LogType.ERROR,
        username="ada",
        token_name="laptop",
        channel_name="c",
        model="gpt-4o-high",
        upstream_model="gpt-4o",
        operation="chat.completions",
        group="vip",
        request_id="r1",
        status=502,
        is_stream=True,
        input_tokens=1,
        output_tokens=2,
        cached_tokens=3,
        price_version="2026-11",
        breakdown={"input": "0.25", "lines": [{"count": 2}]},
        outcome="truncated",
        estimated=True,
        attempts=2,
        duration_ms=4,
        first_byte_ms=None,
        ip="::1",
        other={"note": "é"},
    )
    await charges.flush(store, [record], 9)
    (row,) = await logs.find(store, LogFilter())
    assert {name: getattr(row, name) for name in ChargeRecord.__slots__} == {
        name: getattr(record, name) for name in ChargeRecord.__slots__
    }
    assert row.is_stream is True


async def test_a_charge_that_was_there_is_not_charged_again(store: Store, parties: tuple[int, int, int]) -> None:
    first = [charge("a", parties, 30), charge("b", parties, 12)]
    await charges.flush(store, first, 6)
    again = await charges.flush(store, [*first, charge("c", parties, 1)], 7)
    assert (again.charged, again.users, again.tokens) == (1, {parties[0]: 957}, {parties[1]: 557})
    assert await balances(store, parties) == (957, 43, 3, 557, 43, 43)


async def test_a_charge_twice_in_a_batch_is_charged_once(store: Store, parties: tuple[int, int, int]) -> None:
    assert (await charges.flush(store, [charge("a", parties, 30)] * 300, 6)).charged == 1
    assert await balances(store, parties) == (970, 30, 1, 570, 30, 30)


async def test_two_processes_with_the_same_charges_charge_once(
    path: Path, store: Store, parties: tuple[int, int, int]
) -> None:
    other = Store(str(path))
    await other.connect()
    batches = [[charge(f"c{i}", parties, 1) for i in range(start, start + 40)] for start in (0, 20, 40, 60)]
    both = (charges.flush(one, batch, 6) for batch in batches for one in (store, other))
    assert sum([left.charged for left in await asyncio.gather(*both)]) == 100
    assert await balances(store, parties) == (900, 100, 100, 500, 100, 100)
    await other.close()


async def test_an_unlimited_token_counts_only_its_use(
    store: Store, vault: Vault, parties: tuple[int, int, int]
) -> None:
    token_id, _ = await tokens.create(store, vault, user_id=parties[0], unlimited=True, remain_quota=5, now_ms=1)
    touched = (parties[0], token_id, parties[2])
    assert (await charges.flush(store, [charge("a", touched, 30)], 6)).tokens == {token_id: 5}
    assert await balances(store, touched) == (970, 30, 1, 5, 30, 30)


async def test_what_was_served_is_charged_below_zero(store: Store, parties: tuple[int, int, int]) -> None:
    left = await charges.flush(store, [charge("a", parties, 1500)], 6)
    assert (left.users, left.tokens) == ({parties[0]: -500}, {parties[1]: -900})


async def test_a_request_without_token_or_channel_is_charged_to_its_user(
    store: Store, parties: tuple[int, int, int]
) -> None:
    left = await charges.flush(store, [charge("a", (parties[0], 0, 0), 30)], 6)
    assert (left.users, left.tokens) == ({parties[0]: 970}, {})
    assert await balances(store, parties) == (970, 30, 1, 600, 0, 0)


async def test_nothing_to_do_is_done(store: Store) -> None:
    assert (await charges.flush(store, [], 6)).charged == 0


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 127, 128, 129, 1000])
async def test_every_size_of_batch_is_recorded_whole(store: Store, parties: tuple[int, int, int], rows: int) -> None:
    assert (await charges.flush(store, [charge(f"c{i}", parties, 1) for i in range(rows)], 6)).charged == rows
    found = await logs.find(store, LogFilter(), limit=2000)
    assert sorted(row.charge_id or "" for row in found) == sorted(f"c{i}" for i in range(rows))


async def test_a_batch_that_fails_charges_nobody(store: Store, parties: tuple[int, int, int]) -> None:
    bad: Any = charge("b", parties, model=None)
    with pytest.raises(sqlite3.IntegrityError):
        await charges.flush(store, [charge("a", parties, 30), bad], 6)
    assert await balances(store, parties) == (1000, 0, 0, 600, 0, 0)
    assert await logs.count(store, LogFilter()) == 0


async def test_a_flush_that_could_not_be_written_is_given_again(
    path: Path, store: Store, parties: tuple[int, int, int]
) -> None:
    impatient = Store(f"sqlite:///{path}?busy_timeout=20")
    await impatient.connect()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = [charge("a", parties, 30)]
    with pytest.raises(Unavailable):
        await charges.flush(impatient, batch, 6)
    other.execute("ROLLBACK")
    other.close()
    assert (await charges.flush(impatient, batch, 7)).charged == 1
    await impatient.close()


async def test_a_cancelled_flush_is_whole(store: Store, parties: tuple[int, int, int]) -> None:
    batch = [charge(f"c{i}", parties, 1) for i in range(100)]
    flush = asyncio.create_task(charges.flush(store, batch, 6))
    await asyncio.sleep(0)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    await charges.flush(store, batch, 7)
    assert await balances(store, parties) == (900, 100, 100, 500, 100, 100)


@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=20), max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_granted_is_what_is_left_and_what_was_charged(
    store: Store, vault: Vault, batches: list[list[tuple[int, int]]]
) -> None:
    number = len(await users.list_all(store))
    people: list[tuple[int, int, int]] = []
    for i in range(3):
        user_id = await users.create(store, username=f"u{number}-{i}", quota=50, now_ms=1)
        token_id, _ = await tokens.create(store, vault, user_id=user_id, remain_quota=50, now_ms=1)
        people.append((user_id, token_id, 0))
    for batch in batches:
        records = [charge(f"{number}-{quota}-{who}", people[who], quota) for quota, who in batch]
        await charges.flush(store, records, 6)
    for user_id, token_id, _ in people:
        user = await users.by_id(store, user_id)
        (token,) = await tokens.by_ids(store, [token_id])
        row = await store.one(
            select(func.coalesce(func.sum(table.c.quota), 0).label("n")).where(table.c.user_id == user_id)
        )
        assert user is not None
        assert row is not None
        assert user.quota + row["n"] == token.remain_quota + row["n"] == 50
        assert user.used_quota == token.used_quota == row["n"]
