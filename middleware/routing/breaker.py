"""
A circuit breaker: takes a failing (channel, key, model) out of service and lets it back by one successful probe.

    closed     --failures in a row, or a Retry-After-->  open
    open       --cool-down over-->                       half-open: one probe at a time
    half-open  --probe succeeds-->                       closed
               --probe fails-->                          open, twice as long
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When to open (`failures` in a row) and for how long: `cooldown` seconds, doubled up to `cooldown_max`."""

    failures: int = 5
    cooldown: float = 5.0
    cooldown_max: float = 300.0


ANYBODY = object()


class Breaker:
    """
    The breaker of one (channel, key, model). Times are seconds on one monotonic clock.

    `who` is the request that enters or ends, told apart by identity: while the breaker is not closed only its probe
    counts, and not those that had entered before it opened and end later.
    """

    __slots__ = ("failures", "openings", "probe", "probing_since", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.openings = 0
        self.until = 0.0
        """When the cool-down ends; 0.0 while closed."""
        self.probe: object = None
        self.probing_since = 0.0

    def state(self, now: float) -> State:
        if not self.until:
            return "closed"
        return "open" if now < self.until else "half_open"

    def enter(self, now: float, who: object = ANYBODY, *, probe_timeout: float = 60.0) -> bool:
        """
        Whether a request may pass. In the half-open state the first one becomes the probe and the others may not.

        A probe that has not ended after `probe_timeout` seconds no longer keeps others out: a long stream is no news.
        """
        if not self.until:
            return True
        if now < self.until:
            return False
        if self.probe is not None and now - self.probing_since < probe_timeout:
            return False
        self.probe, self.probing_since = who, now
        return True

    def succeeded(self, who: object = ANYBODY) -> bool:
        """True when the breaker is closed now."""
        if self.until and self.probe is not who:
            return False
        self.failures = self.openings = 0
        self.until = 0.0
        self.probe = None
        return True

    def failed(
        self, now: float, rules: BreakerRules, who: object = ANYBODY, *, retry_after: float | None = None
    ) -> bool:
        """Count a failure; True when it opened the breaker. `retry_after` (seconds) opens it at once, for that long."""
        if retry_after is not None and retry_after <= 0:  # "at once" is no reason to wait
            retry_after = None
        was_probe = self.probe is who
        if self.until and not was_probe and retry_after is None:
            return False
        self.failures += 1
        if was_probe:
            self.probe = None
        elif retry_after is None and self.failures < rules.failures:
            return False
        cooldown = min(rules.cooldown * 2**self.openings, rules.cooldown_max)
        if retry_after is not None:
            cooldown = min(retry_after, rules.cooldown_max)
        else:
            self.openings = min(self.openings + 1, 30)
        self.until = max(self.until, now + cooldown)
        return True

    def left(self, who: object = ANYBODY) -> None:
        """A request ended that told nothing; if it was the probe, its place is free again."""
        if self.probe is who:
            self.probe = None
