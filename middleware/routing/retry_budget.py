"""A retry budget: retries are a share of the traffic at most, so that they do not bury a failing upstream."""

from math import inf

FLOOR = 10.0
"""Retries that are in the purse at first and after a quiet time, so that a lone request can be retried."""
FLOOR_WITHIN = 60.0
"""Seconds of quiet that fill an empty purse up to the floor: where requests are rare, their share would be nothing."""


class RetryBudget:
    """
    A purse: every request puts in `share` of a retry, every retry takes one out; it never holds more than the floor
    plus a hundred requests' worth. Time fills it up to the floor. Known from Finagle and linkerd.
    """

    __slots__ = ("_purse", "_seen")

    def __init__(self) -> None:
        self._purse = FLOOR
        self._seen = inf

    def request(self, share: float, now: float) -> None:
        """`now`: seconds on a clock that never goes back. A share of 0 is none at all: then time brings nothing."""
        if share and self._purse < FLOOR and now > self._seen:
            self._purse = min(self._purse + (now - self._seen) * (FLOOR / FLOOR_WITHIN), FLOOR)
        self._seen = now
        self._purse = min(self._purse + share, FLOOR + 100 * share)

    def take(self) -> bool:
        if self._purse < 1.0:
            return False
        self._purse -= 1.0
        return True
