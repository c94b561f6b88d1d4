"""
Settled requests into the database: log rows, counters, hourly sums and leases, in one transaction.

A batch is a run of one holder's charges, by their numbers. `holders.flushed` moves from the number before it to its
last one in the same transaction, so a batch is charged once, however often it is given, and no unique index has to be
asked for each row. Where logs have a database of their own, its `log_cursors` do the same there.
"""

from sqlalchemy import delete, select

from . import charges_server, charges_sqlite
from .batch import Batch
from .errors import StoreError
from .schema import log_cursors
from .store import Store


class Misplaced(StoreError):
    """The database does not stand where the batch begins, but at `flushed`; at None where it knows no such holder."""

    def __init__(self, holder: str, flushed: int | None) -> None:
        super().__init__(f"the charges of {holder} are written up to {flushed}")
        self.flushed = flushed


async def flush(store: Store, batch: Batch, now_ms: int | None, *, with_logs: bool = True) -> bool:
    """
    Write a batch: all or nothing. False when the database has it already, from an attempt whose outcome was not heard.

    `now_ms`: when the tokens were used last; None leaves it as it is. `with_logs` is False where `flush_logs` writes
    them elsewhere. Raises `Unavailable`, `Misplaced`.
    """
    engine = charges_sqlite if store.address.dialect == "sqlite" else charges_server
    return _judge(batch, await engine.flush(store, batch, now_ms, with_logs=with_logs))


async def flush_logs(store: Store, batch: Batch) -> bool:
    """The log rows and hourly sums of a batch into a database of their own; as `flush` otherwise."""
    engine = charges_sqlite if store.address.dialect == "sqlite" else charges_server
    return _judge(batch, await engine.flush_logs(store, batch))


async def logged(store: Store, holder: str) -> int | None:
    """The number of a holder's last charge that a log database has; None where it has none."""
    row = await store.one(select(log_cursors.c.flushed).where(log_cursors.c.holder == holder))
    return None if row is None else row["flushed"]


async def forget_logged(store: Store, holder: str) -> None:
    """The holder is no more: its cursor in a log database goes."""
    await store.change(delete(log_cursors).where(log_cursors.c.holder == holder))


def _judge(batch: Batch, flushed: int | None) -> bool:
    """`flushed`: where the database stood before; it has been moved only from the batch's own beginning."""
    if flushed == batch.after:
        return True
    if flushed == batch.upto:
        return False
    raise Misplaced(batch.holder, flushed)
