"""Walks the plan until a channel answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from random import Random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.errors import NoHealthyChannel, UpstreamError, UpstreamTimeout, UpstreamTruncated
from ..config.live import Live
from ..config.options import Options
from .paths import relayed_operation
from .ports import ChannelPool
from .state import Attempt, Candidate, Failure, Plan, RelayState, missing, state_of

Sleep = Callable[[float], Awaitable[None]]


class FailoverMiddleware:
    """
    Try the plan's candidates in turn until one answers; tell the pool how each did. Writes `attempt` and `failures`.

    Reads `plan`. An attempt has failed when the app inside raises `UpstreamError` before its first byte; it is the last
    one when the failure is the caller's own, when a byte has left, or when the options' counts or the retry budget say
    so. `retry_next` counts further keys and channels, `retry_same` rounds over all of them again, after a pause with
    jitter. When a channel itself has failed, its other keys are left for a later round. Requests that are no operation
    pass untouched.

    Place it inside channel_select and directly around what performs the call.

        app = FailoverMiddleware(app, pool=pool, options=Live(Options(retry_next=2)))
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pool: ChannelPool,
        options: Live[Options] | None = None,
        sleep: Sleep = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        self.app = app
        self.pool = pool
        self.options = options or Live(Options())
        self.sleep = sleep
        self.random = random or Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        if state.plan is None and relayed_operation(scope) is None:
            return await self.app(scope, receive, send)
        pool, plan = self.pool, state.plan or missing("plan", "ChannelSelectMiddleware")
        model = plan.model
        walk = _Walk(plan, pool, self.options.current)
        committed = False

        def watched_send(message: Message):
            nonlocal committed
            if not committed:  # the client sees a byte: from here on, no second attempt
                committed = True
                pool.began(candidate, model)
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), *shown(state)]}
            return send(message)

        for round in range(walk.options.retry_same + 1):
            if round:
                if not walk.worth_another_round:
                    break
                pause = walk.options.retry_backoff_s * 2 ** (round - 1)
                await self.sleep(self.random.uniform(pause / 2, pause))
            for candidate in walk.round():
                state.attempt = Attempt(candidate, walk.number)
                try:
                    await self.app(scope, receive, watched_send)
                except UpstreamError as failure:
                    pool.failed(candidate, model, failure)
                    state.failures += (
                        Failure(candidate.channel.id, candidate.key_index, failure.code, failure.message),
                    )
                    if committed or not failure.retryable:
                        raise
                    walk.note(candidate, failure)
                except BaseException:
                    pool.left(candidate, model)
                    raise
                else:
                    return self._report(state, candidate, plan, answered=committed)
        raise walk.failure or NoHealthyChannel(
            "Every channel that serves this model is busy proving itself.", retry_after=1.0
        )

    def _report(self, state: RelayState, candidate: Candidate, plan: Plan, *, answered: bool) -> None:
        """The app is done; how the answer ended says whether the channel is well."""
        outcome = state.outcome
        # Who leaves while the upstream is being connected to gets no answer and has no outcome: that proves nothing.
        ending = outcome.ending if outcome is not None else "completed" if answered else "cancelled"
        if ending == "completed":
            self.pool.succeeded(candidate, plan.model, affinity=plan.affinity)
        elif ending == "cancelled":
            self.pool.left(candidate, plan.model)
        else:
            self.pool.failed(candidate, plan.model, UpstreamTruncated("The stream broke off."))


FIRST_ATTEMPT = ((b"x-tollway-attempts", b"1"),)


def shown(state: RelayState) -> Iterable[tuple[bytes, bytes]]:
    """Headers that say how the answer came about: attempts for everyone, the channel for administrators."""
    attempt, principal = state.attempt, state.principal
    if attempt is None:
        return ()
    headers = FIRST_ATTEMPT if attempt.number == 1 else ((b"x-tollway-attempts", b"%d" % attempt.number),)
    if principal is not None and principal.is_admin:
        return (*headers, (b"x-tollway-channel", b"%d" % attempt.channel.id))
    return headers


class _Walk:
    """How far one request's walk over its plan has come."""

    # Defaults stand on the class: most walks end at their first step, and never have values of their own.
    number = 0
    """Attempts so far."""
    failure: UpstreamError | None = None
    """The last one, which the client is told if no attempt succeeds."""
    failed_channels: frozenset[int] = frozenset()
    dead_keys: frozenset[tuple[int, int]] = frozenset()
    out_of_retries = False

    def __init__(self, plan: Plan, pool: ChannelPool, options: Options) -> None:
        self.plan = plan
        self.pool = pool
        self.options = options

    @property
    def worth_another_round(self) -> bool:
        """Going round again costs the client time, so not after a timeout has cost it already."""
        return self.failure is not None and not self.out_of_retries and not isinstance(self.failure, UpstreamTimeout)

    def round(self) -> Iterator[Candidate]:
        """The candidates of one round, each as soon as the one before has failed."""
        if self.failed_channels:
            self.failed_channels = frozenset()
        tried = 0
        for candidate in self.plan.candidates:
            if tried > self.options.retry_next:
                return
            if self.failure is not None and (
                candidate.channel.id in self.failed_channels
                or (candidate.channel.id, candidate.key_index) in self.dead_keys
            ):
                continue
            if not self.pool.enter(candidate, self.plan.model):
                continue
            if self.number and not self.pool.may_retry():
                self.pool.left(candidate, self.plan.model)
                self.out_of_retries = True
                return
            tried += 1
            self.number += 1
            yield candidate

    def note(self, candidate: Candidate, failure: UpstreamError) -> None:
        """Remember a failure: a key's fault keeps the key out for good, a channel's the channel for this round."""
        self.failure = failure
        if failure.fault == "key":
            self.dead_keys |= {(candidate.channel.id, candidate.key_index)}
        else:
            self.failed_channels |= {candidate.channel.id}
