"""`charges.flush` on PostgreSQL and MySQL: few statements, each for many rows, locking in the order of their keys."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Table, insert, text

from .batch import COLUMNS, Batch, row_of
from .leases import BalanceKind
from .schema import budget_periods, channels, hourly, leases, log_cursors, logs, tokens, users
from .store import Store, Transaction
from .sums import Sums

MOST_ROWS = 250
"""Subjects of one statement."""
HOURLY = tuple(column.name for column in hourly.columns)

# As plain text: to compile what SQLAlchemy builds would take longer than to run it.
CURSOR = text("SELECT flushed FROM holders WHERE id = :holder FOR UPDATE")
MOVE_CURSOR = text("UPDATE holders SET flushed = :upto WHERE id = :holder")
LOG_CURSOR = text("SELECT flushed FROM log_cursors WHERE holder = :holder FOR UPDATE")
MOVE_LOG_CURSOR = text("UPDATE log_cursors SET flushed = :upto WHERE holder = :holder")


async def flush(store: Store, batch: Batch, now_ms: int | None, *, with_logs: bool) -> int | None:
    """Where the holder stood before; the batch was written if that is where it begins."""
    sums = batch.sums

    async def work(transaction: Transaction) -> int | None:
        row = await transaction.one(CURSOR.bindparams(holder=batch.holder))
        flushed = None if row is None else row["flushed"]
        if flushed != batch.after:
            return flushed
        await transaction.change(MOVE_CURSOR.bindparams(holder=batch.holder, upto=batch.upto))
        await _count(transaction, batch.holder, sums, now_ms)
        if with_logs:
            await _write_logs(transaction, batch, sums)
        return flushed

    return await store.run(work)


async def flush_logs(store: Store, batch: Batch) -> int | None:
    """As `flush`. A holder that this database does not know stands where the batch begins."""
    sums = batch.sums

    async def work(transaction: Transaction) -> int | None:
        row = await transaction.one(LOG_CURSOR.bindparams(holder=batch.holder))
        flushed = batch.after if row is None else row["flushed"]
        if flushed != batch.after:
            return flushed
        if row is None:
            await transaction.insert(insert(log_cursors).values(holder=batch.holder, flushed=batch.upto))
        else:
            await transaction.change(MOVE_LOG_CURSOR.bindparams(holder=batch.holder, upto=batch.upto))
        await _write_logs(transaction, batch, sums)
        return flushed

    return await store.run(work)


async def _count(transaction: Transaction, holder: str, sums: Sums, now_ms: int | None) -> None:
    used = {id: quota for id, (quota, _) in sums.users.items()}
    requests = {id: count for id, (_, count) in sums.users.items()}
    await _add(transaction, users, {"used_quota": used, "request_count": requests})
    spent = {id: quota for id, (quota, _) in sums.tokens.items()}
    free = {id: quota for id, (_, quota) in sums.tokens.items()}
    accessed = {} if now_ms is None else {"accessed_at": now_ms}
    await _add(transaction, tokens, {"used_quota": spent, "free_quota": free}, **accessed)
    await _add(transaction, channels, {"used_quota": sums.channels})
    await _add(transaction, budget_periods, {"used_quota": sums.budgets})
    taken = [(BalanceKind.USER, *each) for each in sorted(sums.user_leases.items())]
    taken += [(BalanceKind.TOKEN, *each) for each in sorted(sums.token_leases.items())]
    taken += [(BalanceKind.BUDGET, *each) for each in sorted(sums.budgets.items())]
    await transaction.add_up(
        leases, ("holder", "kind", "subject", "amount"), [(holder, int(kind), id, -quota) for kind, id, quota in taken]
    )


async def _write_logs(transaction: Transaction, batch: Batch, sums: Sums) -> None:
    await transaction.bulk(logs, COLUMNS, [row_of(batch, index) for index in range(len(batch.records))])
    await transaction.add_up(hourly, HOURLY, [(*key, *totals) for key, totals in sorted(sums.hours.items())])


async def _add(transaction: Transaction, table: Table, amounts: Mapping[str, Mapping[int, int]], **values: int) -> None:
    """Add to columns of many rows: {column: {id: amount}}. All columns have the same ids."""
    ids = sorted(next(iter(amounts.values())))
    for start in range(0, len(ids), MOST_ROWS):
        part = ids[start : start + MOST_ROWS]
        changes = [f"{name} = {name} + {_by_id(part, by_id)}" for name, by_id in amounts.items()]
        changes += [f"{name} = {value:d}" for name, value in values.items()]
        # Whole numbers in plain text: to compile such a statement would take longer than all else that a batch needs.
        which = ", ".join(map(str, part))
        await transaction.change(text(f"UPDATE {table.name} SET {', '.join(changes)} WHERE id IN ({which})"))  # noqa: S608


def _by_id(ids: Iterable[int], amounts: Mapping[int, int]) -> str:
    return f"CASE id {' '.join(f'WHEN {id:d} THEN {amounts[id]:d}' for id in ids)} END"
