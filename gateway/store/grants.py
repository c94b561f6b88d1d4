"""The table `grants`: every quota that was given or taken by hand. A balance is what these add up to, less charges."""

from sqlalchemy import insert

from .schema import grants
from .store import Transaction


async def note(
    transaction: Transaction, *, amount: int, reason: str, now_ms: int, user_id: int = 0, token_id: int = 0
) -> None:
    """Record a grant of `amount` quota (below 0: taken) to a user or a token, in the transaction that gives it."""
    if amount:
        values = {"user_id": user_id, "token_id": token_id, "amount": amount, "reason": reason, "created_at": now_ms}
        await transaction.insert(insert(grants).values(**values))
