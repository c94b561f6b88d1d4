"""The table `logs`: what happened, newest first. Rows of requests are written by `charges.flush`."""

from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, delete, func, select

from . import json_text
from .records import LogRow
from .schema import logs
from .store import Row, Session, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which rows: those that agree with every field that is not None. Times: `since` <= created_at < `until`."""

    type: int | None = None
    user_id: int | None = None
    token_id: int | None = None
    channel_id: int | None = None
    model: str | None = None
    group: str | None = None
    request_id: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        wanted = {item.name: getattr(self, item.name) for item in fields(self)}
        since, until = wanted.pop("since"), wanted.pop("until")
        found = [logs.c[name] == value for name, value in wanted.items() if value is not None]
        if since is not None:
            found.append(logs.c.created_at >= since)
        if until is not None:
            found.append(logs.c.created_at < until)
        return found


async def find(session: Session, wanted: LogFilter, *, limit: int = 100, offset: int = 0) -> tuple[LogRow, ...]:
    """Matching rows, newest first."""
    rows = await session.all(
        select(logs)
        .where(*wanted.conditions())
        .order_by(logs.c.created_at.desc(), logs.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return tuple(map(_log, rows))


async def count(session: Session, wanted: LogFilter) -> int:
    """How many rows match."""
    row = await session.one(select(func.count().label("n")).select_from(logs).where(*wanted.conditions()))
    return 0 if row is None else row["n"]


async def trim(session: Session, *, before_ms: int, limit: int = 5000) -> int:
    """
    Remove rows created before `before_ms`, at most `limit` of them so that no writer waits long; the number removed.

    A charge older than that must not be given to `charges.flush` again: its row is what stops a second charge.
    """

    async def work(transaction: Transaction) -> int:
        # Two statements: MySQL knows no LIMIT inside IN.
        oldest = select(logs.c.id).where(logs.c.created_at < before_ms).order_by(logs.c.created_at).limit(limit)
        ids = [row["id"] for row in await transaction.all(oldest)]
        return await transaction.change(delete(logs).where(logs.c.id.in_(ids)))

    return await session.run(work)


def _log(row: Row) -> LogRow:
    values = dict(row)
    values["breakdown"] = json_text.load_object(row["breakdown"])
    values["other"] = json_text.load_object(row["other"])
    return LogRow(**values)
