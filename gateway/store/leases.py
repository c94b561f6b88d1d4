"""
The tables `holders` and `leases`: quota on its way between a balance and the processes that spend it.

    granted = balance + leases + charged            for every user and every limited token, at every commit

and the same for each period of a budget, which is granted its amount.

Each function is one transaction. Locks are taken in one order, balance before lease, so that no two wait for each
other.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, ScalarSelect, Select, Table, and_, delete, func, insert, or_, select, text, update

from .schema import budget_periods, holders, installation, leases, tokens, users
from .store import Session, Store, Transaction

SHARE = 8
"""A lease beyond what is needed at once takes at most this fraction of what is left: others need some too."""

# Asked four times a second by every process: see `changes`.
_recalled = text("SELECT kind, subject FROM leases WHERE holder = :holder AND recalled AND amount <> 0")


class BalanceKind(IntEnum):
    USER = 1
    TOKEN = 2
    BUDGET = 3


TABLES: dict[BalanceKind, tuple[Table, str]] = {
    BalanceKind.USER: (users, "quota"),
    BalanceKind.TOKEN: (tokens, "remain_quota"),
    BalanceKind.BUDGET: (budget_periods, "remain_quota"),
}
"""Where the balances are."""


class Subject(NamedTuple):
    """Whose balance: a user's, a token's, or that of one period of a budget."""

    kind: BalanceKind
    id: int


@dataclass(frozen=True, slots=True)
class LeaseState:
    """
    After a move: what the holder's lease holds, what is left in the balance, and what others hold of it (at least 0).

    `moved` is what it moved; `exists` is False where there is no such subject.
    """

    leased: int
    left: int
    elsewhere: int
    exists: bool = True
    moved: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, and how far its charges are in the database."""

    id: str
    host: str
    heartbeat: int
    flushed: int
    expired: bool
    started_at: int


def leased(kind: BalanceKind) -> ScalarSelect[Any]:
    """What processes hold of a balance, for queries over the table of such balances."""
    table, _ = TABLES[kind]
    total = select(func.coalesce(func.sum(leases.c.amount), 0))
    return total.where(leases.c.kind == int(kind), leases.c.subject == table.c.id).scalar_subquery()


def with_leases(kind: BalanceKind) -> Select[*tuple[Any, ...]]:
    """Rows of the table of such balances, whole: what processes hold of a balance counts as being in it."""
    table, balance = TABLES[kind]
    rest = (column for column in table.c if column.name != balance)
    return select(*rest, (table.c[balance] + leased(kind)).label(balance))


async def installation_id(session: Session) -> str:
    """Which installation this database is: 32 hex digits, made with the schema."""
    row = await session.one(select(installation.c.id))
    return "" if row is None else row["id"]


async def join(store: Store, holder: str, *, host: str, now_ms: int) -> None:
    """A process begins. Raises `Conflict` when its name is taken."""
    await store.insert(insert(holders).values(id=holder, host=host, started_at=now_ms))


async def rejoin(store: Store, holder: str, *, host: str, flushed: int, now_ms: int) -> None:
    """A process whose row is gone (an older backup was put back) begins again where it stands."""
    await store.insert(insert(holders).values(id=holder, host=host, flushed=flushed, started_at=now_ms))


async def give_back_all(store: Store, holder: str) -> None:
    """Move all leases of a process to their balances."""
    await store.run(lambda transaction: _return_all(transaction, holder))


async def leave(store: Store, holder: str) -> None:
    """A process ends: all its leases go back, and its row goes."""

    async def work(transaction: Transaction) -> None:
        await _return_all(transaction, holder)
        await transaction.change(delete(holders).where(holders.c.id == holder))

    await store.run(work)


async def find(session: Session, holder: str) -> Holder | None:
    row = await session.one(select(holders).where(holders.c.id == holder))
    return None if row is None else Holder(**row)


async def list_all(session: Session) -> tuple[Holder, ...]:
    return tuple(Holder(**row) for row in await session.all(select(holders).order_by(holders.c.started_at)))


async def beat(store: Store, holder: str) -> bool:
    """Tell that the process lives. False when it was taken for dead: its leases are gone, and it starts with none."""

    async def work(transaction: Transaction) -> bool:
        mine = holders.c.id == holder
        step = {"heartbeat": holders.c.heartbeat + 1}
        if await transaction.change(update(holders).where(mine, holders.c.expired.is_(False)).values(**step)):
            return True
        await transaction.change(update(holders).where(mine).values(**step, expired=False))
        return False

    return await store.run(work)


async def suspects(session: Session) -> tuple[Holder, ...]:
    """
    Every process that may have to be taken for dead: it was not yet, or it went on for a moment and has leases again.
    """
    has_leases = select(leases.c.holder).where(leases.c.holder == holders.c.id).exists()
    rows = await session.all(select(holders).where(or_(holders.c.expired.is_(False), has_leases)))
    return tuple(Holder(**row) for row in rows)


async def expire(store: Store, seen: Holder) -> bool:
    """
    Take back the leases of a process whose heartbeat has not moved since `seen`. False when it has.

    Its row stays: it says which of its charges are written, should its journal turn up again.
    """

    async def work(transaction: Transaction) -> bool:
        same = and_(holders.c.id == seen.id, holders.c.heartbeat == seen.heartbeat, holders.c.expired == seen.expired)
        if not await transaction.change(update(holders).where(same).values(expired=True)):
            return False
        await _return_all(transaction, seen.id)
        return True

    return await store.run(work)


async def take(store: Store, holder: str, subject: Subject, *, need: int, extra: int) -> LeaseState:
    """
    Move `need` quota, and of `extra` as much as is decent, from a balance to the holder's lease.

    Where the balance does not have `need`, nothing is moved and other holders are asked to give back what they do not
    use: `elsewhere` says how much they hold.
    """

    async def work(transaction: Transaction) -> LeaseState:
        left = await _balance(transaction, subject)
        if left is None:
            return LeaseState(0, 0, 0, exists=False)
        amount = need + min(extra, (left - need) // SHARE) if left >= need else 0
        if amount > 0:
            await _add_balance(transaction, subject, -amount)
            await _add_lease(transaction, holder, subject, amount)
        elsewhere = await _recall(transaction, holder, subject) if need > left else 0
        left -= amount
        return LeaseState(await _leased(transaction, holder, subject), left, elsewhere, moved=amount)

    return await store.run(work)


async def give_back(store: Store, holder: str, subject: Subject, amount: int) -> LeaseState:
    """
    Move `amount` quota from the holder's lease to the balance; below 0 the balance pays the lease's debt.

    At most what the lease holds: a process that was paused, and taken for dead, does not know yet that it has nothing.

    While the balance lacks something, all who hold any of it are asked again for what they do not use, the caller too:
    what a request holds now may be free a moment later.
    """

    async def work(transaction: Transaction) -> LeaseState:
        left = await _balance(transaction, subject)
        if left is None:
            return LeaseState(0, 0, 0, exists=False)
        leased = await _leased(transaction, holder, subject)
        moved = max(0, min(amount, leased)) if amount > 0 else min(0, max(amount, leased))
        await _add_balance(transaction, subject, moved)
        mine = _lease(holder, subject)
        await transaction.change(update(leases).where(mine).values(amount=leases.c.amount - moved, recalled=False))
        await transaction.change(delete(leases).where(mine, leases.c.amount == 0))
        if left + moved < 0:
            await recall(transaction, subject)
        return LeaseState(leased - moved, left + moved, 0, moved=moved)

    return await store.run(work)


async def recall(transaction: Transaction, subject: Subject) -> None:
    """Ask every holder to give back what it does not use of a balance."""
    held = leases.c.kind == int(subject.kind), leases.c.subject == subject.id
    await transaction.change(update(leases).where(*held).values(recalled=True))


async def recalled(session: Session, holder: str) -> tuple[Subject, ...]:
    """The leases of a holder that somebody else needs."""
    rows = await session.all(_recalled.bindparams(holder=holder))
    return tuple(Subject(BalanceKind(row["kind"]), row["subject"]) for row in rows)


async def amounts(session: Session, holder: str) -> dict[Subject, int]:
    """Every lease of a holder."""
    rows = await session.all(select(leases).where(leases.c.holder == holder))
    return {Subject(BalanceKind(row["kind"]), row["subject"]): row["amount"] for row in rows}


async def _return_all(transaction: Transaction, holder: str) -> None:
    rows = await transaction.all(
        select(leases).where(leases.c.holder == holder).order_by(leases.c.kind, leases.c.subject)
    )
    for row in rows:
        subject = Subject(BalanceKind(row["kind"]), row["subject"])
        # The balance first: whoever flushes or takes locks in this order, and what is read after it cannot change.
        left = await _balance(transaction, subject) or 0
        leased = await _leased(transaction, holder, subject)
        await _add_balance(transaction, subject, leased)
        await transaction.change(delete(leases).where(_lease(holder, subject)))
        if left + leased < 0:  # a debt, for which others may hold what the balance lacks
            await recall(transaction, subject)


async def _recall(transaction: Transaction, holder: str, subject: Subject) -> int:
    others = and_(
        leases.c.kind == int(subject.kind),
        leases.c.subject == subject.id,
        leases.c.holder != holder,
        leases.c.amount > 0,
    )
    row = await transaction.one(select(func.sum(leases.c.amount).label("amount")).where(others))
    elsewhere = 0 if row is None else int(row["amount"] or 0)
    if elsewhere:
        await transaction.change(update(leases).where(others, leases.c.recalled.is_(False)).values(recalled=True))
    return elsewhere


def _table(subject: Subject) -> tuple[Table, str]:
    return TABLES[subject.kind]


async def _balance(transaction: Transaction, subject: Subject) -> int | None:
    table, column = _table(subject)
    row = await transaction.one(select(table.c[column]).where(table.c.id == subject.id).with_for_update())
    return None if row is None else row[column]


async def _add_balance(transaction: Transaction, subject: Subject, amount: int) -> None:
    table, column = _table(subject)
    await transaction.change(update(table).where(table.c.id == subject.id).values({column: table.c[column] + amount}))


async def _add_lease(transaction: Transaction, holder: str, subject: Subject, amount: int) -> None:
    more = {"amount": leases.c.amount + amount}
    if not await transaction.change(update(leases).where(_lease(holder, subject)).values(**more)):
        row = {"holder": holder, "kind": int(subject.kind), "subject": subject.id, "amount": amount}
        await transaction.upsert(leases, row)


async def _leased(transaction: Transaction, holder: str, subject: Subject) -> int:
    # A locking read: on MySQL a plain one would see the lease as it was when the transaction began.
    row = await transaction.one(select(leases.c.amount).where(_lease(holder, subject)).with_for_update())
    return 0 if row is None else row["amount"]


def _lease(holder: str, subject: Subject) -> ColumnElement[bool]:
    return and_(leases.c.holder == holder, leases.c.kind == int(subject.kind), leases.c.subject == subject.id)
