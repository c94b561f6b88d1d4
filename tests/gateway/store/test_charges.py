"""Charges into the database: each once, with everything that they change."""

import asyncio
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed
from sqlalchemy import select
from tollway.config.channel import Channel
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, channels, charges, leases, logs, tokens, users
from tollway.gateway.store.batch import Batch, fitted
from tollway.gateway.store.charges import Misplaced
from tollway.gateway.store.leases import BalanceKind, Subject
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.schema import channels as channels_table
from tollway.gateway.store.schema import hourly

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


@pytest.fixture
async def ids(store: Store, vault: Vault) -> tuple[int, int, int]:
    """A user with 1,000 quota, its token with 500, a channel; and a process that holds 300 and 200 of them."""
    user_id = await users.create(store, username="ann", quota=1000, now_ms=1)
    token_id, _ = await tokens.create(store, vault, user_id=user_id, name="t", remain_quota=500, now_ms=1)
    channel = await channels.create(
        store, vault, Channel(id=0, name="c", type=1, keys=(Secret("k"),), models=("m",)), now_ms=1
    )
    await leases.join(store, "h", host="", now_ms=1)
    await leases.take(store, "h", Subject(BalanceKind.USER, user_id), need=300, extra=0)
    await leases.take(store, "h", Subject(BalanceKind.TOKEN, token_id), need=200, extra=0)
    return user_id, token_id, channel.id


@pytest.fixture
def charge(ids: tuple[int, int, int]) -> ChargeRecord:
    user_id, token_id, channel_id = ids
    return ChargeRecord(
        created_at=5 * HOUR + 17,
        user_id=user_id,
        quota=10,
        username="ann",
        token_id=token_id,
        token_name="t",
        channel_id=channel_id,
        channel_name="c",
        model="gpt-4o",
        input_tokens=100,
        output_tokens=20,
        cached_tokens=30,
        breakdown={"group_ratio": "1", "input": [100, "2.5"]},
        request_id="r",
        first_byte_ms=12,
        other={"note": "für Ann"},
    )


def batch(*records: ChargeRecord, after: int = 0) -> Batch:
    return Batch("h", after, after + len(records), records)


async def test_a_batch_is_written_with_all_it_changes(store: Store, charge: ChargeRecord) -> None:
    assert await charges.flush(store, batch(charge, changed(charge, quota=5)), 99)
    (user,), (token,) = await users.list_all(store), await tokens.all_kept(store)
    assert (user.quota, user.used_quota, user.request_count) == (985, 15, 2)
    assert (token.remain_quota, token.used_quota, token.free_quota, token.accessed_at) == (485, 15, 0, 99)
    assert await leases.amounts(store, "h") == {
        Subject(BalanceKind.USER, user.id): 285,
        Subject(BalanceKind.TOKEN, token.id): 185,
    }
    row = await store.one(select(channels_table.c.used_quota))
    assert row is not None
    assert row["used_quota"] == 15
    second, first = sorted(await logs.find(store, LogFilter()), key=lambda each: each.quota)
    assert (first.charge_id, second.charge_id) == ("h-1", "h-2")
    for name in charge.__struct_fields__:
        if name not in {"unlimited", "budgets", "other"}:
            assert getattr(first, name) == getattr(charge, name), name
    assert first.other == {"note": "für Ann", "limited": True}
    row = await store.one(select(hourly))
    assert row is not None
    assert {name: row[name] for name in ("hour", "model", "requests", "quota", "input_tokens", "cached_tokens")} == {
        "hour": 5 * HOUR,
        "model": "gpt-4o",
        "requests": 2,
        "quota": 15,
        "input_tokens": 200,
        "cached_tokens": 60,
    }


async def test_a_batch_is_charged_once_however_often_it_is_given(store: Store, charge: ChargeRecord) -> None:
    first = batch(charge)
    done = await asyncio.gather(*(charges.flush(store, first, 99) for _ in range(4)))
    assert sorted(done) == [False, False, False, True]
    assert await charges.flush(store, batch(charge, after=1), 99)
    (user,) = await users.list_all(store)
    assert (user.quota, user.used_quota) == (980, 20)
    assert await logs.count(store, LogFilter()) == 2


@pytest.mark.parametrize(("after", "size"), [(0, 1), (0, 3), (5, 1)])
async def test_a_batch_that_does_not_follow_is_refused(
    store: Store, charge: ChargeRecord, after: int, size: int
) -> None:
    await charges.flush(store, batch(charge, charge), 99)
    with pytest.raises(Misplaced) as refused:
        await charges.flush(store, batch(*[charge] * size, after=after), 99)
    assert refused.value.flushed == 2
    assert await logs.count(store, LogFilter()) == 2


async def test_an_unknown_process_charges_nobody(store: Store, charge: ChargeRecord) -> None:
    with pytest.raises(Misplaced) as refused:
        await charges.flush(store, replace(batch(charge), holder="nobody"), 99)
    assert refused.value.flushed is None
    assert await logs.count(store, LogFilter()) == 0


async def test_a_gap_is_passed_over_and_the_numbers_stay(store: Store, charge: ChargeRecord) -> None:
    await charges.flush(store, Batch("h", 0, 7, (charge,)), 99)
    (row,) = await logs.find(store, LogFilter())
    assert row.charge_id == "h-7"
    assert await charges.flush(store, batch(charge, after=7), 99)


async def test_an_unlimited_token_only_counts(store: Store, charge: ChargeRecord) -> None:
    await charges.flush(store, batch(changed(charge, unlimited=True)), 99)
    (token,) = await tokens.all_kept(store)
    assert (token.remain_quota, token.used_quota, token.free_quota) == (500, 10, 10)


async def test_what_a_lease_does_not_cover_is_a_debt_of_it(store: Store, charge: ChargeRecord) -> None:
    await charges.flush(store, batch(changed(charge, quota=1250)), 99)
    (user,) = await users.list_all(store)
    assert (user.quota, user.used_quota) == (-250, 1250)
    await leases.leave(store, "h")
    (user,) = await users.list_all(store)
    assert user.quota == -250


async def test_a_large_batch_of_many_users(store: Store, charge: ChargeRecord) -> None:
    numbers = [await users.create(store, username=f"u{number}", quota=10, now_ms=1) for number in range(30)]
    records = [
        changed(charge, user_id=numbers[index % 30], created_at=index * HOUR // 100, quota=index)
        for index in range(900)
    ]
    assert await charges.flush(store, batch(*records), 99)
    assert await logs.count(store, LogFilter()) == 900
    found = {user.id: user for user in await users.list_all(store)}
    for place, number in enumerate(numbers):
        spent = sum(range(place, 900, 30))
        assert (found[number].used_quota, found[number].request_count) == (spent, 30)
        assert found[number].quota == 10 - spent
    sums = await store.all(select(hourly))
    assert sum(int(row["quota"]) for row in sums) == sum(range(900))


async def test_logs_in_a_database_of_their_own_are_written_once(store: Store, charge: ChargeRecord) -> None:
    assert await charges.flush(store, batch(charge), 99, with_logs=False)
    assert await logs.count(store, LogFilter()) == 0
    assert [await charges.flush_logs(store, batch(charge)) for _ in range(3)] == [True, False, False]
    assert await logs.count(store, LogFilter()) == 1
    assert await charges.logged(store, "h") == 1
    assert await charges.flush_logs(store, batch(charge, charge, after=1))
    assert await charges.logged(store, "h") == 3
    await charges.forget_logged(store, "h")
    assert await charges.logged(store, "h") is None


async def test_texts_that_an_engine_would_refuse_are_made_to_fit(store: Store, charge: ChargeRecord) -> None:
    """A client chooses its request's id, an upstream the name of its model."""
    odd = changed(charge, request_id="r" * 1000, upstream_model="a\0b", model="ü" * 300, username="名" * 64)
    assert await charges.flush(store, batch(fitted(odd)), 99)
    (row,) = await logs.find(store, LogFilter())
    assert (row.request_id, row.upstream_model, row.model) == ("r" * 64, "a?b", "ü" * 255)
    assert row.username == odd.username
