"""
The tables `budgets` and `budget_periods`.

Each period of a budget is a row of its own with a balance that processes lease from, as they do from users and tokens.
Whoever first needs a period makes its row; nothing is ever reset, so a clock that is wrong or set back finds the row
that is there. A budget counts from the moment on at which it is first set.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, insert, or_, select, update

from ...config.budget import (
    DAY_MS,
    Budget,
    BudgetKind,
    Period,
    UnknownPeriod,
    period_of,
    soft_limit,
    span_of,
)
from . import changes, notices
from .errors import BadValue, Conflict
from .leases import BalanceKind, Subject, recall, with_leases
from .schema import budget_periods, budgets, groups, leases, tokens, users
from .store import Row, Session, Store, Transaction
from .sums import HOUR_MS

MOST_IDS = 1_000
KEPT_MS = 400 * DAY_MS
"""Periods that ended before are forgotten when the next one begins."""
LATE_MS = HOUR_MS
"""For so long after its end a period is looked at: for charges of its last moments, and of answers that outlive it."""

_whole = with_leases(BalanceKind.BUDGET)
_set = select(budgets).where(budgets.c.deleted_at.is_(None))
_in_force = _set.where(budgets.c.kind.in_(list(BudgetKind)))
"""Of a kind that a newer version has written nobody here knows whose spending counts: such a budget limits nobody."""


@dataclass(frozen=True, slots=True)
class BudgetPeriod:
    """A budget in one of its periods. `remain_quota` is what nobody has leased, unless a function says otherwise."""

    id: int
    budget_id: int
    starts_at: int
    ends_at: int
    amount: int
    soft_limit: int | None
    remain_quota: int
    used_quota: int


async def put(
    session: Session,
    kind: BudgetKind,
    subject: str,
    period: Period,
    *,
    amount: int,
    soft_percent: int,
    now_ms: int,
) -> int:
    """
    Make the budget, or change the one of this subject and period; its id.

    What was spent in the current period stays spent: only the difference of the amounts is given, or taken.
    """

    async def work(transaction: Transaction) -> int:
        same = _same(kind, subject, period)
        row = await transaction.one(select(budgets.c.id).where(same).with_for_update())
        values = {"amount": amount, "soft_percent": soft_percent}
        if row is None:
            key = {"kind": kind, "subject": subject, "period": period, "created_at": now_ms}
            budget_id = await transaction.insert(insert(budgets).values(**key, **values))
        else:
            budget_id = row["id"]
            await transaction.change(update(budgets).where(same).values(**values, deleted_at=None))
            await _change_periods(transaction, budget_id, amount, soft_limit(amount, soft_percent), now_ms)
        await _note(transaction, kind, subject, now_ms)
        return budget_id

    try:
        return await session.run(work)
    except Conflict:  # somebody else has made it at the same moment: now it can be changed
        return await session.run(work)


async def remove(
    session: Session, kind: BudgetKind, subject: str, period: Period | UnknownPeriod, *, now_ms: int
) -> bool:
    """Mark as deleted: it limits nobody any more. False if there is no such budget."""

    async def work(transaction: Transaction) -> bool:
        found = _same(kind, subject, period), budgets.c.deleted_at.is_(None)
        if not await transaction.change(update(budgets).where(*found).values(deleted_at=now_ms)):
            return False
        await _note(transaction, kind, subject, now_ms)
        return True

    return await session.run(work)


async def list_all(session: Session) -> tuple[Budget, ...]:
    """Every budget that is in force, oldest first."""
    return tuple(map(_budget, await session.all(_in_force.order_by(budgets.c.id))))


async def of_unknown_kinds(session: Session) -> dict[int, str]:
    """By id, the kinds of budgets that a newer version has set, and of which this one knows nothing."""
    rows = await session.all(_set.where(budgets.c.kind.not_in(list(BudgetKind))))
    return {row["id"]: row["kind"] for row in rows}


async def of_subjects(session: Session, user_ids: Collection[int], token_ids: Collection[int]) -> tuple[Budget, ...]:
    """The budgets in force of these users and tokens, and of all groups."""
    wanted = or_(
        budgets.c.kind == BudgetKind.GROUP,
        *_of(BudgetKind.USER, user_ids),
        *_of(BudgetKind.TOKEN, token_ids),
    )
    return tuple(map(_budget, await session.all(_in_force.where(wanted).order_by(budgets.c.id))))


async def begin(store: Store, budget_id: int, now_ms: int) -> BudgetPeriod | None:
    """
    The period that a moment lies in, made by whoever comes first; None for a budget that is not in force.

    Raises `BadValue` for one whose period this version does not know.
    """

    async def work(transaction: Transaction) -> BudgetPeriod | None:
        # Held until the end: two who come first take turns, and so does who changes the amount.
        row = await transaction.one(_in_force.where(budgets.c.id == budget_id).with_for_update())
        if row is None:
            return None
        budget = _budget(row)
        if isinstance(budget.period, UnknownPeriod):
            raise BadValue(f"the period {budget.period!r} of a budget is not known")
        span = span_of(budget.period, now_ms)
        mine = budget_periods.c.budget_id == budget_id
        # A locking read: on MySQL a plain one would not see the period that somebody has just made.
        found = select(budget_periods).where(mine, budget_periods.c.starts_at == span.starts_at).with_for_update()
        row = await transaction.one(found)
        if row is None:
            await _forget(transaction, budget_id, now_ms)
            values = {"budget_id": budget_id, "starts_at": span.starts_at, "ends_at": span.ends_at}
            values |= {"amount": budget.amount, "remain_quota": budget.amount}
            limit = soft_limit(budget.amount, budget.soft_percent)
            await transaction.insert(insert(budget_periods).values(**values, soft_limit=limit))
            row = await transaction.one(found)
        return None if row is None else BudgetPeriod(**row)

    return await store.run(work)


async def current(session: Session, now_ms: int) -> dict[int, BudgetPeriod]:
    """By budget, the period that a moment lies in, if it has begun; what is leased is counted as remaining."""
    spans = budget_periods.c.starts_at <= now_ms, budget_periods.c.ends_at > now_ms
    rows = await session.all(_whole.where(*spans))
    return {row["budget_id"]: BudgetPeriod(**{**row, "remain_quota": int(row["remain_quota"])}) for row in rows}


async def crossed(session: Session, now_ms: int) -> list[tuple[Budget, BudgetPeriod]]:
    """The budgets in force of which a period has used its soft limit, now or at its end, and nobody was told yet."""
    told = exists().where(
        notices.about(notices.NoticeKind.BUDGET, budgets.c.id),
        notices.occasion(budget_periods.c.id, budget_periods.c.soft_limit),
    )
    query = (
        select(budget_periods)
        .join(budgets, budgets.c.id == budget_periods.c.budget_id)
        .where(
            budget_periods.c.ends_at > now_ms - LATE_MS,
            budget_periods.c.starts_at <= now_ms,
            budget_periods.c.used_quota >= budget_periods.c.soft_limit,
            budgets.c.deleted_at.is_(None),
            ~told,
        )
    )
    periods = [BudgetPeriod(**row) for row in await session.all(query)]
    if not periods:
        return []
    wanted = budgets.c.id.in_([period.budget_id for period in periods])
    by_id = {budget.id: budget for budget in map(_budget, await session.all(_in_force.where(wanted)))}
    return [(by_id[period.budget_id], period) for period in periods if period.budget_id in by_id]


async def knows_group(session: Session, name: str) -> bool:
    """Whether a user, a key or a ratio is of this group."""
    for column in (users.c.group, tokens.c.group, groups.c.name):
        if await session.one(select(column).where(column == name).limit(1)) is not None:
            return True
    return False


async def subjects_of(session: Session, found: Sequence[Budget]) -> dict[int, str]:
    """By budget, its subject as people call it: "user ada", "token 7 (laptop)", "group vip"."""
    named: dict[int, str] = {}
    for start in range(0, len(found), MOST_IDS):
        part = found[start : start + MOST_IDS]
        of_users, of_tokens = _ids(part, BudgetKind.USER), _ids(part, BudgetKind.TOKEN)
        usernames = await session.all(select(users.c.id, users.c.username).where(users.c.id.in_(of_users)))
        names = await session.all(select(tokens.c.id, tokens.c.name).where(tokens.c.id.in_(of_tokens)))
        shown = {f"user {row['id']}": f"user {row['username']}" for row in usernames}
        shown |= {f"token {row['id']}": f"token {row['id']} ({row['name']})" for row in names}
        for budget in part:
            subject = f"{budget.kind} {budget.subject}"
            named[budget.id] = shown.get(subject, subject)
    return named


async def _change_periods(
    transaction: Transaction, budget_id: int, amount: int, limit: int | None, now_ms: int
) -> None:
    """Give or take the difference in the current period, and in one that a clock ahead of this one has begun."""
    open_ones = budget_periods.c.budget_id == budget_id, budget_periods.c.ends_at > now_ms
    for row in await transaction.all(select(budget_periods).where(*open_ones).with_for_update()):
        more = amount - row["amount"]
        values = {"amount": amount, "soft_limit": limit, "remain_quota": budget_periods.c.remain_quota + more}
        await transaction.change(update(budget_periods).where(budget_periods.c.id == row["id"]).values(**values))
        if more < 0:
            await recall(transaction, Subject(BalanceKind.BUDGET, row["id"]))


async def _forget(transaction: Transaction, budget_id: int, now_ms: int) -> None:
    held = exists().where(leases.c.kind == int(BalanceKind.BUDGET), leases.c.subject == budget_periods.c.id)
    old = budget_periods.c.budget_id == budget_id, budget_periods.c.ends_at < now_ms - KEPT_MS
    await transaction.change(delete(budget_periods).where(*old, ~held))


async def _note(transaction: Transaction, kind: BudgetKind, subject: str, now_ms: int) -> None:
    """Serving processes are told as of any change of the subject: they then look for its budgets too."""
    match kind:
        case BudgetKind.USER:
            await changes.note(transaction, "user", int(subject), now_ms=now_ms)
        case BudgetKind.TOKEN:
            await changes.note(transaction, "token", int(subject), now_ms=now_ms)
        case BudgetKind.GROUP:
            await changes.note(transaction, "group", 0, now_ms=now_ms)


def _of(kind: BudgetKind, ids: Collection[int]) -> Sequence[ColumnElement[bool]]:
    return [(budgets.c.kind == kind) & budgets.c.subject.in_(list(map(str, ids)))] if ids else []


def _ids(found: Iterable[Budget], kind: BudgetKind) -> list[int]:
    return [int(budget.subject) for budget in found if budget.kind is kind]


def _same(kind: BudgetKind, subject: str, period: Period | UnknownPeriod) -> ColumnElement[bool]:
    return (budgets.c.kind == kind) & (budgets.c.subject == subject) & (budgets.c.period == period)


def _budget(row: Row) -> Budget:
    return Budget(
        row["id"],
        BudgetKind(row["kind"]),
        row["subject"],
        period_of(row["period"]),
        row["amount"],
        row["soft_percent"],
    )
