"""What is changed beside a running server, by another process's hands, counts within a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, channels, options, prices, tokens, users
from tollway.gateway.store.records import TokenStatus

from .conftest import UpstreamOf
from .gateway import Account, Gateway, new_account, new_channel, now_ms
from .scripted import always
from .wire import CHAT, completion, whole

T = TypeVar("T")
Beside = Callable[[Callable[[Store, Vault], Awaitable[Any]]], Any]

WITHIN_S = 1.0


@pytest.fixture
def beside(gateway: Gateway) -> Beside:
    """`beside(work)`: the result of `await work(store, vault)` on connections of its own, as a command makes them."""

    def run(work: Callable[[Store, Vault], Awaitable[T]]) -> T:
        async def on_loop() -> T:
            opened = await open_data_dir(gateway.app.settings)
            try:
                return await work(opened.store, opened.vault)
            finally:
                await opened.store.close()

        return asyncio.run(on_loop())

    return run


def seen_within(gateway: Gateway, account: Account, status: int) -> float:
    """Seconds until a request is answered with `status`."""
    since = time.monotonic()
    while (found := gateway.chat(account, CHAT).status) != status:
        assert time.monotonic() - since < WITHIN_S, f"still {found}"
        time.sleep(0.02)
    return time.monotonic() - since


def test_a_new_user_with_a_token_and_a_channel(gateway: Gateway, beside: Beside) -> None:
    async def create(store: Store, vault: Vault) -> Account:
        account = await new_account(store, vault)
        await new_channel(store, vault, account.group)
        return account

    seen_within(gateway, beside(create), 200)


def test_a_new_key_is_good_for_its_first_request(gateway: Gateway, beside: Beside) -> None:
    async def create(store: Store, vault: Vault) -> Account:
        account = await new_account(store, vault)
        await new_channel(store, vault, account.group)
        return account

    for _ in range(5):
        assert gateway.chat(beside(create), CHAT).status != 401


def test_a_disabled_token(gateway: Gateway, account: Account, beside: Beside) -> None:
    gateway.channel(account)
    assert gateway.chat(account, CHAT).status == 200
    beside(lambda store, vault: tokens.set_status(store, account.token_id, TokenStatus.DISABLED, now_ms=now_ms()))
    seen_within(gateway, account, 403)


def test_a_deleted_user(gateway: Gateway, account: Account, beside: Beside) -> None:
    gateway.channel(account)
    assert gateway.chat(account, CHAT).status == 200
    beside(lambda store, vault: users.delete(store, account.user_id, now_ms=now_ms()))
    seen_within(gateway, account, 401)


def test_a_deleted_channel(gateway: Gateway, account: Account, beside: Beside, upstream: UpstreamOf) -> None:
    last = upstream(always(whole(completion())))
    channel = gateway.channel(account, last.url)
    assert gateway.chat(account, CHAT).status == 200
    beside(lambda store, vault: channels.delete(store, channel.id, now_ms=now_ms()))
    seen_within(gateway, account, 404)
    asked = len(last.requests)
    gateway.chat(account, CHAT)
    assert len(last.requests) == asked


def test_an_option(gateway: Gateway, account: Account, beside: Beside) -> None:
    gateway.channel(account)
    name = "requests_per_minute_token"
    beside(lambda store, vault: options.set_many(store, {name: "3"}, now_ms=now_ms()))
    try:
        seen_within(gateway, account, 429)
    finally:
        gateway.change(lambda store, vault: options.unset(store, name, now_ms=now_ms()))
    assert gateway.chat(account, CHAT).status == 200


def test_a_top_up(gateway: Gateway, beside: Beside) -> None:
    account = gateway.account(quota=0)
    gateway.channel(account)
    assert gateway.chat(account, CHAT).status == 402
    beside(lambda store, vault: users.add_quota(store, account.user_id, 10_000, now_ms=now_ms()))
    seen_within(gateway, account, 200)


def test_a_top_up_and_charges_at_the_same_time_both_count(gateway: Gateway, account: Account, beside: Beside) -> None:
    gateway.channel(account)
    paid = 0
    for _ in range(5):
        for _ in range(5):
            assert gateway.chat(account, CHAT).status == 200
        beside(lambda store, vault: users.add_quota(store, account.user_id, 1000, now_ms=now_ms()))
        paid += 1000
    time.sleep(0.6)
    charged = sum(charge.quota for charge in gateway.charges(account))
    assert charged > 0
    assert gateway.balance(account).quota == 500_000 + paid - charged
    assert gateway.balance(account).quota == 500_000 + paid - charged


def test_a_price(gateway: Gateway, account: Account, beside: Beside) -> None:
    gateway.channel(account, models=("brand-new",))
    body = CHAT | {"model": "brand-new"}
    refused = gateway.chat(account, body)
    assert (refused.status, refused.error["code"]) == (400, "model_price_error")
    row = '[models."brand-new"]\nper_call = 0.002\nsource = "us"\nchecked = 2026-11-21\n'
    beside(lambda store, vault: prices.put(store, "brand-new", row, now_ms=now_ms()))
    since = time.monotonic()
    while gateway.chat(account, body).status != 200:
        assert time.monotonic() - since < WITHIN_S
        time.sleep(0.02)
    assert gateway.charge(account).quota == 1000
