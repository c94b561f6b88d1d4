"""The table `grants`: every quota that was given or taken by hand. A balance is what these add up to, less charges."""

from sqlalchemy import ColumnElement, func, insert, select

from .schema import grants
from .store import Session, Transaction


async def note(
    transaction: Transaction, *, amount: int, reason: str, now_ms: int, user_id: int = 0, token_id: int = 0
) -> None:
    """Record a grant of `amount` quota (below 0: taken) to a user or a token, in the transaction that gives it."""
    if amount:
        values = {"user_id": user_id, "token_id": token_id, "amount": amount, "reason": reason, "created_at": now_ms}
        await transaction.insert(insert(grants).values(**values))


async def of_user(session: Session, user_id: int) -> int:
    """What a user was given in all."""
    return await _total(session, grants.c.user_id == user_id)


async def of_token(session: Session, token_id: int) -> int:
    """What a token was given in all."""
    return await _total(session, grants.c.token_id == token_id)


async def _total(session: Session, condition: ColumnElement[bool]) -> int:
    row = await session.one(select(func.sum(grants.c.amount).label("total")).where(condition))
    return 0 if row is None else int(row["total"] or 0)
