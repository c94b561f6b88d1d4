"""
`charges.flush` on SQLite: a plain function in the driver's thread, in few statements.

Each statement hands Python's lock over a few times, and a busy event loop gives it back late. Inserting row by row
(`executemany`) costs a little less CPU and, beside a busy loop, takes five times as long.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from .batch import COLUMNS, Batch, row_of
from .leases import BalanceKind
from .store import Store
from .sums import Sums

STATEMENT_ROWS = (128, 16, 1)  # each a statement that stays prepared; SQLite takes 32,766 values in one


def _insert(rows: int) -> str:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    marks = "(" + ", ".join("?" * len(COLUMNS)) + ")"
    return f"INSERT INTO logs ({names}) VALUES {', '.join([marks] * rows)}"  # noqa: S608


INSERTS = {rows: _insert(rows) for rows in STATEMENT_ROWS}

CURSOR = "SELECT flushed FROM holders WHERE id = ?"
MOVE_CURSOR = "UPDATE holders SET flushed = ? WHERE id = ?"
LOG_CURSOR = "SELECT flushed FROM log_cursors WHERE holder = ?"
MOVE_LOG_CURSOR = """
INSERT INTO log_cursors (holder, flushed) VALUES (?2, ?1) ON CONFLICT (holder) DO UPDATE SET flushed = excluded.flushed
"""
USERS = "UPDATE users SET used_quota = used_quota + ?, request_count = request_count + ? WHERE id = ?"
TOKENS = """
UPDATE tokens SET used_quota = used_quota + ?, free_quota = free_quota + ?, accessed_at = coalesce(?, accessed_at)
WHERE id = ?
"""
CHANNELS = "UPDATE channels SET used_quota = used_quota + ? WHERE id = ?"
BUDGETS = "UPDATE budget_periods SET used_quota = used_quota + ? WHERE id = ?"
LEASES = """
INSERT INTO leases (holder, kind, subject, amount) VALUES (?, ?, ?, ?)
ON CONFLICT (holder, kind, subject) DO UPDATE SET amount = amount + excluded.amount
"""
HOURS = """
INSERT INTO usage_hourly
    (hour, user_id, token_id, channel_id, model, requests, quota, input_tokens, output_tokens, cached_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hour, user_id, token_id, channel_id, model) DO UPDATE SET
    requests = requests + excluded.requests,
    quota = quota + excluded.quota,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens
"""


async def flush(store: Store, batch: Batch, now_ms: int | None, *, with_logs: bool) -> int | None:
    """Where the holder stood before; the batch was written if that is where it begins."""
    rows = _rows(batch) if with_logs else []
    return await store.run_plain(
        partial(_flush, batch=batch, rows=rows, sums=batch.sums, now_ms=now_ms, with_logs=with_logs)
    )


async def flush_logs(store: Store, batch: Batch) -> int | None:
    """As `flush`. A holder that this database does not know stands where the batch begins."""
    return await store.run_plain(partial(_flush_logs, batch=batch, rows=_rows(batch), sums=batch.sums))


def _flush(
    connection: sqlite3.Connection,
    *,
    batch: Batch,
    rows: Sequence[tuple[Any, ...]],
    sums: Sums,
    now_ms: int | None,
    with_logs: bool,
) -> int | None:
    found = connection.execute(CURSOR, (batch.holder,)).fetchone()
    flushed = None if found is None else found[0]
    if flushed != batch.after:
        return flushed
    holder = batch.holder
    connection.execute(MOVE_CURSOR, (batch.upto, holder))
    _many(connection, USERS, ((quota, count, id) for id, (quota, count) in sums.users.items()))
    _many(connection, TOKENS, ((quota, free, now_ms, id) for id, (quota, free) in sums.tokens.items()))
    _many(connection, CHANNELS, ((quota, id) for id, quota in sums.channels.items()))
    _many(connection, BUDGETS, ((quota, id) for id, quota in sums.budgets.items()))
    _many(connection, LEASES, ((holder, int(BalanceKind.USER), id, -quota) for id, quota in sums.user_leases.items()))
    _many(connection, LEASES, ((holder, int(BalanceKind.TOKEN), id, -quota) for id, quota in sums.token_leases.items()))
    _many(connection, LEASES, ((holder, int(BalanceKind.BUDGET), id, -quota) for id, quota in sums.budgets.items()))
    if with_logs:
        _write_logs(connection, rows, sums)
    return flushed


def _flush_logs(
    connection: sqlite3.Connection, *, batch: Batch, rows: Sequence[tuple[Any, ...]], sums: Sums
) -> int | None:
    found = connection.execute(LOG_CURSOR, (batch.holder,)).fetchone()
    flushed = batch.after if found is None else found[0]
    if flushed != batch.after:
        return flushed
    connection.execute(MOVE_LOG_CURSOR, (batch.upto, batch.holder))
    _write_logs(connection, rows, sums)
    return flushed


def _write_logs(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], sums: Sums) -> None:
    for statement, values in _statements(rows):
        connection.execute(statement, values)
    _many(connection, HOURS, ((*key, *totals) for key, totals in sums.hours.items()))


def _many(connection: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    connection.executemany(statement, rows)


def _rows(batch: Batch) -> list[tuple[Any, ...]]:
    return [row_of(batch, index) for index in range(len(batch.records))]


def _statements(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    start = 0
    for size, statement in INSERTS.items():
        while start + size <= len(rows):
            yield statement, [value for row in rows[start : start + size] for value in row]
            start += size
