"""
The table `options`: what was set in the console, as text. `config` knows names, types and defaults.

Beside them, under names that are no option's, stands what an installation must remember of itself.
"""

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from . import changes
from .errors import Conflict
from .schema import options
from .store import Session, Store, Transaction


async def list_all(session: Session) -> dict[str, str]:
    """Every option that was set."""
    return {row["key"]: row["value"] for row in await session.all(select(options))}


async def set_many(session: Session, values: Mapping[str, str], *, now_ms: int) -> None:
    """Set these options, all or none."""

    async def work(transaction: Transaction) -> None:
        for key, value in values.items():
            await transaction.upsert(options, {"key": key, "value": value})
        await changes.note(transaction, "option", 0, now_ms=now_ms)

    await session.run(work)


async def set_first(store: Store, key: str, value: str) -> str:
    """Set it where it is not set yet, and return what it is: of several who try at once, the first one's."""
    try:
        await store.insert(insert(options).values(key=key, value=value))
    except Conflict:
        return (await list_all(store))[key]
    return value


async def unset(session: Session, key: str, *, now_ms: int) -> bool:
    """Back to the default. False if it was not set."""

    async def work(transaction: Transaction) -> bool:
        if not await transaction.change(delete(options).where(options.c.key == key)):
            return False
        await changes.note(transaction, "option", 0, now_ms=now_ms)
        return True

    return await session.run(work)
