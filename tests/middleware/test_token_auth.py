"""The caller's key: where it may stand, who it belongs to, and every reason to refuse it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tollway.adapters.errors import GatewayError
from tollway.middleware.access_log import AccessLogMiddleware, Line
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.memory import MemoryTokens
from tollway.middleware.state import Principal, state_of
from tollway.middleware.token_auth import TokenAuthMiddleware, is_inside

from .inner import ALICE, CHAT, Client, Inside, Message, scope_of
from .outer import Clock, call

pytestmark = pytest.mark.anyio

BOB = Principal(token_id=2, user_id=2)
TOKENS = MemoryTokens({"sk-alice": ALICE, "sk-bob": BOB})
Headers = tuple[tuple[bytes, bytes], ...]


async def who(*headers: tuple[bytes, bytes], kind: str = "http") -> Principal | None:
    scope = scope_of(CHAT.path, *headers) | {"type": kind}
    inside = Inside()
    await call(TokenAuthMiddleware(inside, tokens=TOKENS), scope)
    assert inside.calls == 1
    return state_of(scope).principal


async def refused(
    scope: Message, tokens: MemoryTokens = TOKENS, *, whose: Principal | None = None, **given: Any
) -> GatewayError:
    """The refusal of a request, which has neither been let in nor answered by the layer itself."""
    inside, client = Inside(), Client()
    with pytest.raises(GatewayError) as caught:
        await call(TokenAuthMiddleware(inside, tokens=tokens, **given), scope, client)
    assert (inside.calls, client.sent, client.received) == (0, [], 0)
    assert state_of(scope).principal is whose
    return caught.value


async def refused_as(principal: Principal, address: str = "192.0.2.7", now: float = 1000.0) -> GatewayError:
    scope = scope_of(CHAT.path, (b"authorization", b"Bearer sk-carol")) | {"client": (address, 4711)}
    return await refused(scope, MemoryTokens({"sk-carol": principal}), whose=principal, clock=Clock(now))


async def let_in(principal: Principal, address: str = "192.0.2.7", now: float = 1000.0) -> bool:
    scope = scope_of(CHAT.path, (b"authorization", b"Bearer sk-carol")) | {"client": (address, 4711)}
    tokens = MemoryTokens({"sk-carol": principal})
    await call(TokenAuthMiddleware(Inside(), tokens=tokens, clock=Clock(now)), scope)
    return state_of(scope).principal is principal


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(((b"authorization", b"Bearer sk-alice"),), id="as OpenAI's clients send it"),
        pytest.param(((b"authorization", b"bearer sk-alice"),), id="scheme in small letters"),
        pytest.param(((b"authorization", b"BEARER   sk-alice "),), id="scheme in capitals and more spaces"),
        pytest.param(((b"authorization", b"sk-alice"),), id="without a scheme"),
        pytest.param(((b"x-api-key", b"sk-alice"),), id="as Anthropic's clients send it"),
        pytest.param(((b"x-goog-api-key", b" sk-alice"),), id="as Google's clients send it"),
        pytest.param(
            ((b"authorization", b"Bearer sk-alice"), (b"x-api-key", b"sk-bob")), id="Bearer comes before other places"
        ),
        pytest.param(((b"x-api-key", b"sk-bob"), (b"authorization", b"Bearer sk-alice")), id="whatever their order is"),
        pytest.param(
            ((b"authorization", b"Basic dXNlcjpwdw=="), (b"x-api-key", b"sk-alice")), id="Basic is not our scheme"
        ),
        pytest.param(((b"authorization", b"Bearer "), (b"x-api-key", b"sk-alice")), id="an empty Bearer is none"),
    ],
)
async def test_the_key_is_found_wherever_clients_put_it(headers: Headers) -> None:
    assert await who(*headers) is ALICE


async def test_the_key_of_a_websocket_is_found_in_its_subprotocols() -> None:
    protocols = b"realtime, openai-insecure-api-key.sk-alice, openai-beta.realtime-v1"
    assert await who((b"sec-websocket-protocol", protocols), kind="websocket") is ALICE


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param((), "missing_api_key", id="no key"),
        pytest.param(((b"authorization", b""),), "missing_api_key", id="an empty header"),
        pytest.param(((b"authorization", b"Bearer"),), "missing_api_key", id="a scheme alone"),
        pytest.param(((b"authorization", b"Bearer   "),), "missing_api_key", id="a scheme and spaces"),
        pytest.param(((b"authorization", b"Basic dXNlcjpwdw=="),), "missing_api_key", id="another scheme"),
        pytest.param(((b"x-api-key", b""),), "missing_api_key", id="an empty key elsewhere"),
        pytest.param(((b"cookie", b"key=sk-alice"),), "missing_api_key", id="in a cookie"),
        pytest.param(((b"authorization", b"Bearer sk-mallory"),), "invalid_api_key", id="an unknown key"),
        pytest.param(
            ((b"authorization", b"Bearer SK-ALICE"),), "invalid_api_key", id="keys are told apart by capitals"
        ),
        pytest.param(((b"authorization", b"Bearer sk-alice sk-bob"),), "invalid_api_key", id="two keys"),
        pytest.param(((b"authorization", b"Bearer \xff\xfe\x00"),), "invalid_api_key", id="not text"),
        pytest.param(
            ((b"authorization", b"Bearer sk-mallory"), (b"x-api-key", b"sk-alice")),
            "invalid_api_key",
            id="a bad key is not made up for by a good one",
        ),
    ],
)
async def test_no_key_and_an_unknown_one_are_a_401(headers: Headers, code: str) -> None:
    failure = await refused(scope_of(CHAT.path, *headers))
    assert (failure.status, failure.code) == (401, code)
    assert (b"www-authenticate", b"Bearer") in failure.headers
    assert "mallory" not in failure.message


@pytest.mark.parametrize(
    "query", [b"key=sk-alice", b"api_key=sk-alice", b"access_token=sk-alice", b"token=sk-alice", b"sk-alice"]
)
async def test_a_key_in_the_query_is_not_taken(query: bytes) -> None:
    failure = await refused(scope_of(query=query))
    assert (failure.status, failure.code) == (401, "missing_api_key")


@pytest.mark.parametrize(
    ("principal", "status", "code"),
    [
        pytest.param(replace(ALICE, disabled="token"), 403, "disabled_api_key", id="a disabled key"),
        pytest.param(replace(ALICE, disabled="user"), 403, "user_disabled", id="a disabled user"),
        pytest.param(replace(ALICE, disabled="group"), 403, "group_not_allowed", id="a group closed to the user"),
        pytest.param(replace(ALICE, expires_at=999.0), 401, "expired_api_key", id="expired"),
        pytest.param(replace(ALICE, expires_at=1000.0), 401, "expired_api_key", id="expiring now"),
        pytest.param(replace(ALICE, expires_at=0.0), 401, "expired_api_key", id="expired at the epoch"),
        pytest.param(replace(ALICE, exhausted=True), 402, "token_quota_exhausted", id="used up"),
        pytest.param(replace(ALICE, networks=("10.0.0.0/8",)), 403, "ip_not_allowed", id="a wrong address"),
        pytest.param(
            replace(ALICE, disabled="token", expires_at=1.0, exhausted=True, networks=("10.0.0.0/8",)),
            403,
            "disabled_api_key",
            id="disabled comes first",
        ),
        pytest.param(
            replace(ALICE, expires_at=1.0, exhausted=True, networks=("10.0.0.0/8",)),
            401,
            "expired_api_key",
            id="then expired",
        ),
        pytest.param(
            replace(ALICE, exhausted=True, networks=("10.0.0.0/8",)), 402, "token_quota_exhausted", id="then used up"
        ),
    ],
)
async def test_a_key_that_may_not_is_refused(principal: Principal, status: int, code: str) -> None:
    failure = await refused_as(principal)
    assert (failure.status, failure.code) == (status, code)


async def test_a_401_for_an_expired_key_says_how_to_authenticate() -> None:
    """RFC 9110, 15.5.2: a 401 must carry WWW-Authenticate."""
    assert (b"www-authenticate", b"Bearer") in (await refused_as(replace(ALICE, expires_at=1.0))).headers


@pytest.mark.parametrize(
    "principal",
    [
        pytest.param(replace(ALICE, expires_at=1000.5), id="not yet expired"),
        pytest.param(replace(ALICE, expires_at=None), id="never expiring"),
        pytest.param(replace(ALICE, networks=("10.0.0.0/8", "192.0.2.0/24")), id="from one of its networks"),
        pytest.param(replace(ALICE, models=frozenset({"o3"})), id="its models are another layer's business"),
    ],
)
async def test_a_key_that_may_is_let_in(principal: Principal) -> None:
    assert await let_in(principal)


@pytest.mark.parametrize(
    ("address", "network", "inside"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.8", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.0/24", True),
        ("192.0.2.7", "192.0.2.9/24", True),
        ("192.0.3.7", "192.0.2.0/24", False),
        ("192.0.2.7", "0.0.0.0/0", True),
        ("::ffff:192.0.2.7", "192.0.2.0/24", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("192.0.2.7", "::/0", False),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("", "0.0.0.0/0", False),
        ("testclient", "0.0.0.0/0", False),
        ("192.0.2.7.evil.example", "192.0.2.0/24", False),
    ],
)
async def test_networks(address: str, network: str, inside: bool) -> None:
    assert is_inside(address, [network]) is inside


async def test_a_server_that_does_not_know_the_address_lets_no_bound_key_in() -> None:
    scope = scope_of(CHAT.path, (b"authorization", b"Bearer sk-carol")) | {"client": None}
    carol = replace(ALICE, networks=("0.0.0.0/0",))
    failure = await refused(scope, MemoryTokens({"sk-carol": carol}), whose=carol)
    assert failure.code == "ip_not_allowed"


async def test_the_access_log_names_a_key_that_is_refused() -> None:
    lines: list[Line] = []
    auth = TokenAuthMiddleware(Inside(), tokens=MemoryTokens({"sk-carol": replace(BOB, networks=("10.0.0.0/8",))}))
    app = AccessLogMiddleware(ErrorEnvelopeMiddleware(auth), write=lines.append)
    await call(app, scope_of(CHAT.path, (b"authorization", b"Bearer sk-carol")) | {"client": ("192.0.2.7", 4711)})
    (line,) = lines
    assert (line.status, line.error_code, line.user_id, line.token_id) == (403, "ip_not_allowed", 2, 2)


async def test_a_websocket_without_a_key_is_refused_too() -> None:
    failure = await refused(scope_of() | {"type": "websocket"})
    assert failure.code == "missing_api_key"


async def test_requests_at_once_keep_their_own_callers() -> None:
    seen: dict[str, int] = {}
    both = asyncio.Barrier(2)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await both.wait()
        principal = state_of(scope).principal
        assert principal is not None
        seen[scope["path"]] = principal.user_id

    layer = TokenAuthMiddleware(inside, tokens=TOKENS)
    alice = scope_of("/alice", (b"authorization", b"Bearer sk-alice"))
    bob = scope_of("/bob", (b"authorization", b"Bearer sk-bob"))
    await asyncio.gather(call(layer, alice), call(layer, bob))
    assert seen == {"/alice": 1, "/bob": 2}


async def test_a_key_that_changes_is_seen_by_the_next_request() -> None:
    known: dict[str, Principal] = {"sk-alice": ALICE}

    class Directory:
        def find(self, key: str) -> Principal | None:
            return known.get(key)

    layer = TokenAuthMiddleware(Inside(), tokens=Directory())
    header = (b"authorization", b"Bearer sk-alice")
    await call(layer, scope_of(CHAT.path, header))
    known["sk-alice"] = replace(ALICE, disabled="token")
    with pytest.raises(GatewayError, match="disabled"):
        await call(layer, scope_of(CHAT.path, header))


async def test_an_unknown_key_is_looked_for_once_more() -> None:
    owners: dict[str, Principal] = {}
    asked: list[int] = []

    class Directory:
        def find(self, key: str) -> Principal | None:
            return owners.get(key)

    async def refresh() -> None:
        asked.append(1)
        owners["sk-new"] = ALICE

    layer = TokenAuthMiddleware(Inside(), tokens=Directory(), refresh=refresh)
    for _ in range(2):
        scope = scope_of(CHAT.path, (b"authorization", b"Bearer sk-new"))
        await call(layer, scope)
        assert state_of(scope).principal is ALICE
    assert len(asked) == 1
    with pytest.raises(GatewayError):
        await call(layer, scope_of(CHAT.path, (b"authorization", b"Bearer sk-nobody")))
    assert len(asked) == 2
