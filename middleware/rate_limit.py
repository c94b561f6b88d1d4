"""Limits of the caller's pace: requests and tokens per minute, requests open at once; per key, user and address."""

import math
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.errors import RateLimited
from ..config.live import Live
from ..config.options import Options
from .ports import Limiter, Taken
from .state import CHARGE, PRINCIPAL, Principal

MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one subject (a key, a user, an address) may do; 0 is no limit. `subject` begins the limiter's keys."""

    subject: str
    requests: int
    tokens: int
    parallel: int


class RateLimitMiddleware:
    """
    Refuse with 429 a caller who is too fast, with `Retry-After` and OpenAI's `x-ratelimit-*`; show those in any answer.

    Reads PRINCIPAL if it is there (without it only addresses are limited) and, on the way out, CHARGE: tokens are
    counted when they have been used, and a caller who has overdrawn his minute waits until the debt is gone. A key's
    own limits come before the options' defaults.

    Place it inside token_auth and outside intake, so that a refused request costs nothing to read.

        app = RateLimitMiddleware(app, limiter=MemoryLimiter(), options=Live(Options(requests_per_minute_user=60)))
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter, options: Live[Options] | None = None) -> None:
        self.app = app
        self.limiter = limiter
        self.options = options or Live(Options())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        limits = limits_of(PRINCIPAL.find(scope), scope, self.options.current)
        if not limits:
            return await self.app(scope, receive, send)
        entered: list[str] = []
        try:
            shown = await self._admit(limits, entered)

            def send_with_limits(message: Message):
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), *shown]
                return send(message)

            await self.app(scope, receive, send_with_limits)
        finally:
            for key in entered:
                self.limiter.leave(key)
            charge = CHARGE.find(scope)
            if charge is not None:
                for each in limits:
                    if each.tokens:
                        used = charge.usage.total_tokens
                        await self.limiter.charge(f"{each.subject}:tokens", limit=each.tokens, period=MINUTE, cost=used)

    async def _admit(self, limits: list[Limits], entered: list[str]) -> list[tuple[bytes, bytes]]:
        """Take what the request needs, or raise `RateLimited`. Returns the headers that show the tightest limits."""
        requests: Taken | None = None
        tokens: Taken | None = None
        for each in limits:
            if each.tokens:
                tokens = _tighter(
                    tokens, await self.limiter.take(f"{each.subject}:tokens", limit=each.tokens, period=MINUTE, cost=0)
                )
        for each in limits:
            if each.parallel:
                key = f"{each.subject}:parallel"
                if not await self.limiter.enter(key, limit=each.parallel):
                    raise RateLimited(
                        f"Too many requests are open at once; the limit is {each.parallel}.", retry_after=1.0
                    )
                entered.append(key)
        if tokens is None or tokens.wait <= 0:
            for each in limits:
                if each.requests:
                    taken = await self.limiter.take(f"{each.subject}:requests", limit=each.requests, period=MINUTE)
                    requests = _tighter(requests, taken)
        shown = [*_headers(b"requests", requests), *_headers(b"tokens", tokens)]
        for name, taken in (("requests", requests), ("tokens", tokens)):
            if taken is not None and taken.wait > 0:
                raise RateLimited(
                    f"Too many {name}: the limit is {taken.limit} a minute. Try again in {math.ceil(taken.wait)} s.",
                    retry_after=taken.wait,
                    headers=tuple(shown),
                )
        return shown


def limits_of(principal: Principal | None, scope: Scope, options: Options) -> list[Limits]:
    """The limits that apply to a request, only those that limit anything."""
    found: list[Limits] = []
    client = scope.get("client")
    if client and (options.requests_per_minute_address or options.parallel_requests_address):
        found.append(
            Limits(f"address:{client[0]}", options.requests_per_minute_address, 0, options.parallel_requests_address)
        )
    if principal is None:
        return found
    user = Limits(
        f"user:{principal.user_id}",
        options.requests_per_minute_user,
        options.tokens_per_minute_user,
        options.parallel_requests_user,
    )
    token = Limits(
        f"token:{principal.token_id}",
        principal.requests_per_minute or options.requests_per_minute_token,
        principal.tokens_per_minute or options.tokens_per_minute_token,
        principal.parallel_requests or options.parallel_requests_token,
    )
    return [*found, *(each for each in (user, token) if each.requests or each.tokens or each.parallel)]


def _tighter(one: Taken | None, other: Taken) -> Taken:
    if one is None or other.wait > one.wait:
        return other
    return one if one.wait > other.wait or one.remaining <= other.remaining else other


def _headers(name: bytes, taken: Taken | None) -> list[tuple[bytes, bytes]]:
    if taken is None:
        return []
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % taken.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % max(0, taken.remaining)),
        (b"x-ratelimit-reset-" + name, b"%.3fs" % max(0.0, taken.reset)),
    ]
