import pytest
from tollway.gateway.store import Store, charges, logs
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.records import ChargeRecord, LogType

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(store: Store) -> Store:
    """Ten rows, r0 to r9, of two users, three models and five tokens and channels, one a second."""
    await charges.flush(
        store,
        [
            ChargeRecord(
                charge_id=f"r{i}",
                request_id=f"q{i}",
                created_at=i * 1000,
                user_id=i % 2,
                token_id=i % 5,
                channel_id=i % 5 + 10,
                model=f"m{i % 3}",
                group="vip" if i > 7 else "default",
                type=LogType.ERROR if i == 4 else LogType.CONSUME,
            )
            for i in range(10)
        ],
        1,
    )
    return store


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        pytest.param(LogFilter(), "9876543210", id="all, newest first"),
        pytest.param(LogFilter(user_id=0), "86420", id="of a user, also number 0"),
        pytest.param(LogFilter(token_id=3), "83", id="of a token"),
        pytest.param(LogFilter(channel_id=13), "83", id="of a channel"),
        pytest.param(LogFilter(model="m2"), "852", id="of a model"),
        pytest.param(LogFilter(group="vip"), "98", id="of a group"),
        pytest.param(LogFilter(type=LogType.ERROR), "4", id="of a type"),
        pytest.param(LogFilter(request_id="q7"), "7", id="of a request"),
        pytest.param(LogFilter(since=3000, until=6000), "543", id="of a time, without its end"),
        pytest.param(LogFilter(user_id=1, model="m0", since=4000), "9", id="of everything named"),
        pytest.param(LogFilter(model="' OR 1=1 --%"), "", id="a name is a value, never SQL"),
    ],
)
async def test_rows_are_found(filled: Store, wanted: LogFilter, numbers: str) -> None:
    found = await logs.find(filled, wanted)
    assert "".join((row.charge_id or "")[1:] for row in found) == numbers
    assert await logs.count(filled, wanted) == len(numbers)


async def test_rows_come_in_pages(filled: Store) -> None:
    page = await logs.find(filled, LogFilter(), limit=3, offset=3)
    assert [row.charge_id for row in page] == ["r6", "r5", "r4"]


async def test_old_rows_are_removed_some_at_a_time(filled: Store) -> None:
    assert await logs.trim(filled, before_ms=5000, limit=3) == 3
    assert await logs.trim(filled, before_ms=5000, limit=3) == 2
    assert await logs.trim(filled, before_ms=5000, limit=3) == 0
    assert await logs.count(filled, LogFilter()) == 5
