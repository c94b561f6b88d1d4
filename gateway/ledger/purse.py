"""
A purse: what a process holds of one user's, token's or budget's quota. Pure arithmetic; the time is passed in.

    free = leased - held - owed

`leased` was moved here from the balance in the store, `held` is set aside for open requests, and `owed` has been
charged but not yet written: the store's lease still holds it. Everything happens between two awaits, so two requests
can never both take the last quota.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..store.leases import SHARE, LeaseState, Subject

EXTRA_OF_NEED = 64
"""The first lease is for this many requests of the size that asked for it."""

QUICK_S = 60.0
"""A purse that is empty again sooner takes twice as much the next time: a lease is to last while the store is away."""

MOST_EXTRA = 10**15

REFUSED_S = 0.5
"""For how long a purse that the balance could not fill refuses as much again, without asking."""


@dataclass(slots=True)
class Purse:
    """`limited` is False for a token that only counts what it uses: it always has enough, and no lease."""

    subject: Subject
    limited: bool = True
    leased: int = 0
    held: int = 0
    owed: int = 0
    left: int = 0
    """What the balance had beside this lease, when it was last seen."""
    extra: int = 0
    """How much more than it needed the last lease was to be."""
    taken_at: float = float("-inf")
    used_at: float = float("-inf")
    doubtful: bool = False
    """A move's outcome was not heard: `leased` may be less than the store says, and has to be read again."""
    refused: int = 0
    """The smallest need that the balance could not fill..."""
    refused_until: float = float("-inf")
    """...and until when that is believed."""
    whose: str = ""
    """A budget's: how a refusal calls it."""
    ends_at: int | None = None
    """A budget's: when its period ends, in milliseconds since 1970."""

    @property
    def free(self) -> int:
        return self.leased - self.held - self.owed

    @property
    def reach(self) -> int:
        """What could be held now, if the balance is still as it was."""
        return self.free + max(0, self.left)

    def covers(self, quota: int) -> bool:
        return not self.limited or quota <= self.leased - self.held - self.owed

    def is_low(self) -> bool:
        """Whether more should be fetched before it is needed."""
        return self.limited and self.free * 2 < self.extra and self.left >= SHARE

    def is_idle(self, now: float, after: float) -> bool:
        """Whether it holds a lease, or a debt, that nobody has needed for `after` seconds."""
        return now - self.used_at >= after and not self.held and not self.owed and self.leased != 0

    def is_refused(self, need: int, now: float) -> bool:
        """Whether the store was asked for as much a moment ago and did not have it."""
        return now < self.refused_until and need >= self.refused

    def ask(self, need: int, now: float) -> int:
        """How much more than `need` to ask for: more each time the purse empties quickly, less where it lasts."""
        if now - self.taken_at < QUICK_S:
            self.extra = min(self.extra * 2, MOST_EXTRA)
        else:
            self.extra //= 2
        self.extra = max(self.extra, EXTRA_OF_NEED * need)
        self.taken_at = now
        return self.extra

    def agree(self, taken: LeaseState) -> None:
        """Take over what the store says that it holds."""
        self.leased = taken.leased
        self.left = taken.left
        self.doubtful = False

    def refuse(self, need: int, now: float) -> None:
        """The balance does not have it: say so for a while without asking again."""
        self.refused = need if now >= self.refused_until else min(need, self.refused)
        self.refused_until = now + REFUSED_S

    def begin_return(self) -> int:
        """What can be given back now; it is not there any more from this moment on. Below 0: a debt to be paid."""
        amount = self.free
        if amount == 0 or (amount < 0 and (self.held or self.owed)):
            return 0
        self.leased -= amount
        return amount

    def lose(self) -> None:
        """The store has taken the lease back."""
        self.leased = 0
        self.doubtful = True


def all_cover(purses: Iterable[Purse], quota: int) -> bool:
    """Whether each of them has `quota` to spare."""
    return all(purse.covers(quota) for purse in purses)
