"""The table `notices`: what operators were told, each occasion once, whichever process sees it first."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, select

from ...config.budget import DAY_MS
from .errors import Conflict
from .leases import BalanceKind, leased
from .schema import grants, notices, users
from .store import Session, Store, Transaction

KEPT_MS = 400 * DAY_MS


class NoticeKind(StrEnum):
    """
    `BUDGET`: of a budget (`about`), a period (`occasion`) has used its soft limit (`level`). `BALANCE`: the balance of
    a user (`about`) has fallen below the threshold, since the last grant (`occasion`).
    """

    BUDGET = "budget"
    BALANCE = "balance"


@dataclass(frozen=True, slots=True)
class LowBalance:
    """A user with less than the threshold. `quota` counts what is leased; `grant_id`: the last grant, 0 for none."""

    user_id: int
    username: str
    quota: int
    grant_id: int


async def claim(
    store: Store,
    kind: NoticeKind,
    about_id: int,
    occasion_id: int,
    level: int,
    *,
    most: int,
    since_ms: int,
    now_ms: int,
) -> bool:
    """
    Whether the caller is the one to tell of this.

    False where somebody has it already, and where `most` notices of this kind about the same were sent after
    `since_ms`: then nobody tells of it at all.
    """

    async def work(transaction: Transaction) -> bool:
        mine = about(kind, about_id)
        await transaction.change(delete(notices).where(mine, notices.c.created_at < now_ms - KEPT_MS))
        recent = and_(mine, notices.c.sent.is_(True), notices.c.created_at > since_ms)
        row = await transaction.one(select(func.count().label("sent")).select_from(notices).where(recent))
        sent = row is None or row["sent"] < most
        values = {"kind": kind, "about": about_id, "occasion": occasion_id, "level": level}
        await transaction.insert(insert(notices).values(**values, sent=sent, created_at=now_ms))
        return sent

    try:
        return await store.run(work)
    except Conflict:
        return False


async def low_balances(session: Session, user_ids: Collection[int], threshold: int) -> tuple[LowBalance, ...]:
    """
    Those of some users who have spent something and have less than the threshold, and of whom nobody was told since
    their last grant.
    """
    grant = (
        select(func.coalesce(func.max(grants.c.id), 0))
        .where(grants.c.user_id == users.c.id, grants.c.amount > 0)
        .correlate(users)  # of the query around all, not of the one below that it stands in
        .scalar_subquery()
    )
    told = exists().where(about(NoticeKind.BALANCE, users.c.id), occasion(grant, 0))
    quota = users.c.quota + leased(BalanceKind.USER)
    query = select(users.c.id, users.c.username, quota.label("quota"), grant.label("grant_id")).where(
        users.c.id.in_(list(user_ids)),
        users.c.deleted_at.is_(None),
        users.c.request_count > 0,
        quota < threshold,
        ~told,
    )
    rows = await session.all(query)
    return tuple(LowBalance(row["id"], row["username"], int(row["quota"]), row["grant_id"]) for row in rows)


def about(kind: NoticeKind, id: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Notices of a kind about a budget or user."""
    return and_(notices.c.kind == kind, notices.c.about == id)


def occasion(id: int | ColumnElement[int], level: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Notices of one occasion."""
    return and_(notices.c.occasion == id, notices.c.level == level)
