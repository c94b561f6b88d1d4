"""
What the layers need from the outside, as small protocols.

`middleware.memory` has an implementation of each that keeps everything in the process; the gateway has durable ones.
Times are seconds on the clock that the caller of a port names; layers take `time.monotonic` for durations and
`time.time` for dates.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from ..adapters.errors import UpstreamError
from ..adapters.operations import Operation
from ..config.pricing import Price
from .state import Candidate, Hold, Plan, Principal


class TokenDirectory(Protocol):
    """Who owns which key."""

    def find(self, key: str) -> Principal | None:
        """The principal of a key as the client sent it (with its `sk-`), from memory; None for an unknown one."""
        ...


class Taken(Struct, frozen=True):
    """
    What a limiter answered. `wait` is in seconds, 0.0 when the request may pass; `remaining` is what is left of `limit`
    after it; `reset` is in how many seconds the limit is whole again.
    """

    wait: float
    limit: int
    remaining: int
    reset: float


class Limiter(Protocol):
    """Counts against keys: rates (GCRA) and things open at once. Time is the limiter's own."""

    async def take(self, key: str, *, limit: int, period: float, cost: int = 1) -> Taken:
        """
        Count `cost` against `key` if it fits into `limit` per `period` seconds; nothing is counted if it does not.

        A cost of 0 asks without counting: `wait` is then positive while the key is in debt.
        """
        ...

    async def charge(self, key: str, *, limit: int, period: float, cost: int) -> None:
        """Count `cost` that has been used already, even into debt."""
        ...

    async def enter(self, key: str, *, limit: int) -> bool:
        """Take one of `limit` places; False when none is free."""
        ...

    def leave(self, key: str) -> None:
        """Give a place back."""
        ...


class Ledger(Protocol):
    """Holds the money."""

    async def open(self, principal: Principal, request_id: str) -> Hold:
        """
        A hold of 0 on user and token.

        Raises `InsufficientQuota` when the user has nothing left, or the token has used up its own quota.
        """
        ...


class ChannelPool(Protocol):
    """The channels, and what is known about them now."""

    def plan(
        self,
        principal: Principal,
        models: tuple[str, ...],
        operation: Operation,
        *,
        affinity: Callable[[], int | None] | None = None,
    ) -> Plan:
        """
        Every eligible (channel, key), best first. `models` are the names to look for, the first that is served counts.
        `affinity` tells the conversation's number; it is asked only where there is a choice.

        Raises `NotFound` when no channel serves any of them to the caller's group, `NoHealthyChannel` when some do but
        none can be used now.
        """
        ...

    def enter(self, candidate: Candidate, model: str) -> bool:
        """Whether the candidate may be asked now; a half-open breaker lets one probe through."""
        ...

    def began(self, candidate: Candidate, model: str) -> None:
        """The answer's first byte is here: the channel is back, however long the rest of the answer may take."""
        ...

    def succeeded(self, candidate: Candidate, model: str, *, affinity: int | None) -> None: ...

    def failed(self, candidate: Candidate, model: str, failure: UpstreamError) -> None: ...

    def left(self, candidate: Candidate, model: str) -> None:
        """The attempt ended without telling anything about the channel: the client left, or its request was refused."""
        ...

    def may_retry(self) -> bool:
        """Take one retry from the budget; False when retries already are too large a share of the traffic."""
        ...


class Prices(Protocol):
    """What models cost."""

    def price_for(self, model: str, base_model: str) -> Price | None:
        """The price of the name as sent, else of the base model; None when neither has one."""
        ...


class Ratios(Protocol):
    """What groups pay."""

    def ratio(self, user_group: str, used_group: str) -> Decimal:
        """The factor on every price, at least 0."""
        ...
