"""Rate limits in memory: GCRA (ITU-T I.371, the generic cell rate algorithm), one number a key; and places in use."""

import time
from collections.abc import Callable

from ..ports import Taken

PRUNE_ABOVE = 100_000


class MemoryLimiter:
    """
    Limits of this process. The state of a key is its theoretical arrival time (TAT): when it would be as good as new.

    Everything happens between two awaits, so no lock is needed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self._places: dict[str, int] = {}
        self._prune_above = PRUNE_ABOVE

    async def take(self, key: str, *, limit: int, period: float, cost: int = 1) -> Taken:
        now = self._clock()
        interval = period / limit
        arrival = max(self._arrivals.get(key, now), now)
        after = arrival + cost * interval
        # A cost of 0 asks whether the key is in debt, that is, whether not even one unit would fit.
        wait = after - now - period if cost else arrival + interval - now - period
        if wait > 1e-9:
            return Taken(wait, limit, 0, arrival - now)
        if cost:
            self._store(key, after, now)
        return Taken(0.0, limit, int((period - (after - now)) / interval + 1e-6), after - now)

    async def charge(self, key: str, *, limit: int, period: float, cost: int) -> None:
        now = self._clock()
        self._store(key, max(self._arrivals.get(key, now), now) + cost * period / limit, now)

    async def enter(self, key: str, *, limit: int) -> bool:
        taken = self._places.get(key, 0)
        if taken >= limit:
            return False
        self._places[key] = taken + 1
        return True

    def leave(self, key: str) -> None:
        taken = self._places.get(key, 0) - 1
        if taken > 0:
            self._places[key] = taken
        else:
            self._places.pop(key, None)

    def _store(self, key: str, arrival: float, now: float) -> None:
        if len(self._arrivals) > self._prune_above:
            self._arrivals = {key: each for key, each in self._arrivals.items() if each > now}
            # When nearly all are still in use, looking through them again for each request would find no more.
            self._prune_above = max(PRUNE_ABOVE, 2 * len(self._arrivals))
        self._arrivals[key] = arrival
