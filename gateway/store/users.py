"""The table `users`."""

from collections.abc import Iterable

from sqlalchemy import insert, update

from . import changes, grants
from .leases import BalanceKind, Subject, recall, with_leases
from .records import Role, UserRow, UserStatus
from .schema import users
from .store import Row, Session, Transaction

_whole = with_leases(BalanceKind.USER)


async def create(
    session: Session,
    *,
    username: str,
    now_ms: int,
    password_hash: str = "",
    display_name: str = "",
    email: str = "",
    role: Role = Role.USER,
    group: str = "default",
    quota: int = 0,
) -> int:
    """Create a user and return the id. An empty `password_hash` lets nobody in. Raises `Conflict` on a taken name."""
    values = {
        "username": username,
        "password_hash": password_hash,
        "display_name": display_name or username,
        "email": email,
        "role": int(role),
        "group": group,
        "quota": quota,
        "created_at": now_ms,
    }

    async def work(transaction: Transaction) -> int:
        user_id = await transaction.insert(insert(users).values(**values))
        await grants.note(transaction, user_id=user_id, amount=quota, reason="created", now_ms=now_ms)
        await changes.note(transaction, "user", user_id, now_ms=now_ms)
        return user_id

    return await session.run(work)


async def by_id(session: Session, user_id: int) -> UserRow | None:
    """A user who was not deleted."""
    row = await session.one(_whole.where(users.c.id == user_id, users.c.deleted_at.is_(None)))
    return None if row is None else _user(row)


async def by_ids(session: Session, ids: Iterable[int]) -> tuple[UserRow, ...]:
    """Those of these users who were not deleted, oldest first. At most some thousand ids."""
    rows = await session.all(_whole.where(users.c.id.in_(list(ids)), users.c.deleted_at.is_(None)).order_by(users.c.id))
    return tuple(map(_user, rows))


async def by_name(session: Session, username: str) -> UserRow | None:
    row = await session.one(_whole.where(users.c.username == username, users.c.deleted_at.is_(None)))
    return None if row is None else _user(row)


async def list_all(session: Session) -> tuple[UserRow, ...]:
    """Users who were not deleted, oldest first."""
    rows = await session.all(_whole.where(users.c.deleted_at.is_(None)).order_by(users.c.id))
    return tuple(map(_user, rows))


async def add_quota(session: Session, user_id: int, delta: int, *, now_ms: int) -> int | None:
    """Give (or with a negative `delta` take) quota. The new balance; None if there is no such user."""

    async def work(transaction: Transaction) -> int | None:
        if not await _change(transaction, user_id, now_ms, quota=users.c.quota + delta):
            return None
        await grants.note(transaction, user_id=user_id, amount=delta, reason="top-up", now_ms=now_ms)
        if delta < 0:
            await recall(transaction, Subject(BalanceKind.USER, user_id))
        row = await transaction.one(_whole.where(users.c.id == user_id))
        return None if row is None else int(row["quota"])

    return await session.run(work)


async def set_status(session: Session, user_id: int, status: UserStatus, *, now_ms: int) -> bool:
    """False if there is no such user."""
    return await session.run(lambda transaction: _change(transaction, user_id, now_ms, status=int(status)))


async def set_password_hash(session: Session, user_id: int, password_hash: str, *, now_ms: int) -> bool:
    """False if there is no such user."""
    return await session.run(lambda transaction: _change(transaction, user_id, now_ms, password_hash=password_hash))


async def update_user(
    session: Session,
    user_id: int,
    *,
    now_ms: int,
    group: str | None = None,
    role: Role | None = None,
    password_hash: str | None = None,
) -> bool:
    """Change what is given, all or nothing. False if there is no such user."""
    given = {"group": group, "role": role and int(role), "password_hash": password_hash}
    values = {name: value for name, value in given.items() if value is not None}
    return await session.run(lambda transaction: _change(transaction, user_id, now_ms, **values))


async def delete(session: Session, user_id: int, *, now_ms: int) -> bool:
    """Mark as deleted: the name stays taken and the logs stay readable. False if there is no such user."""
    return await session.run(lambda transaction: _change(transaction, user_id, now_ms, deleted_at=now_ms))


async def _change(transaction: Transaction, user_id: int, now_ms: int, **values: object) -> bool:
    found = users.c.id == user_id, users.c.deleted_at.is_(None)
    if not await transaction.change(update(users).where(*found).values(**values)):
        return False
    await changes.note(transaction, "user", user_id, now_ms=now_ms)
    return True


def _user(row: Row) -> UserRow:
    values = dict(row)
    values["quota"] = int(row["quota"])  # a sum of whole numbers is a Decimal on some engines
    values["role"] = Role(row["role"])
    values["status"] = UserStatus(row["status"])
    return UserRow(**values)
