"""Health: the breakers of all (channel, key, model), kept only for those that have failed."""

from collections.abc import Iterator

from ...adapters.errors import UpstreamError
from ..state import Candidate
from .breaker import Breaker, BreakerRules, State

HealthKey = tuple[int, int, str]


class Health:
    """
    What is known to be ill. Only upstream faults count; the caller's own 4xx never reach `failed`.

    A candidate is told apart by identity, so each request brings its own: see `Breaker`.

    A fault of the channel as a whole is kept under the key's own entry as well: one key's 500 says nothing about the
    others' limits, and each of them finds out for itself.
    """

    def __init__(self) -> None:
        self._breakers: dict[HealthKey, Breaker] = {}

    def spotless(self, candidate: Candidate, model: str) -> bool:
        """Nothing at all is known against the candidate."""
        return not self._breakers or (candidate.channel.id, candidate.key_index, model) not in self._breakers

    def usable(self, candidate: Candidate, model: str, now: float) -> bool:
        """Whether the breaker is not open. Asking does not claim the probe."""
        breaker = self._breakers.get((candidate.channel.id, candidate.key_index, model))
        return breaker is None or breaker.state(now) != "open"

    def retry_in(self, candidate: Candidate, model: str, now: float) -> float:
        """Seconds until the breaker is half open; 0.0 when it is not open."""
        breaker = self._breakers.get((candidate.channel.id, candidate.key_index, model))
        return max(0.0, breaker.until - now) if breaker is not None else 0.0

    def enter(self, candidate: Candidate, model: str, now: float) -> bool:
        breaker = self._breakers.get((candidate.channel.id, candidate.key_index, model))
        return breaker is None or breaker.enter(now, candidate)

    def began(self, candidate: Candidate, model: str) -> None:
        """An answer has begun. That is all that a probe has to show; it does not wipe out failures in mid-answer."""
        if self._breakers:
            breaker = self._breakers.get((candidate.channel.id, candidate.key_index, model))
            if breaker is not None and breaker.until:
                breaker.succeeded(candidate)

    def succeeded(self, candidate: Candidate, model: str) -> None:
        if not self._breakers:
            return
        key = (candidate.channel.id, candidate.key_index, model)
        breaker = self._breakers.get(key)
        if breaker is not None and breaker.succeeded(candidate):
            del self._breakers[key]

    def failed(self, candidate: Candidate, model: str, failure: UpstreamError, now: float, rules: BreakerRules) -> None:
        """Count a failure, which may open the breaker."""
        key = (candidate.channel.id, candidate.key_index, model)
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker()
        breaker.failed(now, rules, candidate, retry_after=failure.retry_after)

    def left(self, candidate: Candidate, model: str) -> None:
        breaker = self._breakers.get((candidate.channel.id, candidate.key_index, model))
        if breaker is not None:
            breaker.left(candidate)

    def forget(self, channel_id: int) -> None:
        """The channel has changed: what was known of it no longer holds."""
        for key in [key for key in self._breakers if key[0] == channel_id]:
            del self._breakers[key]

    def states(self, now: float) -> Iterator[tuple[HealthKey, State]]:
        """Every breaker that is not plainly closed, for metrics and operators."""
        for key, breaker in self._breakers.items():
            yield key, breaker.state(now)
