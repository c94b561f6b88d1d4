import re

import pytest
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import BrokenReference, Store, changes, tokens, users
from tollway.gateway.store.records import TokenRow, TokenStatus

pytestmark = pytest.mark.anyio


@pytest.fixture
async def user_id(store: Store) -> int:
    return await users.create(store, username="ada", now_ms=1)


async def get(store: Store, token_id: int) -> TokenRow:
    (token,) = await tokens.by_ids(store, [token_id])
    return token


async def test_a_key_is_given_once_and_finds_its_token(store: Store, vault: Vault, user_id: int) -> None:
    token_id, key = await tokens.create(store, vault, user_id=user_id, name="laptop", remain_quota=7, now_ms=2)
    text = key.reveal()
    assert re.fullmatch(r"sk-[A-Za-z0-9]{48}", text)
    token = await get(store, token_id)
    assert token.key_hash == vault.token_hash(text)
    assert (token.user_id, token.name, token.remain_quota, token.unlimited) == (user_id, "laptop", 7, False)
    assert token.key_prefix == f"sk-{text[3:7]}...{text[-4:]}"
    assert (token.models, token.allow_ips, token.expires_at, token.parallel_requests) == (None, None, None, 0)


async def test_keys_differ(store: Store, vault: Vault, user_id: int) -> None:
    keys = {(await tokens.create(store, vault, user_id=user_id, now_ms=2))[1].reveal() for _ in range(20)}
    assert len(keys) == 20


async def test_limits_of_a_token_are_kept(store: Store, vault: Vault, user_id: int) -> None:
    token_id, _ = await tokens.create(
        store,
        vault,
        user_id=user_id,
        models=["gpt-4o", "claude"],
        allow_ips=["10.0.0.0/8"],
        group="vip",
        expires_at=99,
        requests_per_minute=3,
        tokens_per_minute=5_000_000_000,
        parallel_requests=2,
        unlimited=True,
        now_ms=2,
    )
    token = await get(store, token_id)
    assert (token.models, token.allow_ips, token.group) == (("gpt-4o", "claude"), ("10.0.0.0/8",), "vip")
    assert (token.expires_at, token.unlimited) == (99, True)
    assert (token.requests_per_minute, token.tokens_per_minute, token.parallel_requests) == (3, 5_000_000_000, 2)


async def test_an_empty_list_of_models_is_not_all_models(store: Store, vault: Vault, user_id: int) -> None:
    token_id, _ = await tokens.create(store, vault, user_id=user_id, models=[], now_ms=2)
    assert (await get(store, token_id)).models == ()


async def test_a_token_needs_its_user(store: Store, vault: Vault) -> None:
    with pytest.raises(BrokenReference):
        await tokens.create(store, vault, user_id=99, now_ms=1)


async def test_deleted_tokens_are_gone_and_disabled_ones_are_not(store: Store, vault: Vault, user_id: int) -> None:
    ids = [(await tokens.create(store, vault, user_id=user_id, now_ms=2))[0] for _ in range(3)]
    assert await tokens.set_status(store, ids[0], TokenStatus.DISABLED, now_ms=3)
    assert await tokens.delete(store, ids[1], now_ms=3)
    assert [token.id for token in await tokens.all_kept(store)] == [ids[0], ids[2]]
    assert [token.id for token in await tokens.by_ids(store, ids)] == [ids[0], ids[2]]
    assert [token.id for token in await tokens.of_user(store, user_id)] == [ids[2], ids[0]]


async def test_changes_to_a_token_are_noted(store: Store, vault: Vault, user_id: int) -> None:
    token_id, _ = await tokens.create(store, vault, user_id=user_id, remain_quota=5, now_ms=2)
    last = await changes.latest(store)
    assert await tokens.add_quota(store, token_id, -2, now_ms=3) == 3
    assert await tokens.set_key_hash(store, token_id, "f" * 64, now_ms=4)
    assert await tokens.delete(store, token_id, now_ms=5)
    assert await tokens.add_quota(store, token_id, 1, now_ms=6) is None
    noted = [(change.kind, change.ref, change.created_at) for change in await changes.since(store, last)]
    assert noted == [("token", token_id, at) for at in (3, 4, 5)]
