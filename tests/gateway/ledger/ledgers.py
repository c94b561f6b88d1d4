"""What tests of ledgers ask for: callers, what they are charged, and what they have left."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tollway.adapters.errors import InsufficientQuota, Unavailable
from tollway.config.pricing import Usage
from tollway.gateway.ledger import StoreLedger
from tollway.gateway.store import Store, users
from tollway.middleware.state import Charge, Principal

LedgerOf = Callable[[str], Awaitable[StoreLedger]]


async def user(store: Store, quota: int, group: str = "default") -> Principal:
    """A new user with this balance, and a key without a quota of its own."""
    user_id = await users.create(store, username=f"user-{random.random()}", quota=quota, now_ms=1)
    return Principal(token_id=0, user_id=user_id, unlimited=True, group=group)


def charge(principal: Principal, quota: int) -> Charge:
    return Charge(
        quota, Usage(), None, "completed", "chat", "m", False, 200, time.time(), 0.1, 0.1, "r", "", principal, None
    )


async def request(
    ledger: StoreLedger,
    principal: Principal,
    estimate: int,
    cost: int,
    pause: float = 0.0,
    *,
    refused_with: str = "insufficient_quota",
) -> bool:
    """Whether it was served. A database that answers too late, on a busy machine, is a refusal too."""
    try:
        hold = await ledger.open(principal, "r")
        try:
            await hold.reserve(estimate)
            await asyncio.sleep(pause)
            await hold.settle(charge(principal, cost))
        finally:
            hold.release()
    except InsufficientQuota as error:
        if error.code != refused_with:
            raise
        return False
    except Unavailable:
        return False
    return True


async def left(store: Store, principal: Principal) -> int:
    found = await users.by_id(store, principal.user_id)
    assert found is not None
    return found.quota
