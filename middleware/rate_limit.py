"""Limits of the caller's pace: requests and tokens per minute, requests open at once, model requests in a window."""

import ipaddress
import math
from collections.abc import Iterable, Sequence

from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.errors import RateLimited
from ..config.live import Live
from ..config.options import Options
from .paths import operation_of
from .ports import Check, Limiter, LimitState, Places, Rate, Window
from .state import Principal, state_of

MINUTE = 60.0
MOST_KEPT = 10_000


class Limits(Struct, frozen=True):
    """
    What a request has to pass. `checks` are all of it, `requests_at` and `tokens_at` the places among them of limits on
    requests and on tokens, `tokens` those last: they ask, and are counted when the tokens have been used. `successes`
    is the window among the checks that counts only requests that succeed.
    """

    checks: tuple[Check, ...]
    requests_at: tuple[int, ...]
    tokens_at: tuple[int, ...]
    tokens: tuple[Rate, ...]
    successes: Window | None

    @classmethod
    def of(cls, checks: Iterable[Check], successes: Window | None = None) -> "Limits":
        checks = tuple(checks)
        tokens = [(at, each) for at, each in enumerate(checks) if isinstance(each, Rate) and not each.cost]
        tokens_at = tuple(at for at, _ in tokens)
        requests_at = tuple(
            at for at, each in enumerate(checks) if not isinstance(each, Places) and at not in tokens_at
        )
        return cls(checks, requests_at, tokens_at, tuple(each for _, each in tokens), successes)


NONE = Limits.of(())


class RateLimitMiddleware:
    """
    Refuse with 429 a caller who is too fast, with `Retry-After` and OpenAI's `x-ratelimit-*`; show those in any answer.

    Reads `principal` if it is there (without it only addresses are limited) and, on the way out, `charge`: tokens are
    counted when they have been used, and a caller who has overdrawn his minute waits until the debt is gone. A key's
    own limits come before the options' defaults. What one limit refuses counts against no other.

    Model requests, told by the path, may be limited per user in a sliding window: all of them, and those that succeed.
    A request takes its place among the successful ones before it goes on, so that no two of them share the last one,
    and gives it back when its status is 400 or more or it breaks off before the first byte of its body.

    Place it inside token_auth and outside intake, so that a refused request costs nothing to read.

        app = RateLimitMiddleware(app, limiter=MemoryLimiter(), options=Live(Options(requests_per_minute_user=60)))
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter, options: Live[Options] | None = None) -> None:
        self.app = app
        self.limiter = limiter
        self.options = options or Live(Options())
        self._kept: dict[int, tuple[Principal, Options, Limits, Limits]] = {}
        self._kept_addresses: dict[str, tuple[Limits, Options, Limits]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        limits = self._limits(state.principal, scope)
        if not limits.checks:
            return await self.app(scope, receive, send)
        admission = await self.limiter.admit(limits.checks)
        if not admission.passed:
            raise refusal(limits, admission.answers)
        succeeded = limits.successes is None
        status = 0

        def send_with_limits(message: Message):
            nonlocal succeeded, status
            if message["type"] == "http.response.start":
                status = message["status"]
                shown = headers_of(limits, admission.answers)
                message = {**message, "headers": [*message.get("headers", ()), *shown]}
            elif not succeeded:
                succeeded = status < 400 and bool(message.get("body") or not message.get("more_body", False))
            return send(message)

        try:
            await self.app(scope, receive, send_with_limits)
        finally:
            admission.leave(give_back=None if succeeded else limits.successes)
            if limits.tokens and state.charge is not None:
                self.limiter.charge(limits.tokens, state.charge.usage.total_tokens)

    def _limits(self, principal: Principal | None, scope: Scope) -> Limits:
        """The limits that apply to a request."""
        options = self.options.current
        limits = NONE if principal is None else self._limits_of(principal, options, scope)
        client = scope.get("client")
        if client and (options.requests_per_minute_address or options.parallel_requests_address):
            return self._with_address(limits, client[0], options)
        return limits

    def _with_address(self, limits: Limits, address: str, options: Options) -> Limits:
        """These limits and those of an address, which mostly has one key."""
        kept = self._kept_addresses.get(address)
        if kept is not None and kept[0] is limits and kept[1] is options:
            return kept[2]
        if len(self._kept_addresses) >= MOST_KEPT:
            self._kept_addresses.clear()
        of_address = checks_of(
            f"address:{who_has(address)}",
            requests=options.requests_per_minute_address,
            tokens=0,
            parallel=options.parallel_requests_address,
        )
        both = Limits.of((*limits.checks, *of_address), limits.successes)
        self._kept_addresses[address] = (limits, options, both)
        return both

    def _limits_of(self, principal: Principal, options: Options, scope: Scope) -> Limits:
        kept = self._kept.get(principal.token_id)
        if kept is None or kept[0] is not principal or kept[1] is not options:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            kept = (principal, options, *limits_of(principal, options))
            self._kept[principal.token_id] = kept
        _, _, limits, of_models = kept
        if of_models is limits:
            return limits
        operation = operation_of(scope)
        return limits if operation is None or not operation.relayed else of_models


def who_has(address: str) -> str:
    """
    Whom a limit on an address is for: an IPv4 address, or the network of 64 bits that an IPv6 host has to itself (RFC
    6177) and can take a new address from for each request.
    """
    try:
        ip = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False))


def limits_of(principal: Principal, options: Options) -> tuple[Limits, Limits]:
    """The limits of a key and of its owner: for any request, and for one to a model."""
    checks = (
        *checks_of(
            f"user:{principal.user_id}",
            requests=options.requests_per_minute_user,
            tokens=options.tokens_per_minute_user,
            parallel=options.parallel_requests_user,
        ),
        *checks_of(
            f"token:{principal.token_id}",
            requests=principal.requests_per_minute or options.requests_per_minute_token,
            tokens=principal.tokens_per_minute or options.tokens_per_minute_token,
            parallel=principal.parallel_requests or options.parallel_requests_token,
        ),
    )
    limits = Limits.of(checks)
    total, successes = windows_of(principal, options)
    windows = tuple(each for each in (total, successes) if each is not None)
    return limits, Limits.of((*checks, *windows), successes) if windows else limits


def checks_of(subject: str, *, requests: int, tokens: int, parallel: int) -> Iterable[Check]:
    """What a subject (a key, a user, an address) may do; 0 is no limit."""
    if tokens:
        yield Rate(f"{subject}:tokens", tokens, MINUTE, 0)
    if parallel:
        yield Places(f"{subject}:parallel", parallel)
    if requests:
        yield Rate(f"{subject}:requests", requests, MINUTE)


def windows_of(principal: Principal, options: Options) -> tuple[Window | None, Window | None]:
    """The windows of all model requests of a user and of those that succeed."""
    if not options.model_request_limit:
        return None, None
    total, successes = options.model_request_total, options.model_request_successes
    for group, *own in options.model_request_groups:
        if group == principal.group:
            total, successes = own
    period = options.model_request_minutes * MINUTE
    user = f"user:{principal.user_id}"
    return (
        Window(f"{user}:models", total, period) if total else None,
        Window(f"{user}:successes", successes, period) if successes else None,
    )


def refusal(limits: Limits, answers: Sequence[LimitState]) -> RateLimited:
    """For the limit that has to be waited for longest."""
    check, answer = max(zip(limits.checks, answers, strict=True), key=lambda pair: pair[1].wait)
    if isinstance(check, Places):
        text = f"Too many requests are open at once; the limit is {check.limit}."
    else:
        if isinstance(check, Rate):
            text = f"Too many {'requests' if check.cost else 'tokens'}: the limit is {check.limit} a minute."
        else:
            which = "successful requests" if check is limits.successes else "requests, failed ones included"
            minutes = int(check.period // MINUTE)
            within = "a minute" if minutes == 1 else f"in {minutes} minutes"
            text = f"Too many {which}: the limit is {check.limit} {within}."
        text = f"{text} Try again in {math.ceil(answer.wait)} s."
    return RateLimited(text, retry_after=answer.wait, headers=tuple(headers_of(limits, answers)))


def headers_of(limits: Limits, answers: Sequence[LimitState]) -> list[tuple[bytes, bytes]]:
    """OpenAI's headers, for the tightest limit on requests and the tightest on tokens."""
    requests: LimitState | None = None
    for at in limits.requests_at:
        requests = answers[at] if requests is None else _tighter(requests, answers[at])
    tokens: LimitState | None = None
    for at in limits.tokens_at:
        tokens = answers[at] if tokens is None else _tighter(tokens, answers[at])
    headers: list[tuple[bytes, bytes]] = []
    if requests is not None:
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % requests.remaining),
            (b"x-ratelimit-reset-requests", b"%.3fs" % requests.reset),
        )
    if tokens is not None:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % tokens.remaining),
            (b"x-ratelimit-reset-tokens", b"%.3fs" % tokens.reset),
        )
    return headers


def _tighter(one: LimitState, other: LimitState) -> LimitState:
    if other.wait > one.wait:
        return other
    return one if one.wait > other.wait or one.remaining <= other.remaining else other
