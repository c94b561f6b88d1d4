"""What the store promises, on every engine."""

import asyncio
import itertools
import logging
import time

import pytest
from sqlalchemy import Text, delete, func, insert, select, text, update
from tollway.gateway.store import BadValue, BrokenReference, Conflict, Store, StoreError, Transaction
from tollway.gateway.store.schema import abilities, channels, options, tokens, users

pytestmark = pytest.mark.anyio


@pytest.fixture
async def user_id(store: Store) -> int:
    return await add(store, "ada", 1000)


async def add(store: Store, name: str, quota: int = 0) -> int:
    return await store.insert(insert(users).values(username=name, quota=quota, created_at=1))


async def quota_of(store: Store, user_id: int) -> int:
    row = await store.one(select(users.c.quota).where(users.c.id == user_id))
    assert row is not None
    return row["quota"]


async def test_insert_gives_the_id_of_the_row(store: Store) -> None:
    assert [await add(store, name) for name in ("a", "b", "c")] == [1, 2, 3]


async def test_one_gives_none_when_nothing_matches(store: Store) -> None:
    assert await store.one(select(users)) is None
    assert await store.all(select(users)) == []


async def test_columns_have_their_types(store: Store, user_id: int) -> None:
    await store.insert(insert(tokens).values(user_id=user_id, key_hash="h", key_prefix="p", created_at=1))
    row = await store.one(select(tokens.c.unlimited, tokens.c.models, tokens.c.remain_quota))
    assert row == {"unlimited": False, "models": None, "remain_quota": 0}
    assert row["unlimited"] is False


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        pytest.param(["nobody"], 0, id="none, although the connection has just inserted"),
        pytest.param(["a"], 1, id="one"),
        pytest.param(["a", "b"], 2, id="several"),
    ],
)
async def test_change_counts_the_rows_that_changed(store: Store, names: list[str], rows: int) -> None:
    async def work(transaction: Transaction) -> tuple[int, int]:
        for name in ("a", "b", "c"):
            await transaction.insert(insert(users).values(username=name, created_at=1))
        updated = await transaction.change(update(users).where(users.c.username.in_(names)).values(quota=1))
        deleted = await transaction.change(delete(users).where(users.c.username.in_(names)))
        return updated, deleted

    assert await store.run(work) == (rows, rows)


async def test_a_conditional_update_says_whether_it_took(store: Store, user_id: int) -> None:
    take = update(users).where(users.c.id == user_id, users.c.quota >= 600).values(quota=users.c.quota - 600)
    assert [await store.change(take), await store.change(take)] == [1, 0]


async def test_change_counts_rows_that_had_the_value_already(store: Store, user_id: int) -> None:
    assert [await store.change(update(users).values(quota=5)) for _ in range(2)] == [1, 1]


async def test_change_takes_plain_sql(store: Store, user_id: int) -> None:
    give = text('UPDATE users SET quota = quota + :given WHERE id = :id AND "group" = :group')
    assert await store.change(give.bindparams(given=7, id=user_id, group="default")) == 1
    assert await store.one(text("SELECT quota FROM users WHERE id = :id").bindparams(id=user_id)) == {"quota": 1007}


async def test_change_counts_the_rows_of_an_insert(store: Store) -> None:
    rows = [{"key": key, "value": "v"} for key in "abc"]
    assert await store.change(insert(options).values(rows)) == 3


async def test_an_id_that_is_given_is_the_id(store: Store) -> None:
    assert await store.insert(insert(users).values(id=77, username="a", created_at=1)) == 77


async def test_a_sum_of_whole_numbers_is_one(store: Store, user_id: int) -> None:
    await add(store, "bob", 2**60)
    row = await store.one(select(func.sum(users.c.quota).label("sum")))
    assert row == {"sum": 2**60 + 1000}
    assert type(row["sum"]) is int


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("ada", "Ada"), id="case"),
        pytest.param(("ada", "ada "), id="a blank at the end"),
        pytest.param(("ada", "\u00e0da"), id="an accent"),
        pytest.param(("stra\u00dfe", "strasse"), id="two letters that sound alike"),
        pytest.param(("\U0001f600", "\U0001f601"), id="two faces"),
    ],
)
async def test_names_that_differ_at_all_are_different(store: Store, names: tuple[str, str]) -> None:
    ids = [await add(store, name) for name in names]
    found = await store.all(select(users.c.id, users.c.username).where(users.c.username == names[0]))
    assert found == [{"id": ids[0], "username": names[0]}]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE users; --", '"', "\\", "%", "%s", "%(a)s", ":a", "\n\t\r", "\x1a", "`"]
)
async def test_a_text_is_a_text_whatever_it_holds(store: Store, text: str) -> None:
    await store.upsert(options, {"key": text, "value": text})
    await store.bulk(options, ("key", "value"), [(text + "2", "old")])
    await store.run(lambda transaction: transaction.replace(options, ("value", "key"), [(text, text + "2")]))
    assert await store.one(select(options).where(options.c.key == text)) == {"key": text, "value": text}
    assert await store.one(select(options).where(options.c.key == text + "2")) == {"key": text + "2", "value": text}


async def test_a_long_text_is_kept_whole(store: Store) -> None:
    await store.upsert(options, {"key": "k", "value": "\u00e9" * 200_000})
    row = await store.one(select(options.c.value))
    assert row == {"value": "\u00e9" * 200_000}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"username": "a", "quota": 2**63}, id="a number beyond 64 bits"),
        pytest.param({"username": "nobody's business\ud800"}, id="half a character"),
    ],
)
async def test_a_value_that_cannot_be_stored_is_refused_and_not_shown(store: Store, values: dict[str, object]) -> None:
    with pytest.raises(BadValue) as refused:
        await store.insert(insert(users).values(created_at=1, **values))
    assert "business" not in str(refused.value)
    assert str(2**63) not in str(refused.value)
    assert await add(store, "a") > 0


async def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.insert(insert(users).values(username="a", created_at=1))
        raise LookupError

    with pytest.raises(LookupError):
        await store.run(work)
    assert await store.all(select(users)) == []


async def test_a_transaction_joins_the_one_it_is_given(store: Store) -> None:
    async def inner(transaction: Transaction) -> int:
        return await transaction.insert(insert(users).values(username="a", created_at=1))

    async def outer(transaction: Transaction) -> None:
        await transaction.run(inner)
        raise LookupError

    with pytest.raises(LookupError):
        await store.run(outer)
    assert await store.all(select(users)) == []


async def test_a_transaction_that_would_wait_for_itself_is_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="hand the outer one on"):
        await store.run(lambda _: add(store, "a"))
    assert await add(store, "a") == 1


async def test_a_transaction_is_closed_when_it_is_over(store: Store) -> None:
    async def escape(transaction: Transaction) -> Transaction:
        return transaction

    transaction = await store.run(escape)
    with pytest.raises(RuntimeError, match="over"):
        await transaction.one(select(users))


async def test_a_child_task_sees_the_writes_of_its_transaction(store: Store) -> None:
    async def work(transaction: Transaction) -> int:
        await transaction.insert(insert(users).values(username="a", created_at=1))
        return len(await asyncio.create_task(transaction.all(select(users))))

    assert await store.run(work) == 1


async def test_two_hundred_read_modify_write_transactions_add_up(store: Store, user_id: int) -> None:
    async def take(transaction: Transaction) -> None:
        row = await transaction.one(select(users.c.quota).where(users.c.id == user_id).with_for_update())
        assert row is not None
        await transaction.change(update(users).where(users.c.id == user_id).values(quota=row["quota"] - 1))

    await asyncio.gather(*(store.run(take) for _ in range(200)))
    assert await quota_of(store, user_id) == 800


async def test_two_stores_on_one_database_take_turns(database_url: str, store: Store, user_id: int) -> None:
    other = Store(database_url)
    await other.connect()

    async def take(transaction: Transaction) -> None:
        row = await transaction.one(select(users.c.quota).where(users.c.id == user_id).with_for_update())
        assert row is not None
        await transaction.change(update(users).where(users.c.id == user_id).values(quota=row["quota"] - 1))

    await asyncio.gather(*(one.run(take) for _ in range(25) for one in (store, other)))
    assert await quota_of(other, user_id) == 950
    await other.close()


async def test_readers_do_not_wait_for_a_writer(store: Store, user_id: int) -> None:
    reading = asyncio.Event()

    async def slow(transaction: Transaction) -> None:
        await transaction.change(update(users).values(quota=1))
        await reading.wait()

    writer = asyncio.create_task(store.run(slow))
    assert await asyncio.wait_for(quota_of(store, user_id), 5) == 1000
    reading.set()
    await writer
    assert await quota_of(store, user_id) == 1


async def test_three_hundred_cancelled_transactions_leak_nothing(store: Store, user_id: int) -> None:
    async def take(transaction: Transaction) -> None:
        await transaction.change(update(users).where(users.c.id == user_id).values(quota=users.c.quota - 1))
        await asyncio.sleep(0)

    for burst in range(60):
        callers = [asyncio.create_task(store.run(take)) for _ in range(5)]
        for _ in range(burst % 7):
            await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        ends = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)

    async with asyncio.timeout(20):
        assert all(await asyncio.gather(*(store.one(select(users)) for _ in range(20))))
        await store.change(update(users).values(request_count=1))
        # Whatever had begun was finished: each transaction whole, never half of one.
        assert 700 <= await quota_of(store, user_id) < 1000


async def test_work_that_was_begun_is_finished_although_its_caller_is_gone(store: Store, user_id: int) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(transaction: Transaction) -> None:
        await transaction.change(update(users).values(quota=7))
        begun.set()
        await go_on.wait()
        await transaction.change(update(users).values(used_quota=993))

    caller = asyncio.create_task(store.run(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await store.close()
    await store.connect()
    assert await store.one(select(users.c.quota, users.c.used_quota)) == {"quota": 7, "used_quota": 993}


async def test_a_failure_that_nobody_waits_for_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: Transaction) -> None:
        begun.set()
        await go_on.wait()
        raise LookupError("lost")

    caller = asyncio.create_task(store.run(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.ERROR, logger="tollway.store"):
        await caller
    go_on.set()
    await store.close()
    assert "lost" in caplog.text


async def test_cancelled_reads_leak_nothing(store: Store, user_id: int) -> None:
    for _ in range(100):
        reader = asyncio.create_task(store.all(select(users)))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    assert await asyncio.wait_for(quota_of(store, user_id), 5) == 1000


async def test_a_read_that_is_cancelled_as_its_answer_comes_is_cancelled(store: Store) -> None:
    for before, after in itertools.product((1, 2, 3), range(4)):
        reader = asyncio.create_task(store.all(select(users)))
        for _ in range(before):
            await asyncio.sleep(0)
        time.sleep(0.002)  # noqa: ASYNC251  the answer lies there, and the loop has not seen it
        for _ in range(after):
            await asyncio.sleep(0)
        if reader.cancel():
            with pytest.raises(asyncio.CancelledError):
                await reader


async def test_a_taken_name_is_a_conflict(store: Store, user_id: int) -> None:
    with pytest.raises(Conflict, match="username"):
        await add(store, "ada")


async def test_a_row_of_an_unknown_parent_is_refused(store: Store) -> None:
    with pytest.raises(BrokenReference):
        await store.insert(insert(tokens).values(user_id=9, key_hash="h", key_prefix="p", created_at=1))


async def test_an_error_of_our_own_passes_as_it_is(store: Store) -> None:
    with pytest.raises(Exception, match="absent") as raised:
        await store.all(text("SELECT * FROM absent"))
    assert not isinstance(raised.value, StoreError)


async def test_bulk_inserts_all_or_none(store: Store) -> None:
    columns = ("key", "value")
    rows = [(f"k{i}", str(i)) for i in range(1000)]
    await store.bulk(options, columns, rows)
    await store.bulk(options, columns, [])
    with pytest.raises(Conflict):
        await store.bulk(options, columns, [("new", "1"), rows[0]])
    assert len(await store.all(select(options))) == 1000


async def test_many_rows_replace_those_that_are_there(store: Store) -> None:
    await store.bulk(options, ("key", "value"), [(f"k{i}", "old") for i in range(0, 1000, 2)])
    rows = [(f"k{i}", str(i)) for i in range(1, 1000)]
    await store.run(lambda transaction: transaction.replace(options, ("key", "value"), rows))
    await store.run(lambda transaction: transaction.replace(options, ("key", "value"), []))
    found = {row["key"]: row["value"] for row in await store.all(select(options))}
    assert found == {"k0": "old", **dict(rows)}


async def test_bulk_is_a_part_of_its_transaction(store: Store) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.bulk(options, ("value", "key"), [("v", "k")])
        assert await transaction.one(select(options)) == {"key": "k", "value": "v"}
        raise LookupError

    with pytest.raises(LookupError):
        await store.run(work)
    assert await store.all(select(options)) == []


async def test_upsert_inserts_then_replaces(store: Store) -> None:
    for value in ("1", "2"):
        await store.upsert(options, {"key": "k", "value": value})
    assert await store.all(select(options)) == [{"key": "k", "value": "2"}]


async def test_upsert_knows_keys_of_several_columns(store: Store) -> None:
    texts = dict.fromkeys((column.name for column in channels.c if isinstance(column.type, Text)), "")
    await store.insert(insert(channels).values(id=1, type=1, created_at=1, **texts))
    for enabled in (True, False):
        await store.upsert(abilities, {"group": "g", "model": "m", "channel_id": 1, "enabled": enabled})
    assert [row["enabled"] for row in await store.all(select(abilities))] == [False]


async def test_a_closed_store_says_so_and_can_be_opened_again(store: Store, user_id: int) -> None:
    await store.close()
    with pytest.raises(RuntimeError, match="not connected"):
        await quota_of(store, user_id)
    await store.connect()
    assert await quota_of(store, user_id) == 1000
