"""The table `groups`: user groups and their price ratios."""

from decimal import Decimal

from sqlalchemy import delete as delete_from
from sqlalchemy import select

from . import changes
from .records import GroupRow
from .schema import groups
from .store import Session, Transaction


async def list_all(session: Session) -> tuple[GroupRow, ...]:
    """Every group, by name."""
    rows = await session.all(select(groups))
    found = (GroupRow(row["name"], Decimal(row["ratio"]), row["description"]) for row in rows)
    # Not by the database, whose order of texts may be that of a language.
    return tuple(sorted(found, key=lambda group: group.name))


async def put(session: Session, group: GroupRow, *, now_ms: int) -> None:
    """Create the group or replace the one of its name. The ratio is stored as decimal text, exactly."""

    async def work(transaction: Transaction) -> None:
        row = {"name": group.name, "ratio": str(group.ratio), "description": group.description}
        await transaction.upsert(groups, row)
        await changes.note(transaction, "group", 0, now_ms=now_ms)

    await session.run(work)


async def delete(session: Session, name: str, *, now_ms: int) -> bool:
    """False if there is no such group. Users and channels that name it are left as they are."""

    async def work(transaction: Transaction) -> bool:
        if not await transaction.change(delete_from(groups).where(groups.c.name == name)):
            return False
        await changes.note(transaction, "group", 0, now_ms=now_ms)
        return True

    return await session.run(work)
