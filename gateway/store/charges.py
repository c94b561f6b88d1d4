"""
Settled requests into the database: log rows and every balance they touch, in one transaction.

This is the one write that has to be cheap. It runs in the driver's thread in one visit, and in few statements: each
statement hands Python's lock over a few times, and a busy event loop gives it back late. Inserting row by row
(`executemany`) costs a little less CPU and, beside a busy loop, takes five times as long.

Sums are taken by SQL over the rows that were really inserted, so a charge that was there already counts nowhere.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import orjson

from . import json_text
from .records import Balances, ChargeRecord
from .store import Store

COLUMNS = ChargeRecord.__struct_fields__
PLAIN = tuple(name for name in COLUMNS if name not in {"breakdown", "other"})
STATEMENT_ROWS = (128, 16, 1)  # each a statement that stays prepared; SQLite takes 32,766 values in one

_plain_values = attrgetter(*PLAIN)


def _insert(rows: int) -> str:
    names = ", ".join(f'"{name}"' for name in (*PLAIN, "breakdown", "other"))
    marks = "(" + ", ".join("?" * len(COLUMNS)) + ")"
    return f"INSERT INTO logs ({names}) VALUES {', '.join([marks] * rows)} ON CONFLICT (charge_id) DO NOTHING"  # noqa: S608


INSERTS = {rows: _insert(rows) for rows in STATEMENT_ROWS}
LAST = "SELECT coalesce(max(id), 0) FROM logs"
INSERTED = "SELECT count(*) FROM logs NOT INDEXED WHERE id > ?"

# NOT INDEXED: walk the new rows by number, where the planner would rather walk a whole index in the order of GROUP BY.
CHARGE_USERS = """
UPDATE users SET
    quota = users.quota - new.quota,
    used_quota = users.used_quota + new.quota,
    request_count = users.request_count + new.requests
FROM (
    SELECT user_id, sum(quota) AS quota, count(*) AS requests FROM logs NOT INDEXED WHERE id > ? GROUP BY user_id
) AS new
WHERE users.id = new.user_id
"""
CHARGE_TOKENS = """
UPDATE tokens SET
    remain_quota = tokens.remain_quota - CASE WHEN tokens.unlimited THEN 0 ELSE new.quota END,
    used_quota = tokens.used_quota + new.quota,
    accessed_at = ?
FROM (SELECT token_id, sum(quota) AS quota FROM logs NOT INDEXED WHERE id > ? GROUP BY token_id) AS new
WHERE tokens.id = new.token_id
"""
CHARGE_CHANNELS = """
UPDATE channels SET used_quota = channels.used_quota + new.quota
FROM (SELECT channel_id, sum(quota) AS quota FROM logs NOT INDEXED WHERE id > ? GROUP BY channel_id) AS new
WHERE channels.id = new.channel_id
"""
# One row with all of them: every row fetched would hand Python's lock over again.
BALANCES = "SELECT json_group_object(id, quota) FROM users WHERE id IN (SELECT value FROM json_each(?))"
REMAINDERS = "SELECT json_group_object(id, remain_quota) FROM tokens WHERE id IN (SELECT value FROM json_each(?))"


async def flush(store: Store, charges: Sequence[ChargeRecord], now_ms: int) -> Balances:
    """
    Record these charges and take them from users, tokens and channels: all or none.

    A `charge_id` that is already there, or twice in the batch, is charged once; so a batch whose outcome is unknown
    may be given again. Balances may fall below 0: what was served is charged. The answer holds every user and token
    that the batch names and that exists. Raises `Unavailable`.
    """
    rows = [_values(charge) for charge in charges]
    user_ids = orjson.dumps(list({charge.user_id for charge in charges})).decode()
    token_ids = orjson.dumps(list({charge.token_id for charge in charges})).decode()
    return await store.run_plain(partial(_flush, rows=rows, user_ids=user_ids, token_ids=token_ids, now_ms=now_ms))


def _flush(
    connection: sqlite3.Connection, *, rows: list[tuple[Any, ...]], user_ids: str, token_ids: str, now_ms: int
) -> Balances:
    last = _scalar(connection, LAST)
    for statement, values in _statements(rows):
        connection.execute(statement, values)
    connection.execute(CHARGE_USERS, (last,))
    connection.execute(CHARGE_TOKENS, (now_ms, last))
    connection.execute(CHARGE_CHANNELS, (last,))
    return Balances(
        users=_balances(connection, BALANCES, user_ids),
        tokens=_balances(connection, REMAINDERS, token_ids),
        charged=_scalar(connection, INSERTED, last),
    )


def _values(charge: ChargeRecord) -> tuple[Any, ...]:
    breakdown = json_text.dump(charge.breakdown) if charge.breakdown else None
    other = json_text.dump(charge.other) if charge.other else None
    return (*_plain_values(charge), breakdown, other)


def _statements(rows: list[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    start = 0
    for size, statement in INSERTS.items():
        while start + size <= len(rows):
            yield statement, [value for row in rows[start : start + size] for value in row]
            start += size


def _scalar(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    return connection.execute(query, values).fetchone()[0]


def _balances(connection: sqlite3.Connection, query: str, ids: str) -> dict[int, int]:
    (found,) = connection.execute(query, (ids,)).fetchone()
    return {int(key): quota for key, quota in orjson.loads(found).items()}
