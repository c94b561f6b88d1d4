"""Limits in memory: rates by GCRA, one number a key; windows, one number a request; and places in use."""

import time
from collections.abc import Callable, Sequence

from ..ports import Check, LimitState, Places, Rate, Window
from .window import TICK, WindowLog

PRUNE_RATES_ABOVE = 100_000
PRUNE_WINDOWS_ABOVE = 1_000
PLACE_WAIT = 1.0
"""Seconds to wait for a place: when one is given back, nobody knows."""


class MemoryLimiter:
    """
    Limits of this process. The state of a rate is its theoretical arrival time (TAT): when it would be as good as new.

    Everything happens between two awaits, so no lock is needed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self._windows: dict[str, WindowLog] = {}
        self._places: dict[str, int] = {}
        self._prune_rates_above = PRUNE_RATES_ABOVE
        self._prune_windows_above = PRUNE_WINDOWS_ABOVE

    async def admit(self, checks: Sequence[Check]) -> "MemoryAdmission":
        now = self._clock()
        answers: list[LimitState] = []
        passed = True
        for check in checks:
            answer = self._answer(check, now, 1)
            if answer.wait:
                passed = False
            answers.append(answer)
        if not passed:
            return MemoryAdmission(self, False, [self._answer(check, now, 0) for check in checks], (), now)
        for check in checks:
            if type(check) is Rate:
                if check.cost:
                    self._charge(check, check.cost, now)
            elif type(check) is Places:
                self._places[check.key] = self._places.get(check.key, 0) + 1
            else:
                self._log(check.key, now).add(now, check.period)
        return MemoryAdmission(self, True, answers, checks, now)

    def charge(self, rates: Sequence[Rate], cost: int) -> None:
        now = self._clock()
        for rate in rates:
            self._charge(rate, cost, now)

    def leave(self, key: str) -> None:
        """Give a place back."""
        taken = self._places[key] - 1
        if taken:
            self._places[key] = taken
        else:
            del self._places[key]

    def give_back(self, key: str, since: float) -> None:
        """Count what was counted then no longer in this window."""
        log = self._windows.get(key)
        if log is not None:
            log.remove(since)

    def _answer(self, check: Check, now: float, taking: int) -> LimitState:
        """The answer to a check if it were counted `taking` times: 0 or 1."""
        limit = check.limit
        if type(check) is Rate:
            period, cost = check.period, check.cost
            interval = period / limit
            debt = self._arrivals.get(check.key, now) - now
            if debt < 0.0:
                debt = 0.0
            # A cost of 0 asks whether the key is in debt, that is, whether not even one unit would fit.
            wait = debt + (cost or 1) * interval - period
            debt += taking * cost * interval
            left = int((period - debt) / interval + 1e-6)
            return LimitState(wait if wait > TICK else 0.0, limit, left if left > 0 else 0, debt)
        if type(check) is Places:
            free = limit - self._places.get(check.key, 0)
            return LimitState(0.0 if free > 0 else PLACE_WAIT, limit, max(0, free - taking), 0.0)
        log = self._windows.get(check.key)
        return log.answer(check, now, taking) if log else LimitState(0.0, limit, limit - taking, taking * check.period)

    def _charge(self, rate: Rate, cost: int, now: float) -> None:
        if len(self._arrivals) > self._prune_rates_above:
            self._arrivals = {key: each for key, each in self._arrivals.items() if each > now}
            # When nearly all are still in use, looking through them again for each request would find no more.
            self._prune_rates_above = max(PRUNE_RATES_ABOVE, 2 * len(self._arrivals))
        arrival = self._arrivals.get(rate.key, now)
        self._arrivals[rate.key] = (arrival if arrival > now else now) + cost * rate.period / rate.limit

    def _log(self, key: str, now: float) -> WindowLog:
        log = self._windows.get(key)
        if log is None:
            if len(self._windows) > self._prune_windows_above:
                self._windows = {key: each for key, each in self._windows.items() if not each.is_over(now)}
                self._prune_windows_above = max(PRUNE_WINDOWS_ABOVE, 2 * len(self._windows))
            log = self._windows[key] = WindowLog()
        return log


class MemoryAdmission:
    """What became of a request at a `MemoryLimiter`. `counted`: where it was counted; nowhere if it was refused."""

    __slots__ = ("_counted", "_limiter", "_since", "answers", "passed")

    def __init__(
        self, limiter: MemoryLimiter, passed: bool, answers: list[LimitState], counted: Sequence[Check], since: float
    ) -> None:
        self._limiter = limiter
        self._counted = counted
        self._since = since
        self.passed = passed
        self.answers = answers

    def leave(self, *, give_back: Window | None = None) -> None:
        counted, self._counted = self._counted, ()
        for check in counted:
            if type(check) is Places:
                self._limiter.leave(check.key)
            elif check is give_back:
                self._limiter.give_back(check.key, self._since)
