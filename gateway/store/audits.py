"""
Where the database does not add up. Each question is one statement, which sees one moment: they may be asked while
processes serve. (Of the log, one statement for some hours.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from ...config.budget import DAY_MS
from .hourly import KEYS, ROW_REQUESTS, oldest_row
from .leases import BalanceKind
from .records import CHARGING
from .schema import budget_periods, grants, holders, hourly, leases, log_cursors, logs, tokens, users
from .store import Session
from .sums import HOUR_MS

MOST_IDS = 500
ROWS_AT_ONCE = 100_000
END_OF_TIME = 2**63 - 1
COUNTED = "charged = sum of its hours"
OWNERS = (("user", users, hourly.c.user_id), ("token", tokens, hourly.c.token_id))


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Two figures that should be the same. `subject`: "user 3", "token 7", an hour and a model..."""

    subject: str
    promise: str
    expected: int
    found: int


async def balances(session: Session) -> list[Imbalance]:
    """Users, tokens and periods of budgets whose grants are not their balance, their leases and their charges."""
    return [
        Imbalance(f"{subject} {row['id']}", "granted = left + leased + charged", int(row["given"]), int(row["there"]))
        for subject, query in (("user", _users()), ("token", _tokens()), ("budget period", _budget_periods()))
        for row in await session.all(query)
    ]


async def counters(session: Session) -> list[Imbalance]:
    """Users and tokens whose counter is not the sum of their hours. For logs that live in this database."""
    return [
        Imbalance(f"{kind} {row['id']}", COUNTED, int(row["used"]), int(row["hours"]))
        for kind, table, column in OWNERS
        for row in await session.all(_counted(table, column))
    ]


async def counters_apart(session: Session, log_session: Session) -> list[Imbalance] | None:
    """
    The same where logs have a database of their own. Hours of before they had are still in this one.

    None while one of the two has charges that the other has not: what differs then says nothing. Whoever writes moves
    a number in both, so the same numbers before and after are a moment in which nobody did.
    """
    before = await _standing(session, log_session)
    found: list[Imbalance] = []
    for kind, table, column in OWNERS:
        used = {row["id"]: int(row["used"]) for row in await session.all(_used(table))}
        hours = dict.fromkeys(used, 0)
        for each in (session, log_session):
            for row in await each.all(_summed(column)):
                hours[row["id"]] = hours.get(row["id"], 0) + int(row["quota"])
        found += [
            Imbalance(f"{kind} {id}", COUNTED, quota, hours[id]) for id, quota in used.items() if quota != hours[id]
        ]
    return found if before is not None and before == await _standing(session, log_session) else None


async def aggregates(session: Session, kept_from: int | None = None) -> list[Imbalance]:
    """
    Hours that are not the sum of their log rows, as far back as rows are kept: see `hourly.first_whole_hour`. And
    charges that were written down twice, which add up as well; whoever writes one again does so with the same time.

    Some hours after the others: all rows at once are more than a server joins or sorts within reason.
    """
    first, found = _first_whole_hour(kept_from), list[Imbalance]()
    for since, until in await _ranges(session):
        found += [
            Imbalance(
                f"hour {row['hour']}, user {row['user_id']}, token {row['token_id']}, channel {row['channel_id']}, "
                f"model {row['model']}",
                "hour = sum of its log rows",
                int(row["rows_quota"]),
                int(row["hour_quota"]),
            )
            for row in await session.all(_hours_unlike_rows(first, since, until))
        ]
        found += [
            Imbalance(f"charge {row['charge_id']}", "charged once", 1, int(row["times"]))
            for row in await session.all(_charged_again(since, until))
        ]
    return found


async def logged(session: Session, charge_ids: Sequence[str], since_ms: int) -> dict[str, int]:
    """What the log rows say that these charges cost, of those that there are. `since_ms`: none was made before."""
    found: dict[str, int] = {}
    for start in range(0, len(charge_ids), MOST_IDS):
        wanted = logs.c.charge_id.in_(charge_ids[start : start + MOST_IDS]), logs.c.created_at >= since_ms
        for row in await session.all(select(logs).where(*wanted)):
            found[row["charge_id"]] = row["quota"]
    return found


async def kept_since(session: Session, now_ms: int, kept_from: int) -> int:
    """The moment after which every charge still has its log row: rows go oldest first, and after a day at the least."""
    row = await session.one(select(oldest_row(kept_from).label("at")))
    oldest = None if row is None else row["at"]
    return min(now_ms - DAY_MS, now_ms if oldest is None else oldest)


async def _standing(session: Session, log_session: Session) -> dict[str, int] | None:
    """The number of each holder's last charge, by holder; None where the two databases have other ones."""
    logged = {row["holder"]: row["flushed"] for row in await log_session.all(select(log_cursors))}
    charged = {row["id"]: row["flushed"] for row in await session.all(select(holders.c.id, holders.c.flushed))}
    return charged if all(logged.get(holder, 0) == number for holder, number in charged.items()) else None


def _used(table: FromClause) -> Select[*tuple[Any, ...]]:
    query: Select[*tuple[Any, ...]] = select(table.c.id, table.c.used_quota.label("used"))
    return query.order_by(table.c.id)


def _summed(column: ColumnElement[int]) -> Select[*tuple[Any, ...]]:
    query: Select[*tuple[Any, ...]] = select(column.label("id"), func.sum(hourly.c.quota).label("quota"))
    return query.group_by(column)


def _users() -> Select[*tuple[Any, ...]]:
    given = _given(grants.c.user_id)
    leased = _leased(BalanceKind.USER)
    return _unequal(
        users, given, leased, users.c.quota + _or_zero(leased.c.amount) + users.c.used_quota, _or_zero(given.c.amount)
    )


def _tokens() -> Select[*tuple[Any, ...]]:
    given = _given(grants.c.token_id)
    leased = _leased(BalanceKind.TOKEN)
    there = tokens.c.remain_quota + _or_zero(leased.c.amount) + tokens.c.used_quota - tokens.c.free_quota
    return _unequal(tokens, given, leased, there, _or_zero(given.c.amount))


def _budget_periods() -> Select[*tuple[Any, ...]]:
    leased = _leased(BalanceKind.BUDGET)
    there = budget_periods.c.remain_quota + _or_zero(leased.c.amount) + budget_periods.c.used_quota
    query: Select[*tuple[Any, ...]] = select(
        budget_periods.c.id, budget_periods.c.amount.label("given"), there.label("there")
    )
    joined = budget_periods.outerjoin(leased, leased.c.subject == budget_periods.c.id)
    return query.select_from(joined).where(budget_periods.c.amount != there).order_by(budget_periods.c.id)


def _given(column: ColumnElement[int]) -> Subquery:
    return (
        select(column.label("subject"), func.sum(grants.c.amount).label("amount"))
        .where(column != 0)
        .group_by(column)
        .subquery()
    )


def _leased(kind: BalanceKind) -> Subquery:
    return (
        select(leases.c.subject, func.sum(leases.c.amount).label("amount"))
        .where(leases.c.kind == int(kind))
        .group_by(leases.c.subject)
        .subquery()
    )


def _unequal(
    table: FromClause, given: Subquery, leased: Subquery, there: ColumnElement[Any], expected: ColumnElement[Any]
) -> Select[*tuple[Any, ...]]:
    joined = table.outerjoin(given, given.c.subject == table.c.id).outerjoin(leased, leased.c.subject == table.c.id)
    query: Select[*tuple[Any, ...]] = select(table.c.id, expected.label("given"), there.label("there"))
    return query.select_from(joined).where(expected != there).order_by(table.c.id)


def _counted(table: FromClause, column: ColumnElement[int]) -> Select[*tuple[Any, ...]]:
    sums = select(column.label("subject"), func.sum(hourly.c.quota).label("quota")).group_by(column).subquery()
    counted = _or_zero(sums.c.quota)
    query: Select[*tuple[Any, ...]] = select(table.c.id, table.c.used_quota.label("used"), counted.label("hours"))
    return (
        query.select_from(table.outerjoin(sums, sums.c.subject == table.c.id))
        .where(table.c.used_quota != counted)
        .order_by(table.c.id)
    )


async def _ranges(session: Session) -> list[tuple[int, int]]:
    """All of time in ranges of whole hours, each with some `ROWS_AT_ONCE` log rows, as far as the sums can tell."""
    oldest = select(func.min(logs.c.created_at) - HOUR_MS).scalar_subquery()
    requests = func.sum(hourly.c.requests).label("requests")
    query = select(hourly.c.hour, requests).where(hourly.c.hour > oldest).group_by(hourly.c.hour)
    ranges, since, rows = list[tuple[int, int]](), 0, 0
    for each in await session.all(query.order_by(hourly.c.hour)):
        rows += int(each["requests"])
        if rows >= ROWS_AT_ONCE:
            ranges.append((since, each["hour"] + HOUR_MS))
            since, rows = each["hour"] + HOUR_MS, 0
    return [*ranges, (since, END_OF_TIME)]


def _first_whole_hour(kept_from: int | None) -> ColumnElement[int]:
    """Asked in the same statement: rows may be going. The oldest hour may have lost some of them already."""
    earlier = hourly.alias("earlier")
    oldest = select(oldest_row(kept_from).label("at")).subquery()
    hour = oldest.c["at"] // HOUR_MS * HOUR_MS
    if kept_from is None:
        return select(hour + HOUR_MS).scalar_subquery()
    has_all = and_(hour >= kept_from, not_(exists().where(earlier.c.hour < hour)))
    return select(case((has_all, hour), else_=hour + HOUR_MS)).scalar_subquery()


def _hours_unlike_rows(first: ColumnElement[int], since: int, until: int) -> Select[*tuple[Any, ...]]:
    nothing = literal_column("0", BigInteger)
    hour, row_keys = (logs.c.created_at // HOUR_MS * HOUR_MS).label("hour"), [logs.c[name] for name in KEYS]
    figures = func.sum(ROW_REQUESTS).label("requests"), func.sum(logs.c.quota).label("rows_quota")
    of_rows = (
        select(hour, *row_keys, *figures, nothing.label("hour_quota"), nothing.label("sums"))
        .where(logs.c.type.in_(CHARGING), logs.c.created_at >= first)
        .where(logs.c.created_at >= since, logs.c.created_at < until)
        .group_by(hour, *row_keys)
    )
    of_hours = select(
        hourly.c.hour,
        *(hourly.c[name] for name in KEYS),
        -hourly.c.requests,
        nothing,
        hourly.c.quota,
        literal_column("1", BigInteger),
    ).where(hourly.c.hour >= first, hourly.c.hour >= since, hourly.c.hour < until)
    parts = union_all(of_rows, of_hours).subquery()
    keys = [parts.c[name] for name in ("hour", *KEYS)]
    rows_quota, hour_quota = func.sum(parts.c.rows_quota), func.sum(parts.c.hour_quota)
    query: Select[*tuple[Any, ...]] = select(*keys, rows_quota.label("rows_quota"), hour_quota.label("hour_quota"))
    unlike = or_(func.sum(parts.c.requests) != 0, rows_quota != hour_quota, func.sum(parts.c.sums) == 0)
    return query.group_by(*keys).having(unlike).order_by(*keys)


def _charged_again(since: int, until: int) -> Select[*tuple[Any, ...]]:
    times = func.count().label("times")
    query: Select[*tuple[Any, ...]] = select(logs.c.charge_id, times).where(
        logs.c.created_at >= since, logs.c.created_at < until, logs.c.charge_id.is_not(None)
    )
    return query.group_by(logs.c.charge_id).having(func.count() > 1).order_by(logs.c.charge_id)


def _or_zero(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, 0)
