"""The channels in memory: the index that plans are made from, and the health, affinity and retries of this process."""

import time
from collections.abc import Callable, Iterable
from random import Random

from ...adapters.answers.refusals import key_is_dead
from ...adapters.errors import NoHealthyChannel, NotFound, UpstreamError, UpstreamStatus
from ...adapters.operations import Operation
from ...adapters.providers.registry import PROVIDERS
from ...config.channel import Channel
from ...config.live import Live
from ...config.options import Options
from ..routing.affinity import Affinity
from ..routing.breaker import BreakerRules
from ..routing.health import Health
from ..routing.plan import BREAKER_OPEN, ChannelIndex, Exclusion, make_plan
from ..routing.retry_budget import RetryBudget
from ..state import Candidate, Plan, Principal

MOST_ROUTES = 10_000
USUAL_WAIT = 30.0
"""Seconds in `Retry-After` where nobody knows how long it takes."""

OnDeadKey = Callable[[Candidate, str], None]


class MemoryChannelPool:
    """
    `MemoryChannelPool([Channel(...), ...])` routes over these channels.

    `on_dead_key(candidate, reason)` is told of keys that the upstream refuses for good.
    """

    def __init__(
        self,
        channels: Iterable[Channel] = (),
        *,
        options: Live[Options] | None = None,
        on_dead_key: OnDeadKey | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self.index = ChannelIndex.of(channels)
        self.options = options or Live(Options())
        self.health = Health()
        self.affinity = Affinity()
        self._retries = RetryBudget()
        self._on_dead_key = on_dead_key
        self._clock = clock
        self._random = random or Random()
        self._turn = 0
        # Plans without a choice: made once, good until the channels change or something is known against the candidate.
        self._only: dict[tuple[str, str, str], Plan] = {}

    def replace(self, channels: Iterable[Channel]) -> None:
        """New channels take effect with the next request; what was known of those changed or gone is forgotten."""
        before = {channel.id: channel for channel in self.index.channels}
        self.index = ChannelIndex.of(channels)
        self._only.clear()
        for channel in self.index.channels:
            if before.pop(channel.id, None) != channel:
                self.health.forget(channel.id)
        for gone in before:
            self.health.forget(gone)

    def plan(
        self,
        principal: Principal,
        models: tuple[str, ...],
        operation: Operation,
        *,
        affinity: Callable[[], int | None] | None = None,
    ) -> Plan:
        options, now = self.options.current, self._clock()
        self._retries.request(options.retry_share, now)
        self._turn += 1
        key = (principal.group, models[0], operation.name)
        only = self._only.get(key)
        if only is not None and self.health.spotless(only.candidates[0], only.model):
            return only
        for model in models:
            channels = self.index.serving(principal.group, model)
            if channels:
                break
        else:
            raise NotFound(
                f"The model {models[0]!r} does not exist or is not open to you.", param="model", code="model_not_found"
            )
        conversation = affinity() if affinity is not None and options.affinity_seconds else None
        preferred = self.affinity.place(conversation, now) if conversation is not None else None
        candidates, exclusions = make_plan(
            channels,
            model=model,
            operation=operation.name,
            health=self.health,
            now=now,
            random=self._random,
            turn=self._turn,
            preferred=preferred,
        )
        if not candidates:
            raise _nothing_left(models[0], operation, exclusions)
        only_one = len(candidates) == 1 and not exclusions and self.health.spotless(candidates[0], model)
        if only_one and len(self._only) < MOST_ROUTES:
            only = self._only[key] = Plan(candidates, model)
            return only
        return Plan(candidates, model, conversation)

    def enter(self, candidate: Candidate, model: str) -> bool:
        return self.health.enter(candidate, model, self._clock())

    def began(self, candidate: Candidate, model: str) -> None:
        self.health.began(candidate, model)

    def succeeded(self, candidate: Candidate, model: str, *, affinity: int | None) -> None:
        self.health.succeeded(candidate, model)
        keep = self.options.current.affinity_seconds
        if affinity is not None and keep:
            self.affinity.remember(affinity, candidate.channel.id, candidate.key_index, until=self._clock() + keep)

    def failed(self, candidate: Candidate, model: str, failure: UpstreamError) -> None:
        options = self.options.current
        if failure.fault == "caller":
            return self.left(candidate, model)
        rules = BreakerRules(options.breaker_failures, options.breaker_cooldown_s, options.breaker_cooldown_max_s)
        self.health.failed(candidate, model, failure, self._clock(), rules)
        if (
            self._on_dead_key is not None
            and options.automatic_disable
            and candidate.channel.auto_ban
            and isinstance(failure, UpstreamStatus)
            and key_is_dead(failure, options.automatic_disable_keywords)
        ):
            self._on_dead_key(candidate, f"the upstream refused the key with status {failure.status}")

    def left(self, candidate: Candidate, model: str) -> None:
        self.health.left(candidate, model)

    def may_retry(self) -> bool:
        return self._retries.take()


def _nothing_left(model: str, operation: Operation, exclusions: tuple[Exclusion, ...]) -> NotFound | NoHealthyChannel:
    """
    404 when no channel of this model can do this at all; 503 when one could. What is disabled stays so until somebody
    enables it: OpenAI's clients, which would wait and send the request again, are told not to.
    """
    waits = [exclusion.retry_in for exclusion in exclusions if exclusion.retry_in > 0]
    if not any(operation.name in PROVIDERS[exclusion.channel.type].operations for exclusion in exclusions):
        return NotFound(
            f"No channel serves the model {model!r} for {operation.name}.", param="model", code="model_not_found"
        )
    if not any(exclusion.reason == BREAKER_OPEN for exclusion in exclusions):
        return NoHealthyChannel(
            f"No enabled channel can serve the model {model!r} now: whoever runs this gateway must see to it.",
            retry_after=USUAL_WAIT,
            headers=((b"x-should-retry", b"false"),),
        )
    return NoHealthyChannel(
        f"Every channel that serves the model {model!r} is out of service now.",
        retry_after=min(waits) if waits else USUAL_WAIT,
    )
