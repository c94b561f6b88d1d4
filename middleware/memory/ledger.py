"""
Money in memory: what each user and token has left, what is held, what was charged.

`available = balance - held`, and `balance` falls when a charge settles. Everything happens between two awaits, so two
requests can never both take the last quota. The gateway's ledger builds on this one and writes the charges down.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...adapters.errors import InsufficientQuota
from ...config.amounts import dollars
from ..state import Charge, Hold, Principal


@dataclass(slots=True)
class Account:
    """One user's or token's quota. `limited` is False for a token that only counts what it uses."""

    balance: int
    limited: bool = True
    held: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def left(self) -> str:
        """What is available, as clients are told of it."""
        return dollars(max(0, self.available))

    def covers(self, quota: int) -> bool:
        return not self.limited or quota <= self.available


class MemoryLedger:
    """
    `MemoryLedger(users={1: 500_000})` gives user 1 a dollar. A token without an account of its own is unlimited.

    `record` is called with each charge once, when it settles.
    """

    def __init__(
        self,
        users: dict[int, int] | None = None,
        tokens: dict[int, int] | None = None,
        record: Callable[[Charge], None] | None = None,
    ) -> None:
        self.users = {id: Account(quota) for id, quota in (users or {}).items()}
        self.tokens = {id: Account(quota) for id, quota in (tokens or {}).items()}
        self._record = record

    async def open(self, principal: Principal, request_id: str) -> Hold:
        user = self.users.get(principal.user_id)
        if user is None:
            user = self.users[principal.user_id] = Account(0)
        token = self.tokens.get(principal.token_id)
        if token is None:
            token = self.tokens[principal.token_id] = Account(0, limited=False)
        elif principal.unlimited:
            token.limited = False
        if not user.covers(1):
            raise InsufficientQuota("The balance is used up.")
        if not token.covers(1):
            raise InsufficientQuota("The key's quota is used up.", code="token_quota_exhausted")
        return MemoryHold(user, token, self._settled)

    def _settled(self, charge: Charge) -> None:
        if self._record is not None:
            self._record(charge)


class MemoryHold:
    """A hold on two accounts at once."""

    __slots__ = ("_closed", "_on_settle", "_token", "_user", "quota")

    def __init__(self, user: Account, token: Account, on_settle: Callable[[Charge], None]) -> None:
        self._user = user
        self._token = token
        self._on_settle = on_settle
        self._closed = False
        self.quota = 0

    async def reserve(self, quota: int) -> None:
        more = quota - self.quota
        if more <= 0 or self._closed:
            return
        if not self._user.covers(more):
            raise InsufficientQuota(
                f"The balance does not cover this: it may cost {dollars(quota)}, of {self._user.left} left."
            )
        if not self._token.covers(more):
            raise InsufficientQuota(
                f"The key's quota does not cover this: it may cost {dollars(quota)}, of {self._token.left} left.",
                code="token_quota_exhausted",
            )
        self._user.held += more
        self._token.held += more
        self.quota = quota

    def available(self) -> int:
        left = self._user.available
        return max(0, self.quota + (min(left, self._token.available) if self._token.limited else left))

    async def settle(self, charge: Charge) -> None:
        if self._closed:
            return
        self.release()
        self._user.balance -= charge.quota
        self._token.balance -= charge.quota
        self._on_settle(charge)

    def release(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._user.held -= self.quota
        self._token.held -= self.quota
