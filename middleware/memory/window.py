"""A sliding window, exact: the times of all that count in it."""

from array import array
from bisect import bisect_left, bisect_right

from ..ports import LimitState, Window

TICK = 1e-9
"""Seconds by which a sum of floats may be off."""
FEW = 32


class WindowLog:
    """
    When each request that counts was admitted, oldest first: 8 bytes each, at most about twice the window's limit.

    Times are seconds on one clock that never goes back. A request counts from its time on, until it is as old as the
    window is long.
    """

    __slots__ = ("_times", "period")

    def __init__(self) -> None:
        self._times = array("d")
        self.period = 0.0
        """As long as the window was when it was last counted in."""

    def answer(self, window: Window, now: float, taking: int) -> LimitState:
        """The answer to a check if it were counted `taking` times: 0 or 1."""
        times, limit, period = self._times, window.limit, window.period
        used = len(times) - self._expired(now, period)
        wait = 0.0 if used < limit else times[-limit] + period - now
        reset = period if taking else times[-1] + period - now if used else 0.0
        return LimitState(wait, limit, max(0, limit - used - taking), reset)

    def add(self, now: float, period: float) -> None:
        expired = self._expired(now, period)
        # Cutting off only when half is old moves each time once, however many there are.
        if expired > FEW and 2 * expired > len(self._times):
            del self._times[:expired]
        self._times.append(now)
        self.period = period

    def remove(self, time: float) -> None:
        """Count one of this time no longer. It may have left by itself."""
        at = bisect_left(self._times, time)
        if at < len(self._times) and self._times[at] == time:
            del self._times[at]

    def is_over(self, now: float) -> bool:
        """Whether nothing counts any more."""
        return self._expired(now, self.period) == len(self._times)

    def _expired(self, now: float, period: float) -> int:
        return bisect_right(self._times, now - period + TICK)
