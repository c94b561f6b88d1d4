"""The log in partitions, as deploy/README.md shows it: Tollway goes on writing, finding and forgetting rows."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from tollway.gateway.store import Store, charges, leases, logs
from tollway.gateway.store.charges import Batch
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.records import ChargeRecord

from tests.servers import SERVERS

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", SERVERS, indirect=True)]

README = Path(__file__).resolve().parents[3] / "deploy" / "README.md"
FEBRUARY, MARCH = 1801440000000, 1803859200000


def statements(dialect: str) -> list[str]:
    """Those that the document shows for this engine."""
    section = README.read_text(encoding="utf-8").partition("\n## The log\n")[2].partition("\n## ")[0]
    mysql, postgresql = re.findall(r"```sql\n(.+?)```", section, re.DOTALL)
    shown = (mysql if dialect == "mysql" else postgresql).split(";")
    return [each.strip() for each in shown if each.strip() not in {"", "BEGIN", "COMMIT"}]


@pytest.fixture
async def partitioned(store: Store) -> Store:
    await leases.join(store, "h", host="", now_ms=0)
    await write(store, 0, FEBRUARY - 2, FEBRUARY - 1)
    for statement in statements(store.address.dialect)[:-1]:
        await store.change(text(statement))
    await write(store, 2, FEBRUARY - 3, FEBRUARY, MARCH)
    return store


async def write(store: Store, after: int, *times: int) -> None:
    records = tuple(ChargeRecord(time, 1, 5, token_id=2, model="m") for time in times)
    assert await charges.flush(store, Batch("h", after, after + len(times), records), 0)


async def times(store: Store, wanted: LogFilter) -> list[int]:
    """Of all pages, two rows each."""
    found: list[int] = []
    last: int | None = None
    while page := await logs.find(store, wanted, limit=2, before=last):
        last = page[-1].id
        found += [row.created_at for row in page]
    return found


async def test_rows_are_written_and_found(partitioned: Store) -> None:
    everything = [MARCH, FEBRUARY, FEBRUARY - 1, FEBRUARY - 2, FEBRUARY - 3]
    assert await times(partitioned, LogFilter()) == everything
    assert await times(partitioned, LogFilter(user_id=1)) == everything


async def test_retention_forgets_rows(partitioned: Store) -> None:
    assert await logs.trim(partitioned, before_ms=FEBRUARY - 1) == 2
    assert await times(partitioned, LogFilter()) == [MARCH, FEBRUARY, FEBRUARY - 1]


async def test_a_month_is_forgotten_at_once(partitioned: Store) -> None:
    await partitioned.change(text(statements(partitioned.address.dialect)[-1]))
    assert await times(partitioned, LogFilter(model="m")) == [MARCH, FEBRUARY]
