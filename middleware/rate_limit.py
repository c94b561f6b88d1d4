"""Limits of the caller's pace: requests and tokens per minute, requests open at once; per key, user and address."""

import math

from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.errors import RateLimited
from ..config.live import Live
from ..config.options import Options
from .ports import Limiter, Taken
from .state import Principal, state_of

MINUTE = 60.0


MOST_KEPT = 10_000


class Limits(Struct, frozen=True):
    """What one subject (a key, a user, an address) may do; 0 is no limit. The keys are the limiter's."""

    requests: int
    tokens: int
    parallel: int
    requests_key: str
    tokens_key: str
    parallel_key: str

    @classmethod
    def of(cls, subject: str, *, requests: int, tokens: int, parallel: int) -> "Limits":
        return cls(requests, tokens, parallel, f"{subject}:requests", f"{subject}:tokens", f"{subject}:parallel")


class RateLimitMiddleware:
    """
    Refuse with 429 a caller who is too fast, with `Retry-After` and OpenAI's `x-ratelimit-*`; show those in any answer.

    Reads `principal` if it is there (without it only addresses are limited) and, on the way out, `charge`: tokens are
    counted when they have been used, and a caller who has overdrawn his minute waits until the debt is gone. A key's
    own limits come before the options' defaults.

    Place it inside token_auth and outside intake, so that a refused request costs nothing to read.

        app = RateLimitMiddleware(app, limiter=MemoryLimiter(), options=Live(Options(requests_per_minute_user=60)))
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter, options: Live[Options] | None = None) -> None:
        self.app = app
        self.limiter = limiter
        self.options = options or Live(Options())
        self._kept: dict[int, tuple[Principal, Options, tuple[Limits, ...]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        limits = self._limits(state.principal, scope)
        if not limits:
            return await self.app(scope, receive, send)
        entered: list[str] = []
        try:
            shown = await self._admit(limits, entered)

            def send_with_limits(message: Message):
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), *shown]}
                return send(message)

            await self.app(scope, receive, send_with_limits)
        finally:
            limiter = self.limiter
            for key in entered:
                limiter.leave(key)
            charge = state.charge
            if charge is not None:
                for each in limits:
                    if each.tokens:
                        used = charge.usage.total_tokens
                        await limiter.charge(each.tokens_key, limit=each.tokens, period=MINUTE, cost=used)

    def _limits(self, principal: Principal | None, scope: Scope) -> tuple[Limits, ...]:
        """The limits that apply to a request, only those that limit anything."""
        options = self.options.current
        limits = () if principal is None else self._limits_of(principal, options)
        client = scope.get("client")
        if client and (options.requests_per_minute_address or options.parallel_requests_address):
            of_address = Limits.of(
                f"address:{client[0]}",
                requests=options.requests_per_minute_address,
                tokens=0,
                parallel=options.parallel_requests_address,
            )
            return (of_address, *limits)
        return limits

    def _limits_of(self, principal: Principal, options: Options) -> tuple[Limits, ...]:
        kept = self._kept.get(principal.token_id)
        if kept is not None and kept[0] is principal and kept[1] is options:
            return kept[2]
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        limits = limits_of(principal, options)
        self._kept[principal.token_id] = (principal, options, limits)
        return limits

    async def _admit(self, limits: tuple[Limits, ...], entered: list[str]) -> list[tuple[bytes, bytes]]:
        """Take what the request needs, or raise `RateLimited`. Returns the headers that show the tightest limits."""
        limiter = self.limiter
        requests: Taken | None = None
        tokens: Taken | None = None
        for each in limits:
            if each.tokens:
                taken = await limiter.take(each.tokens_key, limit=each.tokens, period=MINUTE, cost=0)
                tokens = taken if tokens is None else _tighter(tokens, taken)
        if tokens is not None and tokens.wait > 0:
            raise _refusal("tokens", tokens, _headers(requests, tokens))
        for each in limits:
            if each.parallel:
                if not await limiter.enter(each.parallel_key, limit=each.parallel):
                    raise RateLimited(
                        f"Too many requests are open at once; the limit is {each.parallel}.", retry_after=1.0
                    )
                entered.append(each.parallel_key)
        if len(limits) > 1:  # ask before taking: what one limit refuses must not count against another
            for each in limits:
                if each.requests:
                    taken = await limiter.take(each.requests_key, limit=each.requests, period=MINUTE, cost=0)
                    if taken.wait > 0:
                        raise _refusal("requests", taken, _headers(taken, tokens))
        for each in limits:
            if each.requests:
                taken = await limiter.take(each.requests_key, limit=each.requests, period=MINUTE)
                requests = taken if requests is None else _tighter(requests, taken)
        shown = _headers(requests, tokens)
        if requests is not None and requests.wait > 0:
            raise _refusal("requests", requests, shown)
        return shown


def limits_of(principal: Principal, options: Options) -> tuple[Limits, ...]:
    """The limits of a key and of its owner, only those that limit anything."""
    user = Limits.of(
        f"user:{principal.user_id}",
        requests=options.requests_per_minute_user,
        tokens=options.tokens_per_minute_user,
        parallel=options.parallel_requests_user,
    )
    token = Limits.of(
        f"token:{principal.token_id}",
        requests=principal.requests_per_minute or options.requests_per_minute_token,
        tokens=principal.tokens_per_minute or options.tokens_per_minute_token,
        parallel=principal.parallel_requests or options.parallel_requests_token,
    )
    return tuple(each for each in (user, token) if each.requests or each.tokens or each.parallel)


def _refusal(name: str, taken: Taken, headers: list[tuple[bytes, bytes]]) -> RateLimited:
    return RateLimited(
        f"Too many {name}: the limit is {taken.limit} a minute. Try again in {math.ceil(taken.wait)} s.",
        retry_after=taken.wait,
        headers=tuple(headers),
    )


def _tighter(one: Taken, other: Taken) -> Taken:
    if other.wait > one.wait:
        return other
    return one if one.wait > other.wait or one.remaining <= other.remaining else other


def _headers(requests: Taken | None, tokens: Taken | None) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    if requests is not None:
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % max(0, requests.remaining)),
            (b"x-ratelimit-reset-requests", b"%.3fs" % max(0.0, requests.reset)),
        )
    if tokens is not None:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(0, tokens.remaining)),
            (b"x-ratelimit-reset-tokens", b"%.3fs" % max(0.0, tokens.reset)),
        )
    return headers
