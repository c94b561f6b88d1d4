"""Checks the caller's key."""

import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.errors import Forbidden, InsufficientQuota, Unauthenticated
from .paths import address_of
from .ports import TokenDirectory
from .state import Principal, state_of

KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"sec-websocket-protocol"})
SUBPROTOCOL = b"openai-insecure-api-key."


class TokenAuthMiddleware:
    """
    Find out who calls, and refuse a key that may not. Writes `principal`, also for a known key that is refused: what is
    inside sees only those that are not.

    The key is read from `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or the WebSocket subprotocol
    `openai-insecure-api-key.<key>`; not from the query, which proxies write into their logs.
    Refusals: 401 for no key, an unknown or an expired one; 402 for one that is used up; 403 for one that is disabled or
    comes from an address it may not.

    `refresh` is awaited before an unknown key is refused, for a directory that can look for what is new; how often it
    really looks is its own business, for anybody can send unknown keys.

    Place it inside the error envelope and outside everything that wants to know who calls.

        app = TokenAuthMiddleware(app, tokens=MemoryTokens({"sk-alice": Principal(token_id=1, user_id=1)}))
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: TokenDirectory,
        refresh: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.tokens = tokens
        self.refresh = refresh
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        key = read_key(scope)
        if not key:
            raise Unauthenticated(
                "No API key. Send it as `Authorization: Bearer sk-...`.",
                code="missing_api_key",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        principal = self.tokens.find(key)
        if principal is None and self.refresh is not None:
            await self.refresh()
            principal = self.tokens.find(key)
        if principal is None:
            raise Unauthenticated("This API key is not known.", headers=((b"www-authenticate", b"Bearer"),))
        # Before it is judged: whoever logs a refusal can say whose key it was, such as one used from a strange address.
        state_of(scope).principal = principal
        check(principal, address_of(scope), self.clock())
        await self.app(scope, receive, send)


def read_key(scope: Scope) -> str:
    """The key wherever the client put it; "" when there is none."""
    fallback = b""
    for name, value in scope["headers"]:
        if name not in KEY_HEADERS:
            continue
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            key = rest.strip() if scheme.lower() == b"bearer" else value.strip() if not rest else b""
            if key:
                return key.decode("latin-1")
        elif name != b"sec-websocket-protocol":
            fallback = value.strip()
        elif SUBPROTOCOL in value:
            fallback = value.split(SUBPROTOCOL, 1)[1].split(b",", 1)[0].strip()
    return fallback.decode("latin-1")


def check(principal: Principal, address: str, now: float) -> None:
    """Raise what forbids this principal to pass; in this order: disabled, expired, used up, address."""
    match principal.disabled:
        case "":
            pass
        case "token":
            raise Forbidden("This API key is disabled.", code="disabled_api_key")
        case "user":
            raise Forbidden("The account that owns this API key is disabled.", code="user_disabled")
        case "group":
            raise Forbidden(
                f"The group {principal.group!r} is not open to this API key's owner.", code="group_not_allowed"
            )
    if principal.expires_at is not None and principal.expires_at <= now:
        raise Unauthenticated(
            "This API key has expired.", code="expired_api_key", headers=((b"www-authenticate", b"Bearer"),)
        )
    if principal.exhausted:
        raise InsufficientQuota("This API key's quota is used up.", code="token_quota_exhausted")
    if principal.networks and not is_inside(address, principal.networks):
        raise Forbidden("This API key may not be used from your address.", code="ip_not_allowed")


def is_inside(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of the networks; an IPv4 address in IPv6 clothes counts as IPv4."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in map(_network, networks))


@lru_cache(maxsize=4096)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)
