"""The hold of a request: opened before it, and closed whatever happens to it."""

import asyncio
from typing import Any

import pytest
from tollway.adapters.errors import InsufficientQuota
from tollway.middleware.memory import MemoryLedger
from tollway.middleware.state import Hold, MissingState, Principal, state_of
from tollway.middleware.token_quota import TokenQuotaMiddleware

from .inner import ALICE, Client, Inside, Message, scope_of

pytestmark = pytest.mark.anyio


def from_alice() -> Message:
    scope = scope_of()
    state_of(scope).principal = ALICE
    return scope


async def test_the_app_inside_finds_an_open_hold() -> None:
    ledger, client = MemoryLedger(users={1: 100}), Client()
    held: list[int] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await state_of(scope).hold.reserve(60)
        held.append(ledger.users[1].held)

    await TokenQuotaMiddleware(inside, ledger=ledger)(from_alice(), client.receive, client.send)
    assert held == [60]


async def test_who_has_nothing_left_is_refused_before_the_app_inside_is_called() -> None:
    inside, client = Inside(), Client()
    with pytest.raises(InsufficientQuota):
        await TokenQuotaMiddleware(inside, ledger=MemoryLedger())(from_alice(), client.receive, client.send)
    assert inside.calls == 0


async def test_a_success_that_nobody_settled_costs_nothing() -> None:
    ledger, client = MemoryLedger(users={1: 100}), Client()

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await state_of(scope).hold.reserve(60)

    await TokenQuotaMiddleware(inside, ledger=ledger)(from_alice(), client.receive, client.send)
    assert (ledger.users[1].available, ledger.users[1].held) == (100, 0)


@pytest.mark.parametrize("failure", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
async def test_the_hold_is_released_when_the_app_inside_raises(failure: type[BaseException]) -> None:
    ledger, client = MemoryLedger(users={1: 100}), Client()

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await state_of(scope).hold.reserve(60)
        raise failure

    with pytest.raises(failure):
        await TokenQuotaMiddleware(inside, ledger=ledger)(from_alice(), client.receive, client.send)
    assert ledger.users[1].held == 0


async def test_the_hold_is_released_when_the_request_is_cancelled() -> None:
    ledger, client = MemoryLedger(users={1: 100}), Client()
    reserved = asyncio.Event()

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await state_of(scope).hold.reserve(60)
        reserved.set()
        await asyncio.sleep(60)

    layer = TokenQuotaMiddleware(inside, ledger=ledger)
    task = asyncio.create_task(layer(from_alice(), client.receive, client.send))
    await reserved.wait()
    assert ledger.users[1].held == 60
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.users[1].held == 0


async def test_the_ledger_is_told_who_and_which_request() -> None:
    opened: list[tuple[Principal, str]] = []
    ledger = MemoryLedger(users={1: 100})

    class Book:
        async def open(self, principal: Principal, request_id: str) -> Hold:
            opened.append((principal, request_id))
            return await ledger.open(principal, request_id)

    client, scope = Client(), from_alice()
    state_of(scope).request_id = "req-7"
    await TokenQuotaMiddleware(Inside(), ledger=Book())(scope, client.receive, client.send)
    assert opened == [(ALICE, "req-7")]


async def test_without_a_principal_the_layer_to_add_is_named() -> None:
    client = Client()
    with pytest.raises(MissingState, match="TokenAuthMiddleware"):
        await TokenQuotaMiddleware(Inside(), ledger=MemoryLedger())(scope_of(), client.receive, client.send)


async def test_lifespan_passes() -> None:
    inside, client = Inside(), Client()
    await TokenQuotaMiddleware(inside, ledger=MemoryLedger())({"type": "lifespan"}, client.receive, client.send)
    assert inside.calls == 1
