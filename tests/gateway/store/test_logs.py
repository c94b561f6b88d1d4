from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tollway.gateway.store import Store, logs
from tollway.gateway.store.hourly import KEYS
from tollway.gateway.store.logs import MOST_PLACES, LogFilter
from tollway.gateway.store.schema import hourly
from tollway.gateway.store.schema import logs as table
from tollway.gateway.store.sums import HOUR_MS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(store: Store) -> Store:
    """Ten rows, r0 to r9, of two users, three models and five tokens and channels, one a second."""
    rows = [
        {
            "charge_id": f"r{i}",
            "request_id": f"q{i}",
            "created_at": i * 1000,
            "user_id": i % 2,
            "token_id": i % 5,
            "channel_id": i % 5 + 10,
            "model": f"m{i % 3}",
            "outcome": "failed" if i in (4, 6, 7) else "completed",
        }
        for i in range(10)
    ]
    await write(store, rows)
    return store


async def write(store: Store, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows and their hourly sums."""
    hours = Counter((row["created_at"] // HOUR_MS * HOUR_MS, *(row[name] for name in KEYS)) for row in rows)
    await store.bulk(table, tuple(rows[0]), [tuple(row.values()) for row in rows])
    await store.bulk(hourly, ("hour", *KEYS, "requests"), [(*key, count) for key, count in hours.items()])


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        pytest.param(LogFilter(), "9876543210", id="all, newest first"),
        pytest.param(LogFilter(user_id=0), "86420", id="of a user, also number 0"),
        pytest.param(LogFilter(token_id=3), "83", id="of a token"),
        pytest.param(LogFilter(channel_id=13), "83", id="of a channel"),
        pytest.param(LogFilter(model="m2"), "852", id="of a model"),
        pytest.param(LogFilter(outcome="failed"), "764", id="of an outcome"),
        pytest.param(LogFilter(outcome="failed", user_id=0), "64", id="of an outcome, of a user"),
        pytest.param(LogFilter(request_id="q7"), "7", id="of a request"),
        pytest.param(LogFilter(since=3000, until=6000), "543", id="of a time, without its end"),
        pytest.param(LogFilter(user_id=1, model="m0", since=4000), "9", id="of everything named"),
        pytest.param(LogFilter(user_id=0, model="m1"), "4", id="of a user and a model"),
        pytest.param(LogFilter(token_id=4, model="m0", channel_id=14), "9", id="of a token, a model and a channel"),
        pytest.param(LogFilter(user_id=1, request_id="q4"), "", id="of a request that is another's"),
        pytest.param(LogFilter(model="' OR 1=1 --%"), "", id="a name is a value, never SQL"),
    ],
)
async def test_rows_are_found(filled: Store, wanted: LogFilter, numbers: str) -> None:
    found = await logs.find(filled, wanted)
    assert "".join((row.charge_id or "")[1:] for row in found) == numbers
    assert await logs.count(filled, wanted) == len(numbers)


async def test_rows_come_in_pages(filled: Store) -> None:
    pages: list[list[str | None]] = []
    last: int | None = None
    while page := await logs.find(filled, LogFilter(), limit=4, before=last):
        last = page[-1].id
        pages.append([row.charge_id for row in page])
    assert pages == [["r9", "r8", "r7", "r6"], ["r5", "r4", "r3", "r2"], ["r1", "r0"]]


SPREADS = {
    "all in one hour": (lambda i: i % 5, 1),
    "of more tokens in an hour than one statement names": (lambda i: i % (MOST_PLACES + 9), 1),
    "over more hours than one statement names": (lambda i: 1, MOST_PLACES + 9),
    "unevenly": (lambda i: i % 50 if i > 300 else 1, 7),
}


@pytest.mark.parametrize("many", [logs.MANY_ROWS, 20])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(
    "wanted", [LogFilter(user_id=1), LogFilter(user_id=1, outcome="failed")], ids=["all", "failed"]
)
async def test_pages_of_a_user_are_whole_however_his_rows_are_spread(
    store: Store, spread: str, wanted: LogFilter, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MANY_ROWS", many)
    token_of, hours = SPREADS[spread]
    rows = [
        {
            "charge_id": str(i),
            "created_at": i * hours * HOUR_MS // 600,
            "user_id": int(i % 3 > 0),
            "token_id": token_of(i),
            "channel_id": 1,
            "model": f"m{i % 2}",
            "outcome": "completed" if i % 7 else "failed",
        }
        for i in range(600)
    ]
    await write(store, rows)
    found: list[str | None] = []
    last: int | None = None
    while page := await logs.find(store, wanted, limit=90, before=last):
        last = page[-1].id
        found += [row.charge_id for row in page]
    of_user = [row for row in reversed(rows) if row["user_id"] == 1]
    assert found == [row["charge_id"] for row in of_user if wanted.outcome in (None, row["outcome"])]


async def test_sums_whose_rows_are_gone_are_passed_over(filled: Store) -> None:
    await logs.trim(filled, before_ms=5000)
    assert [row.charge_id for row in await logs.find(filled, LogFilter(user_id=0))] == ["r8", "r6"]
    await logs.trim(filled, before_ms=100_000)
    assert await logs.find(filled, LogFilter(user_id=0)) == ()


async def test_pages_of_rows_of_one_moment_miss_none_and_repeat_none(store: Store) -> None:
    await store.bulk(table, ("created_at", "charge_id"), [(7, f"r{i}") for i in range(5)])
    page = await logs.find(store, LogFilter(), limit=2)
    rest = await logs.find(store, LogFilter(), before=page[-1].id)
    assert [row.charge_id for row in (*page, *rest)] == ["r4", "r3", "r2", "r1", "r0"]


async def test_behind_a_row_that_is_gone_is_nothing(filled: Store) -> None:
    assert await logs.find(filled, LogFilter(), before=10**9) == ()


async def test_old_rows_are_removed_some_at_a_time(filled: Store) -> None:
    assert await logs.trim(filled, before_ms=5000, limit=3) == 3
    assert await logs.trim(filled, before_ms=5000, limit=3) == 2
    assert await logs.trim(filled, before_ms=5000, limit=3) == 0
    assert await logs.count(filled, LogFilter()) == 5
