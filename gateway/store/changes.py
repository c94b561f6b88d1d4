"""
The change list: a row for every write, in the same transaction, so that other processes can poll for what to reload.

It says that something changed, not what: a reader loads the row again. Two changes of one row may show as two
entries and one state.
"""

from typing import Literal

from sqlalchemy import delete, func, insert, select

from .records import Change
from .schema import changes
from .store import Session, Transaction

Kind = Literal["user", "token", "channel", "option", "group", "price"]

KEPT_MS = 24 * 60 * 60 * 1000


async def note(transaction: Transaction, kind: Kind, ref: int, *, now_ms: int) -> None:
    """Record a write in its own transaction. `ref`: the id of the row, 0 for tables whose key is a name."""
    await transaction.insert(insert(changes).values(kind=kind, ref=ref, created_at=now_ms))


async def latest(session: Session) -> int:
    """The number of the last change, 0 when there is none. Ask before loading everything, then follow `since`."""
    row = await session.one(select(func.max(changes.c.id).label("id")))
    return (row["id"] or 0) if row else 0


async def since(session: Session, last: int, *, limit: int = 1000) -> tuple[Change, ...]:
    """The changes after number `last`, oldest first."""
    rows = await session.all(select(changes).where(changes.c.id > last).order_by(changes.c.id).limit(limit))
    return tuple(Change(**row) for row in rows)


async def trim(session: Session, *, now_ms: int) -> int:
    """Forget changes older than a day; the number forgotten. Whoever slept longer loads everything again."""

    async def work(transaction: Transaction) -> int:
        return await transaction.change(delete(changes).where(changes.c.created_at < now_ms - KEPT_MS))

    return await session.run(work)
