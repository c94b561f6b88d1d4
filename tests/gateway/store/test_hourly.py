"""Hourly sums: what they add up to, and how they are made again from the rows."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import Delete, Insert, Update, delete, insert, select, update
from tollway.gateway.store import Store, audits, charges, hourly, leases
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.hourly import HourFilter, Totals
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.schema import hourly as table
from tollway.gateway.store.schema import logs as rows

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
FIRST, SECOND, THIRD = 100 * HOUR, 101 * HOUR, 102 * HOUR


def charge(at: int, *, user: int = 1, token: int = 1, model: str = "m") -> ChargeRecord:
    tokens = {"input_tokens": 3, "output_tokens": 2, "cached_tokens": 1}
    return ChargeRecord(at, user, 10, token_id=token, channel_id=1, model=model, **tokens)


class Writer:
    """A process that writes charges."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.written = 0

    async def write(self, records: Sequence[ChargeRecord]) -> None:
        upto = self.written + len(records)
        assert await charges.flush(self.store, Batch(self.name, self.written, upto, tuple(records)), THIRD)
        self.written = upto


async def writer(store: Store, name: str) -> Writer:
    await leases.join(store, name, host="", now_ms=0)
    return Writer(store, name)


@pytest.fixture
async def filled(store: Store) -> Store:
    """Ten charges of 10 in each of three hours, of two users, five tokens and three models."""
    records = [
        charge(hour + i * 60_000, user=i % 2, token=i % 5, model=f"m{i % 3}")
        for hour in (FIRST, SECOND, THIRD)
        for i in range(10)
    ]
    await (await writer(store, "h")).write(records)
    return store


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        pytest.param(HourFilter(), 30, id="everything"),
        pytest.param(HourFilter(user_id=0), 15, id="of a user, also number 0"),
        pytest.param(HourFilter(token_id=3), 6, id="of a token"),
        pytest.param(HourFilter(channel_id=1), 30, id="of a channel"),
        pytest.param(HourFilter(model="m2"), 9, id="of a model"),
        pytest.param(HourFilter(since=SECOND, until=THIRD), 10, id="of an hour, without its end"),
        pytest.param(HourFilter(since=SECOND + 1, until=THIRD + 1), 20, id="hours count as wholes"),
        pytest.param(HourFilter(user_id=1, model="m0", since=THIRD), 2, id="of everything named"),
        pytest.param(HourFilter(user_id=77), 0, id="of nothing"),
    ],
)
async def test_totals(filled: Store, wanted: HourFilter, requests: int) -> None:
    expected = Totals(requests, 10 * requests, 3 * requests, 2 * requests, requests)
    assert await hourly.totals(filled, wanted) == expected


FAR = 2**53 + 1
DAMAGES = {
    "a sum that is wrong": update(table).where(table.c.hour == SECOND, table.c.token_id == 1).values(quota=FAR),
    "tokens that are wrong": update(table).where(table.c.hour == SECOND).values(cached_tokens=0),
    "sums that are gone": delete(table).where(table.c.hour == SECOND, table.c.user_id == 1),
    "an hour that is gone": delete(table).where(table.c.hour == SECOND),
    "a sum of no row": insert(table).values(hour=SECOND, user_id=9, token_id=9, channel_id=9, model="x", requests=1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
async def test_an_hour_is_made_again_from_its_rows(filled: Store, damage: Insert | Update | Delete) -> None:
    before = await filled.all(select(table).order_by(*table.primary_key))
    await filled.change(damage)
    assert await hourly.rebuild(filled, THIRD) == 0
    assert await hourly.rebuild(filled, SECOND) > 0
    assert await filled.all(select(table).order_by(*table.primary_key)) == before
    assert await hourly.rebuild(filled, SECOND) == 0
    assert await audits.aggregates(filled) == []


async def test_more_sums_than_one_statement_takes(store: Store) -> None:
    await (await writer(store, "h")).write([charge(FIRST), *(charge(SECOND, token=i) for i in range(250))])
    await store.change(delete(table))
    assert await hourly.rebuild(store, SECOND) == 250
    assert await hourly.totals(store, HourFilter(since=SECOND)) == Totals(250, 2500, 750, 500, 250)


async def test_an_hour_whose_rows_may_have_gone_stays_as_it_is(filled: Store) -> None:
    await filled.change(delete(rows).where(rows.c.created_at < FIRST + 5 * 60_000))
    assert await hourly.first_whole_hour(filled) == SECOND
    for hour in (FIRST - HOUR, FIRST):
        assert await hourly.rebuild(filled, hour) == 0
    assert await hourly.totals(filled, HourFilter(until=SECOND)) == Totals(10, 100, 30, 20, 10)


async def test_the_hour_in_which_the_log_begins_is_made_again(filled: Store) -> None:
    await filled.change(update(table).where(table.c.hour == FIRST).values(quota=0))
    assert await hourly.first_whole_hour(filled, FIRST) == FIRST
    assert await audits.aggregates(filled, FIRST + HOUR) == []
    assert len(await audits.aggregates(filled, FIRST)) == await hourly.rebuild(filled, FIRST, FIRST) > 0
    assert await audits.aggregates(filled, FIRST) == []
    assert await hourly.totals(filled, HourFilter(until=SECOND)) == Totals(10, 100, 30, 20, 10)


@pytest.mark.parametrize(
    ("kept_from", "earlier"),
    [
        pytest.param(None, False, id="nobody knows since when rows are kept"),
        pytest.param(SECOND, False, id="rows are kept since later"),
        pytest.param(FIRST, True, id="an hour before it has a sum"),
    ],
)
async def test_an_hour_that_may_have_been_cut_stays_as_it_is(
    kept_from: int | None, earlier: bool, filled: Store
) -> None:
    if earlier:
        await filled.bulk(table, ("hour", *hourly.KEYS, "requests"), [(FIRST - HOUR, 1, 1, 1, "m", 1)])
    await filled.change(delete(rows).where(rows.c.created_at < FIRST + 5 * 60_000))
    assert await hourly.first_whole_hour(filled, kept_from) == SECOND
    assert await audits.aggregates(filled, kept_from) == []
    for hour in (FIRST - HOUR, FIRST):
        assert await hourly.rebuild(filled, hour, kept_from) == 0
    assert await hourly.totals(filled, HourFilter(since=FIRST, until=SECOND)) == Totals(10, 100, 30, 20, 10)


@pytest.mark.parametrize(
    ("days", "kept_from"),
    [
        pytest.param(0, 0, id="for ever"),
        pytest.param(1, 30 * HOUR - 24 * HOUR + 2 * HOUR, id="a day, and an hour for whoever removes them meanwhile"),
    ],
)
def test_since_when_rows_are_kept(days: int, kept_from: int) -> None:
    assert hourly.kept_from(days, 30 * HOUR + 7) == kept_from


async def test_hours_are_found_one_after_the_other(filled: Store) -> None:
    await filled.bulk(table, ("hour", *hourly.KEYS), [(THIRD + 5 * HOUR, 1, 1, 1, "m")])
    found: list[int | None] = [0]
    while found[-1] is not None:
        found.append(await hourly.next_hour(filled, found[-1] + HOUR))
    assert found == [0, FIRST, SECOND, THIRD, THIRD + 5 * HOUR, None]


async def test_nothing_to_make(store: Store) -> None:
    assert await hourly.first_whole_hour(store) is None
    assert await hourly.next_hour(store, 0) is None
    assert await hourly.rebuild(store, SECOND) == 0
    assert await hourly.totals(store, HourFilter()) == Totals()


async def test_beside_processes_that_write_and_others_that_do_the_same_nothing_is_lost_or_counted_twice(
    filled: Store,
) -> None:
    writers = [await writer(filled, f"w{number}") for number in range(3)]
    await filled.change(update(table).where(table.c.hour == SECOND).values(quota=table.c.quota + 5))
    await filled.change(delete(table).where(table.c.hour == SECOND, table.c.token_id == 1))

    async def write(each: Writer) -> None:
        for number in range(20):
            # Old keys and new ones, some of them those of the others.
            await each.write([charge(SECOND + 1, token=token) for token in (1, number % 7, 1000 + number)])

    async def make() -> None:
        for _ in range(6):
            await hourly.rebuild(filled, SECOND)

    await asyncio.gather(*map(write, writers), make(), make())
    assert await audits.aggregates(filled) == []
    assert (await hourly.totals(filled, HourFilter(since=SECOND, until=THIRD))).requests == 10 + 3 * 20 * 3
