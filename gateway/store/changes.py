"""
The change list: a row for every write, in the same transaction, so that other processes can poll for what to reload.

It says that something changed, not what: a reader loads the row again. Two changes of one row may show as two
entries and one state.

A reader asks for what came after the last number it saw. That one still stands there, for the newest is never
forgotten: a reader that does not find it has missed something, because it stood still for long, because a clock that is
wrong made others forget too soon, or because an older backup was put back.

So no number may appear after a greater one has. On SQLite writers take turns anyway. A server hands out a number when
a row is written and shows the row when its transaction is committed: there the writers of this list take turns, from
`note` until their transaction ends.
"""

from typing import Literal

from sqlalchemy import String, column, delete, func, insert, select, table, text

from .records import Change
from .schema import changes
from .store import Session, Transaction

ChangeKind = Literal["user", "token", "channel", "option", "group", "price"]

KEPT_MS = 24 * 60 * 60 * 1000

# One row that is always there, and that nothing but an upgrade of the schema writes to. To hold it is to have the turn.
_turn = select(column("version_num", String)).select_from(table("alembic_version")).with_for_update()

# Every process asks this twice a second for as long as it lives: what is built and compiled for it each time counts.
_after = text("SELECT id, kind, ref, created_at FROM changes WHERE id >= :last ORDER BY id LIMIT :most")


class Forgotten(Exception):
    """The change that a reader saw last is not known any more, so others after it may be forgotten, too."""


async def note(transaction: Transaction, kind: ChangeKind, ref: int, *, now_ms: int) -> None:
    """Record a write in its own transaction. `ref`: the id of the row, 0 for tables whose key is a name."""
    if transaction.dialect != "sqlite":
        await transaction.one(_turn)
    await transaction.insert(insert(changes).values(kind=kind, ref=ref, created_at=now_ms))


async def latest(session: Session) -> int:
    """The number of the last change, 0 when there is none. Ask before loading everything, then follow `since`."""
    row = await session.one(select(func.max(changes.c.id).label("id")))
    return (row["id"] or 0) if row else 0


async def since(session: Session, last: int, *, limit: int = 1000) -> tuple[Change, ...]:
    """The changes after number `last`, oldest first; with 0 all there are. Raises `Forgotten`."""
    rows = await session.all(_after.bindparams(last=last, most=limit + 1 if last else limit))
    if last and (not rows or rows[0]["id"] != last):
        raise Forgotten
    return tuple(Change(**row) for row in rows[1 if last else 0 :])


async def trim(session: Session, *, now_ms: int) -> int:
    """Forget changes older than a day, but not the newest; the number forgotten."""

    async def work(transaction: Transaction) -> int:
        old = changes.c.created_at < now_ms - KEPT_MS, changes.c.id < await latest(transaction)
        return await transaction.change(delete(changes).where(*old))

    return await session.run(work)
