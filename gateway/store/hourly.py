"""
The table `usage_hourly`: what was used in each hour, by user, token, channel and model.

It is written in the same transaction as the log rows that it sums up (`charges.flush`), and kept when they go.
"""

from dataclasses import dataclass, fields

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    case,
    delete,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from ...config.budget import DAY_MS
from . import jobs
from .records import CHARGING, LogType
from .schema import hourly, logs
from .schema import jobs as jobs_table
from .store import Session, Store, Transaction
from .sums import HOUR_MS

KEYS = ("user_id", "token_id", "channel_id", "model")
COUNTS = ("requests", "quota", "input_tokens", "output_tokens", "cached_tokens")
REBUILD = "rebuild-hours"
ROW_REQUESTS = case(
    (logs.c.type == int(LogType.CONSUME), literal_column("1", BigInteger)), else_=literal_column("0", BigInteger)
)
"""The requests that a log row stands for: a correction is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HourFilter:
    """
    Which hours: those that agree with every field that is not None.

    Times in milliseconds: every hour that has a part in `since` <= time < `until` counts as a whole.
    """

    user_id: int | None = None
    token_id: int | None = None
    channel_id: int | None = None
    model: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What was used. `requests`: log rows of requests, charged or not; corrections are in the quota alone."""

    requests: int = 0
    quota: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


async def totals(session: Session, wanted: HourFilter) -> Totals:
    """Sums over hours: what counting log rows would say of whole hours, also where the rows are gone already."""
    values = {item.name: getattr(wanted, item.name) for item in fields(wanted)}
    since, until = values.pop("since"), values.pop("until")
    conditions = [hourly.c[name] == value for name, value in values.items() if value is not None]
    if since is not None:
        conditions.append(hourly.c.hour >= hour_of(since))
    if until is not None:
        conditions.append(hourly.c.hour < until)
    sums = (func.coalesce(func.sum(hourly.c[name]), 0).label(name) for name in COUNTS)
    row = await session.one(select(*sums).where(*conditions))
    return Totals() if row is None else Totals(**{name: int(row[name]) for name in COUNTS})


def hour_of(time_ms: int) -> int:
    """The first millisecond of the hour."""
    return time_ms - time_ms % HOUR_MS


GOING_MS = 2 * HOUR_MS
"""Rows of so long behind the border of retention may be going: those of its hour, and of the one that follows."""


def kept_from(retention_days: int, now_ms: int) -> int:
    """From which hour on no log row has gone, nor goes in the next hour, where they are kept so long; 0: for ever."""
    return hour_of(now_ms - retention_days * DAY_MS) + GOING_MS if retention_days else 0


def oldest_row(kept_from: int | None) -> ColumnElement[int]:
    """
    The time of the oldest log row: those behind it are all there, for rows go in the order of their time.

    One from before the time of retention tells nothing where there are younger ones. It may have come since the others
    of its time went: from a node that was away for so long, or whose clock was wrong.
    """
    every, kept = logs.alias("every"), logs.alias("kept")
    oldest = select(func.min(every.c.created_at)).scalar_subquery()
    if not kept_from:
        return oldest
    since = select(func.min(kept.c.created_at)).where(kept.c.created_at >= kept_from - GOING_MS).scalar_subquery()
    return func.coalesce(since, oldest)


async def first_whole_hour(session: Session, kept_from: int | None = None) -> int | None:
    """
    The first hour that is known to have all of its log rows; None where there are no rows.

    The hour of the oldest may have lost some (see `oldest_row`). It has not where rows are kept since `kept_from`, and
    no hour before it has a sum: then the log begins in it.
    """
    row = await session.one(select(oldest_row(kept_from).label("at")))
    if row is None or row["at"] is None:
        return None
    oldest = hour_of(row["at"])
    if kept_from is None or oldest < kept_from:
        return oldest + HOUR_MS
    summed = await session.one(select(hourly.c.hour).where(hourly.c.hour < oldest).limit(1))
    return oldest if summed is None else oldest + HOUR_MS


async def next_hour(session: Session, since: int) -> int | None:
    """The first hour from `since` on that has a log row or a sum; None where there is none."""
    row = await session.one(select(func.min(logs.c.created_at).label("at")).where(logs.c.created_at >= since))
    summed = await session.one(select(func.min(hourly.c.hour).label("at")).where(hourly.c.hour >= since))
    found = [each["at"] for each in (row, summed) if each is not None and each["at"] is not None]
    return hour_of(min(found)) if found else None


async def rebuild(store: Store, hour: int, kept_from: int | None = None) -> int:
    """
    Make an hour's sums those of its log rows, in one transaction; how many sums were wrong.

    An hour whose rows may have gone stays as it is: see `first_whole_hour`. Safe beside processes that serve: what is
    added is the difference between rows and sums at one moment, and whoever writes both in one transaction does not
    change that difference.
    """
    await jobs.add(store, REBUILD)

    async def work(transaction: Transaction) -> int:
        # Two at once would both add the difference.
        await transaction.one(select(jobs_table.c.term).where(jobs_table.c.name == REBUILD).with_for_update())
        wrong = await transaction.all(_differences(hour, kept_from))
        rows = [(hour, *(int(row[name]) for name in COUNTS), *(row[name] for name in KEYS)) for row in wrong]
        await transaction.add_up(hourly, ("hour", *COUNTS, *KEYS), rows)
        if rows:
            # Corrections may add up to nothing, and their rows are found by their sum.
            in_hour = logs.c.created_at >= hour, logs.c.created_at < hour + HOUR_MS
            has_rows = exists().where(*(logs.c[name] == hourly.c[name] for name in KEYS), *in_hour)
            nothing = (hourly.c[name] == 0 for name in COUNTS)
            await transaction.change(delete(hourly).where(hourly.c.hour == hour, *nothing, not_(has_rows)))
        return len(rows)

    return await store.run(work)


def _differences(hour: int, kept_from: int | None) -> Select[*tuple[object, ...]]:
    """For each key whose sums are not those of its rows: how much is missing from them."""
    # One statement, which sees one moment.
    parts = _rows_and_sums(hour, kept_from)
    sums = [func.sum(parts.c[name]).label(name) for name in COUNTS]
    keys = [parts.c[name] for name in KEYS]
    return select(*keys, *sums).group_by(*keys).having(or_(*(sum_ != 0 for sum_ in sums))).order_by(*keys)


def _rows_and_sums(hour: int, kept_from: int | None) -> Subquery:
    earlier = hourly.alias("earlier")
    is_whole: ColumnElement[bool] = oldest_row(kept_from) < hour
    if kept_from is not None and hour >= kept_from:
        is_whole = or_(is_whole, not_(exists().where(earlier.c.hour < hour)))
    rows = select(
        *(logs.c[name] for name in KEYS), ROW_REQUESTS.label("requests"), *(logs.c[name] for name in COUNTS[1:])
    ).where(logs.c.type.in_(CHARGING), logs.c.created_at >= hour, logs.c.created_at < hour + HOUR_MS, is_whole)
    sums = select(*(hourly.c[name] for name in KEYS), *((-hourly.c[name]).label(name) for name in COUNTS))
    return union_all(rows, sums.where(hourly.c.hour == hour, is_whole)).subquery()
