"""What is found by a name or an id, and changed all at once."""

import pytest
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, changes, tokens, users
from tollway.gateway.store.names import meant_by
from tollway.gateway.store.records import Role, TokenStatus

pytestmark = pytest.mark.anyio


async def test_a_text_means_the_rows_of_that_name_and_the_row_of_that_id(store: Store, vault: Vault) -> None:
    await users.create(store, username="ada", now_ms=1)
    for name in ("ci", "ci", "1", "laptop"):
        await tokens.create(store, vault, user_id=1, name=name, now_ms=1)
    found = {text: await meant_by(store, "token", text) for text in ("ci", "1", "4", "5", "", "CI", "\u0661", "9" * 99)}
    assert found == {"ci": (1, 2), "1": (1, 3), "4": (4,), "5": (), "": (), "CI": (), "\u0661": (), "9" * 99: ()}
    await tokens.delete(store, 1, now_ms=2)
    assert await meant_by(store, "token", "ci") == (2,)
    assert await meant_by(store, "user", "ada") == (1,)
    assert await meant_by(store, "channel", "1") == ()


async def test_a_user_is_changed_in_one_step(store: Store) -> None:
    await users.create(store, username="ada", group="vip", password_hash="$x", now_ms=1)
    assert await users.update_user(store, 1, role=Role.ADMIN, password_hash="$y", now_ms=2)
    user = await users.by_id(store, 1)
    assert user is not None
    assert (user.group, user.role, user.password_hash) == ("vip", Role.ADMIN, "$y")
    assert [change.ref for change in await changes.since(store, 0)] == [1, 1]
    assert not await users.update_user(store, 9, group="vip", now_ms=3)


async def test_a_token_is_changed_in_one_step(store: Store, vault: Vault) -> None:
    await users.create(store, username="ada", now_ms=1)
    await tokens.create(store, vault, user_id=1, name="ci", models=("a",), allow_ips=("::1",), now_ms=1)
    given = tokens.TokenChanges(models=None, allow_ips=("10.0.0.0/8",), status=TokenStatus.DISABLED, remain_quota=7)
    assert await tokens.update_token(store, 1, given, now_ms=2)
    (token,) = await tokens.by_ids(store, [1])
    assert (token.name, token.models, token.allow_ips) == ("ci", None, ("10.0.0.0/8",))
    assert (token.status, token.remain_quota) == (TokenStatus.DISABLED, 7)
    assert [change.kind for change in await changes.since(store, 0)] == ["user", "token", "token"]
    assert not await tokens.update_token(store, 9, given, now_ms=3)
