"""
What the layers need from the outside, as small protocols.

`middleware.memory` has an implementation of each that keeps everything in the process; the gateway has durable ones.
Times are seconds on the clock that the caller of a port names; layers take `time.monotonic` for durations and
`time.time` for dates.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Protocol, final

from msgspec import Struct

from ..adapters.errors import UpstreamError
from ..adapters.operations import Operation
from ..adapters.usage.prompt_texts import Counted, Texts
from ..config.pricing import Price
from .state import Candidate, Hold, Plan, Principal


class TokenDirectory(Protocol):
    """Who owns which key."""

    def find(self, key: str) -> Principal | None:
        """The principal of a key as the client sent it (with its `sk-`), from memory; None for an unknown one."""
        ...


@final
class Rate(Struct, frozen=True):
    """
    At most `limit` per `period` seconds, coming back evenly (GCRA, the generic cell rate algorithm, ITU-T I.371).

    A cost of 0 asks without counting: it is refused while the key is in debt, that is, while not even 1 would fit.
    """

    key: str
    limit: int
    period: float
    cost: int = 1


@final
class Window(Struct, frozen=True):
    """At most `limit` in any `period` seconds, to the very one: each counts until it is `period` seconds old."""

    key: str
    limit: int
    period: float


@final
class Places(Struct, frozen=True):
    """At most `limit` at once."""

    key: str
    limit: int


Check = Rate | Window | Places
"""One limit that a request has to pass. `limit` and `period` are above 0; `key` names what is counted."""


class LimitState(Struct, frozen=True):
    """
    What a limiter answered to one check. `wait` is in seconds, 0.0 when this limit lets the request pass; `remaining`
    is what is left of `limit` now; `reset` is in how many seconds the limit is whole again (0.0 for places).
    """

    wait: float
    limit: int
    remaining: int
    reset: float


class Admission(Protocol):
    """What became of a request at its limits."""

    @property
    def passed(self) -> bool:
        """Whether every limit let it pass. If not, it was counted nowhere."""
        ...

    @property
    def answers(self) -> Sequence[LimitState]:
        """One for each check, in their order."""
        ...

    def leave(self, *, give_back: Window | None = None) -> None:
        """
        The request is over: its places are free, and in the window `give_back`, one of its checks, it counts no longer.
        Only the first call does anything, and only for a request that was counted.
        """
        ...


class Limiter(Protocol):
    """
    Counts against keys. Time is the limiter's own.

    A request passes all of its limits in one call, and is counted against all of them or against none: what one limit
    refuses counts against no other.
    """

    async def admit(self, checks: Sequence[Check]) -> Admission:
        """Count a request against these limits, whose keys differ, if all of them let it pass."""
        ...

    def charge(self, rates: Sequence[Rate], cost: int) -> None:
        """Count `cost` that has been used already, even into debt. Does not wait until it is counted."""
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


class TokenCounter(Protocol):
    """Counts tokens as the model does."""

    async def count(self, read: Callable[[], Texts], model: str) -> Counted:
        """The tokens of what `read` returns. It is called, and they are counted, off the event loop."""
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
