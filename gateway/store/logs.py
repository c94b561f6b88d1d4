"""
The table `logs`: what happened, newest first. Rows of requests are written by `charges.flush`.

A page of a user's, a token's, a channel's or a model's rows is found through the hourly sums, which are written with
the rows: they say in which hours which token used which model, and one index on the rows is enough. An index for each
question would cost every request a write, and one for each pair of them is too many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter

from sqlalchemy import ColumnElement, and_, delete, func, literal_column, or_, select

from . import json_text
from .hourly import KEYS
from .records import LogRow
from .schema import hourly, logs
from .store import Row, Session, Transaction
from .sums import HOUR_MS

NEWEST_FIRST = logs.c.created_at.desc(), logs.c.id.desc()
MOST_PLACES = 128
"""Sums that one statement looks behind."""
MANY_ROWS = 10_000
"""Rows of an hour that match, beyond which whoever goes back through all of it soon has a page together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """
    Which rows: those that agree with every field that is not None. Times: `since` <= created_at < `until`. `outcome`:
    any but "completed", which most are. `channel_name`: as the channel was called then, which no index knows.
    """

    type: int | None = None
    user_id: int | None = None
    token_id: int | None = None
    channel_id: int | None = None
    channel_name: str | None = None
    model: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        wanted = {item.name: getattr(self, item.name) for item in fields(self)}
        since, until = wanted.pop("since"), wanted.pop("until")
        found = [logs.c[name] == value for name, value in wanted.items() if value is not None]
        if self.outcome is not None:
            # In the words of the index, which holds these rows alone.
            found.append(logs.c.outcome != literal_column("'completed'"))
        if since is not None:
            found.append(logs.c.created_at >= since)
        if until is not None:
            found.append(logs.c.created_at < until)
        return found

    @property
    def keys(self) -> dict[str, int | str]:
        """What the hourly sums can be asked for."""
        return {name: value for name in KEYS if (value := getattr(self, name)) is not None}


async def find(
    session: Session, wanted: LogFilter, *, limit: int = 100, before: int | None = None
) -> tuple[LogRow, ...]:
    """
    Matching rows, newest first. `before`: the id of a page's last row, behind which the next page begins.

    A page costs the same wherever it lies. Behind a row that is gone nothing is left: older ones go first.
    """
    conditions, until = wanted.conditions(), wanted.until
    if before is not None:
        last = await session.one(select(logs.c.created_at).where(logs.c.id == before))
        if last is None:
            return ()
        # The first half is what an index can find.
        at = last["created_at"]
        conditions += [logs.c.created_at <= at, or_(logs.c.created_at < at, logs.c.id < before)]
        until = at + 1 if until is None else min(until, at + 1)
    if wanted.request_id is None and wanted.outcome is not None:
        rows = await _page_of_outcome(session, conditions, limit)
    elif wanted.request_id is None and wanted.keys:
        rows = await _page_by_hours(session, wanted, conditions, limit, until)
    else:
        rows = await _page(session, conditions, limit)
    return tuple(map(_log, rows))


async def _page_by_hours(
    session: Session, wanted: LogFilter, conditions: Sequence[ColumnElement[bool]], limit: int, until: int | None
) -> list[Row]:
    oldest = await session.one(select(func.min(logs.c.created_at).label("at")))
    if oldest is None or oldest["at"] is None:
        return []
    sums = [hourly.c[name] == value for name, value in wanted.keys.items()]
    # Sums are kept when their rows go.
    sums.append(hourly.c.hour > max(oldest["at"], wanted.since or 0) - HOUR_MS)
    rows: list[Row] = []
    while len(rows) < limit:
        older = [] if until is None else [hourly.c.hour < until]
        place = await _newest_place(session, [*sums, *older], limit - len(rows))
        if place is None:
            break
        until, condition = place
        rows += await _page(session, [*conditions, condition], limit - len(rows))
    return rows


async def _newest_place(
    session: Session, sums: Sequence[ColumnElement[bool]], wanted: int
) -> tuple[int, ColumnElement[bool]] | None:
    """
    The newest hours whose sums match, enough of them for `wanted` rows or as many as one statement bears: the first
    of these hours, and what their rows have in common. None where there are none.
    """
    columns = (hourly.c.hour, hourly.c.token_id, hourly.c.model, hourly.c.requests)
    found = await session.all(select(*columns).where(*sums).order_by(hourly.c.hour.desc()).limit(MOST_PLACES))
    hours = [(hour, list(rows)) for hour, rows in groupby(found, key=itemgetter("hour"))]
    if len(found) == MOST_PLACES and len(hours) > 1:
        del hours[-1]  # of which there may be more
    first, requests, places = 0, 0, list[ColumnElement[bool]]()
    for hour, rows in hours:
        count = sum(row["requests"] for row in rows)
        if len(rows) == MOST_PLACES or count > MANY_ROWS:
            if places:
                break
            return hour, _in_hour(hour)
        first, requests = hour, requests + count
        named = sorted({(row["token_id"], row["model"]) for row in rows})
        places += [
            and_(logs.c.token_id == token_id, logs.c.model == model, _in_hour(hour)) for token_id, model in named
        ]
        if requests >= wanted:
            break
    return (first, or_(*places)) if places else None


def _in_hour(hour: int) -> ColumnElement[bool]:
    return and_(logs.c.created_at >= hour, logs.c.created_at < hour + HOUR_MS)


async def _page_of_outcome(session: Session, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[Row]:
    # The ids come out of the index, which has whatever is asked for; to look at each row would take long.
    ids = select(logs.c.id).where(*conditions).order_by(*NEWEST_FIRST).limit(limit).subquery()
    return await session.all(select(logs).join(ids, ids.c.id == logs.c.id).order_by(*NEWEST_FIRST))


async def _page(session: Session, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[Row]:
    return await session.all(select(logs).where(*conditions).order_by(*NEWEST_FIRST).limit(limit))


async def names_channel(session: Session, name: str) -> bool:
    """Whether a row is of a channel that was called so; looks at each of them."""
    return await session.one(select(logs.c.id).where(logs.c.channel_name == name).limit(1)) is not None


async def count(session: Session, wanted: LogFilter) -> int:
    """How many rows match, by looking at each of them; see `hourly.totals` for many."""
    row = await session.one(select(func.count().label("n")).select_from(logs).where(*wanted.conditions()))
    return 0 if row is None else row["n"]


async def trim(session: Session, *, before_ms: int, limit: int = 5000) -> int:
    """Remove rows created before `before_ms`, at most `limit` of them so that no writer waits long; how many it was."""

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
