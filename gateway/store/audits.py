"""
Where the database does not add up. Each question is one statement, which sees one moment: they may be asked while
processes serve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, exists, func, not_, or_, select

from ...config.budget import DAY_MS
from .hourly import ROW_REQUESTS
from .leases import Kind
from .records import CHARGING
from .schema import budget_periods, grants, hourly, leases, logs, tokens, users
from .store import Session
from .sums import HOUR_MS

MOST_IDS = 500


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
        Imbalance(f"{kind} {row['id']}", "charged = sum of its hours", int(row["used"]), int(row["hours"]))
        for kind, table, column in (("user", users, hourly.c.user_id), ("token", tokens, hourly.c.token_id))
        for row in await session.all(_counted(table, column))
    ]


async def aggregates(session: Session, kept_from: int | None = None) -> list[Imbalance]:
    """Hours that are not the sum of their log rows, as far back as rows are kept: see `hourly.first_whole_hour`."""
    first = _first_whole_hour(kept_from)
    rows = await session.all(_hours_unlike_rows(first)) + await session.all(_hours_without_rows(first))
    return [
        Imbalance(
            f"hour {row['hour']}, user {row['user_id']}, token {row['token_id']}, channel {row['channel_id']}, "
            f"model {row['model']}",
            "hour = sum of its log rows",
            int(row["rows_quota"]),
            int(row["quota"] or 0),
        )
        for row in rows
    ]


async def logged(session: Session, charge_ids: Sequence[str], since_ms: int) -> dict[str, int]:
    """What the log rows say that these charges cost, of those that there are. `since_ms`: none was made before."""
    found: dict[str, int] = {}
    for start in range(0, len(charge_ids), MOST_IDS):
        wanted = logs.c.charge_id.in_(charge_ids[start : start + MOST_IDS]), logs.c.created_at >= since_ms
        for row in await session.all(select(logs).where(*wanted)):
            found[row["charge_id"]] = row["quota"]
    return found


async def kept_since(session: Session, now_ms: int) -> int:
    """The moment after which every charge still has its log row: rows go oldest first, and after a day at the least."""
    row = await session.one(select(func.min(logs.c.created_at).label("at")))
    oldest = None if row is None else row["at"]
    return min(now_ms - DAY_MS, now_ms if oldest is None else oldest)


def _users() -> Select[*tuple[Any, ...]]:
    given = _given(grants.c.user_id)
    leased = _leased(Kind.USER)
    return _unequal(
        users, given, leased, users.c.quota + _or_zero(leased.c.amount) + users.c.used_quota, _or_zero(given.c.amount)
    )


def _tokens() -> Select[*tuple[Any, ...]]:
    given = _given(grants.c.token_id)
    leased = _leased(Kind.TOKEN)
    there = tokens.c.remain_quota + _or_zero(leased.c.amount) + tokens.c.used_quota - tokens.c.free_quota
    return _unequal(tokens, given, leased, there, _or_zero(given.c.amount))


def _budget_periods() -> Select[*tuple[Any, ...]]:
    leased = _leased(Kind.BUDGET)
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


def _leased(kind: Kind) -> Subquery:
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


def _first_whole_hour(kept_from: int | None) -> ColumnElement[int]:
    """Asked in the same statement: rows may be going. The oldest hour may have lost some of them already."""
    charging, earlier = logs.alias("charging"), hourly.alias("earlier")
    oldest = select(func.min(charging.c.created_at).label("at")).where(charging.c.type.in_(CHARGING)).subquery()
    hour = oldest.c["at"] // HOUR_MS * HOUR_MS
    if kept_from is None:
        return select(hour + HOUR_MS).scalar_subquery()
    has_all = and_(hour >= kept_from, not_(exists().where(earlier.c.hour < hour)))
    return select(case((has_all, hour), else_=hour + HOUR_MS)).scalar_subquery()


def _rows(first: ColumnElement[int]) -> Subquery:
    hour = (logs.c.created_at // HOUR_MS * HOUR_MS).label("hour")
    keys = (logs.c.user_id, logs.c.token_id, logs.c.channel_id, logs.c.model)
    requests = func.sum(ROW_REQUESTS).label("requests")
    return (
        select(hour, *keys, requests, func.sum(logs.c.quota).label("quota"))
        .where(logs.c.type.in_(CHARGING), logs.c.created_at >= first)
        .group_by(hour, *keys)
        .subquery()
    )


def _same(rows: Subquery) -> ColumnElement[bool]:
    return and_(*(hourly.c[name] == rows.c[name] for name in ("hour", "user_id", "token_id", "channel_id", "model")))


def _hours_unlike_rows(first: ColumnElement[int]) -> Select[*tuple[Any, ...]]:
    rows = _rows(first)
    query: Select[*tuple[Any, ...]] = select(
        rows.c.hour,
        rows.c.user_id,
        rows.c.token_id,
        rows.c.channel_id,
        rows.c.model,
        hourly.c.quota,
        rows.c.quota.label("rows_quota"),
    )
    return query.select_from(rows.outerjoin(hourly, _same(rows))).where(
        or_(hourly.c.hour.is_(None), hourly.c.quota != rows.c.quota, hourly.c.requests != rows.c.requests)
    )


def _hours_without_rows(first: ColumnElement[int]) -> Select[*tuple[Any, ...]]:
    rows = _rows(first)
    query: Select[*tuple[Any, ...]] = select(hourly, _or_zero(rows.c.quota).label("rows_quota"))
    return query.select_from(hourly.outerjoin(rows, _same(rows))).where(
        hourly.c.hour >= first, rows.c.hour.is_(None), or_(hourly.c.requests != 0, hourly.c.quota != 0)
    )


def _or_zero(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, 0)
