"""A retry budget: retries are a share of the traffic at most, so that they do not bury a failing upstream."""

FLOOR = 10.0
"""Retries that are always in the purse at first and after a quiet time, so that a lone request can be retried."""


class RetryBudget:
    """
    A purse: every request puts in `share` of a retry, every retry takes one out; it never holds more than the floor
    plus a hundred requests' worth. Known from Finagle and linkerd.
    """

    __slots__ = ("_purse",)

    def __init__(self) -> None:
        self._purse = FLOOR

    def request(self, share: float) -> None:
        self._purse = min(self._purse + share, FLOOR + 100 * share)

    def take(self) -> bool:
        if self._purse < 1.0:
            return False
        self._purse -= 1.0
        return True
