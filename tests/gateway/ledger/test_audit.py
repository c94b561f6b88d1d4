"""The audit sees every figure that does not fit, and nothing where all do; on every engine."""

import re
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import delete, insert, select, update
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.journal import Journal
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.ledger.records import encode
from tollway.gateway.store import Store, audits, charges, leases, users
from tollway.gateway.store import hourly as hours
from tollway.gateway.store import logs as logs_of
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.engine import Query, Row
from tollway.gateway.store.leases import BalanceKind, Subject
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.migrate import upgrade
from tollway.gateway.store.records import ChargeRecord, LogType
from tollway.gateway.store.schema import grants, hourly, logs
from tollway.gateway.store.schema import leases as leases_table
from tollway.gateway.store.schema import users as users_table

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


@pytest.fixture
async def store(store: Store) -> Store:
    """A user with a lease, two charges in two hours, one of them in the hour before last."""
    user_id = await users.create(store, username="ann", quota=1000, now_ms=1)
    await leases.join(store, "h", host="", now_ms=1)
    await leases.take(store, "h", Subject(BalanceKind.USER, user_id), need=300, extra=0)
    records = tuple(ChargeRecord(hour * HOUR, user_id, 10, model="m", unlimited=True) for hour in (5, 7))
    await charges.flush(store, Batch("h", 0, 2, records), 1)
    return store


async def promises(store: Store, folder: Path) -> set[str]:
    return {each.promise for each in (await audit(store, None, folder)).differences}


async def test_a_sound_system_is_clean(store: Store, tmp_path: Path) -> None:
    found = await audit(store, None, tmp_path)
    assert (found.clean, found.waiting, found.differences) == (True, 0, [])


DAMAGES = {
    "a balance": (update(users_table).values(quota=users_table.c.quota + 1), "granted = left + leased + charged"),
    "a lease": (update(leases_table).values(amount=leases_table.c.amount - 1), "granted = left + leased + charged"),
    "a grant": (insert(grants).values(user_id=1, amount=5, created_at=1), "granted = left + leased + charged"),
    "an hour": (update(hourly).where(hourly.c.hour == 7 * HOUR).values(quota=11), "hour = sum of its log rows"),
    "a lost row": (delete(logs).where(logs.c.created_at == 7 * HOUR), "hour = sum of its log rows"),
    "a lost hour": (delete(hourly).where(hourly.c.hour == 7 * HOUR), "charged = sum of its hours"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_every_damage_is_seen(damage: str, store: Store, tmp_path: Path) -> None:
    statement, promise = DAMAGES[damage]
    await store.run(lambda transaction: transaction.change(statement))
    assert promise in await promises(store, tmp_path)


async def test_a_charge_that_was_written_twice_is_seen_though_all_adds_up(store: Store, tmp_path: Path) -> None:
    columns = tuple(column.name for column in logs.columns if column.name != "id")
    (row,) = await store.all(select(logs).where(logs.c.created_at == 7 * HOUR))
    await store.bulk(logs, columns, [tuple(row[name] for name in columns)])
    hour, user = hourly.c.hour == 7 * HOUR, users_table.c
    await store.change(update(hourly).where(hour).values(quota=hourly.c.quota + 10, requests=hourly.c.requests + 1))
    await store.change(update(users_table).values(quota=user.quota - 10, used_quota=user.used_quota + 10))
    (found,) = (await audit(store, None, tmp_path)).differences
    assert (found.subject, found.promise, found.expected, found.found) == ("charge h-2", "charged once", 1, 2)


async def test_rows_that_charge_nobody_are_no_charges(store: Store, tmp_path: Path) -> None:
    await store.bulk(logs, ("created_at", "type"), [(7 * HOUR, int(LogType.MANAGE))] * 2)
    assert (await audit(store, None, tmp_path)).clean


HOURS = {
    "a sum that is wrong": update(hourly).where(hourly.c.hour == 7 * HOUR).values(quota=11),
    "requests that are wrong": update(hourly).where(hourly.c.hour == 7 * HOUR).values(requests=2),
    "an hour without its sum": delete(hourly).where(hourly.c.hour == 7 * HOUR),
    "an hour without its rows": delete(logs).where(logs.c.created_at == 7 * HOUR),
    "another key": update(hourly).where(hourly.c.hour == 7 * HOUR).values(token_id=9),
    "rows that add up to nothing, without a sum": insert(logs).values(
        created_at=6 * HOUR, type=int(LogType.CORRECTION), charge_id="h-9"
    ),
}


@pytest.mark.parametrize("at_once", [1, 2, 100_000])
@pytest.mark.parametrize("damage", HOURS)
async def test_hours_are_compared_however_many_at_once(
    damage: str, at_once: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "ROWS_AT_ONCE", at_once)
    assert await audits.aggregates(store) == []
    await store.run(lambda transaction: transaction.change(HOURS[damage]))
    differences = await audits.aggregates(store)
    assert {each.promise for each in differences} == {"hour = sum of its log rows"}
    assert len(differences) == (2 if damage == "another key" else 1)


async def test_rows_that_retention_took_away_are_no_difference(store: Store, tmp_path: Path) -> None:
    await store.change(delete(logs).where(logs.c.created_at == 5 * HOUR))
    assert await promises(store, tmp_path) == set()


class TrimmedMeanwhile:
    """A store whose oldest rows go after each question."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def one(self, query: Query) -> Row | None:
        found = await self.store.one(query)
        await logs_of.trim(self.store, before_ms=8 * HOUR)
        return found

    async def all(self, query: Query) -> list[Row]:
        found = await self.store.all(query)
        await logs_of.trim(self.store, before_ms=8 * HOUR)
        return found


async def test_rows_that_go_during_the_audit_are_no_difference(store: Store) -> None:
    assert await audits.aggregates(cast("Store", TrimmedMeanwhile(store))) == []
    assert await logs_of.count(store, LogFilter()) == 0


async def test_a_journal_that_is_older_than_what_is_kept_of_the_log_is_sound(store: Store, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, holder="h", installation=await leases.installation_id(store), limit_bytes=2**24)
    now = time.time_ns() // 1_000_000
    moments = (5 * HOUR, 7 * HOUR, now - 30 * HOUR, now)
    for moment in moments:
        journal.settle(0, encode(ChargeRecord(moment, 1, 10, model="m", unlimited=True)))
    later = tuple(ChargeRecord(moment, 1, 10, model="m", unlimited=True) for moment in moments[2:])
    await charges.flush(store, Batch("h", 2, 4, later), 1)
    for trimmed in (0, 6 * HOUR, 8 * HOUR, now):
        await logs_of.trim(store, before_ms=trimmed)
        assert (await audit(store, None, tmp_path)).clean
    # A row of today has not gone by its age.
    await store.change(delete(logs))
    (lost,) = [each for each in (await audit(store, None, tmp_path)).differences if "charge" in each.subject]
    assert (lost.subject, lost.expected, lost.found) == ("charge h-4", 10, 0)
    journal.flushed(4)
    journal.close()


async def test_a_charge_of_long_ago_that_comes_late_is_no_difference(store: Store, tmp_path: Path) -> None:
    """Of a node that was away for longer than rows are kept, or whose clock was wrong: other rows of then are gone."""
    journal = Journal.create(tmp_path, holder="h", installation=await leases.installation_id(store), limit_bytes=2**24)
    now = time.time_ns() // 1_000_000
    records = [ChargeRecord(moment, 1, 10, model="m", unlimited=True) for moment in (5 * HOUR, 7 * HOUR, now, 2 * HOUR)]
    for record in records:
        journal.settle(0, encode(record))
    await charges.flush(store, Batch("h", 2, 3, (records[2],)), 1)
    await logs_of.trim(store, before_ms=8 * HOUR)
    await charges.flush(store, Batch("h", 3, 4, (records[3],)), 1)
    assert (await audit(store, None, tmp_path)).differences == []
    kept_from = hours.kept_from(90, now)
    assert await hours.first_whole_hour(store, kept_from) == now // HOUR * HOUR + HOUR
    assert [await hours.rebuild(store, hour * HOUR, kept_from) for hour in (2, 5, 7)] == [0, 0, 0]
    assert (await hours.totals(store, hours.HourFilter())).quota == 40
    journal.flushed(4)
    journal.close()


async def test_journals_are_held_against_the_database(store: Store, tmp_path: Path) -> None:
    installation = await leases.installation_id(store)
    journal = Journal.create(tmp_path, holder="h", installation=installation, limit_bytes=2**24)
    for quota in (10, 10, 4):
        journal.settle(0, encode(ChargeRecord(5 * HOUR, 1, quota, model="m", unlimited=True)))
    found = await audit(store, None, tmp_path)
    assert (found.clean, found.waiting) == (True, 1)
    await store.change(update(logs).where(logs.c.charge_id == "h-2").values(quota=9))
    assert "journal = log row" in await promises(store, tmp_path)
    journal.flushed(3)
    journal.close()


async def test_a_damaged_journal_is_named(store: Store, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    folder = journal_folder(tmp_path)
    journal = Journal.create(folder, holder="h", installation=await leases.installation_id(store), limit_bytes=2**24)
    for _ in range(5):
        journal.settle(0, encode(ChargeRecord(5 * HOUR, 1, 10, model="m", unlimited=True)))
    journal.close()
    (path,) = folder.glob("*.journal")
    content = bytearray(path.read_bytes())
    third = [match.start() for match in re.finditer(b'"m"', content)][2]
    content[third] ^= 1
    path.write_bytes(content)
    found = await audit(store, None, folder)
    assert not found.clean
    assert re.fullmatch(rf"{path.name}: bytes \d+ to \d+ are no record; charges 3 to 3 are lost, .*", found.damages[0])
    seen = await leases.find(store, "h")
    assert seen is not None
    assert await leases.expire(store, seen)
    async with open_ledger(store, settings, Live(Options())):
        pass
    (kept,) = folder.glob("*.damaged")
    found = await audit(store, None, folder)
    assert found.differences == []
    assert kept.name in found.damages[0]
    user = await users.by_id(store, 1)
    assert user is not None
    assert user.used_quota == 20 + 2 * 10  # of charges 3, 4 and 5 one could not be read


# --- logs in a database of their own


@pytest.fixture
async def log_store(store: Store, tmp_path: Path) -> AsyncGenerator[Store]:
    """The logs of two more charges; those of before stay in the first database."""
    url = f"sqlite:///{tmp_path}/logs.db"
    await upgrade(url)
    log_store = Store(url)
    await log_store.connect()
    records = tuple(ChargeRecord(hour * HOUR, 1, 10, model="m", unlimited=True) for hour in (8, 9))
    await charges.flush_logs(log_store, Batch("h", 0, 2, ()))
    await charges.flush(store, Batch("h", 2, 4, records), 1, with_logs=False)
    await charges.flush_logs(log_store, Batch("h", 2, 4, records))
    yield log_store
    await log_store.close()


async def test_counters_are_compared_with_the_hours_of_both_databases(
    store: Store, log_store: Store, tmp_path: Path
) -> None:
    sound = await audit(store, log_store, tmp_path)
    assert (sound.clean, sound.notes) == (True, [])
    for table in (logs, hourly):
        await log_store.change(delete(table))
    lost = await audit(store, log_store, tmp_path)
    assert [(each.subject, each.promise, each.expected, each.found) for each in lost.differences] == [
        ("user 1", "charged = sum of its hours", 40, 20)
    ]


async def test_charges_on_their_way_between_the_databases_are_no_difference(
    store: Store, log_store: Store, tmp_path: Path
) -> None:
    waiting = (ChargeRecord(10 * HOUR, 1, 10, model="m", unlimited=True),)
    await charges.flush(store, Batch("h", 4, 5, waiting), 1, with_logs=False)
    found = await audit(store, log_store, tmp_path)
    assert (found.clean, len(found.notes)) == (True, 1)
    await charges.flush_logs(log_store, Batch("h", 4, 5, waiting))
    found = await audit(store, log_store, tmp_path)
    assert (found.clean, found.notes) == (True, [])
