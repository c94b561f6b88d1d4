import asyncio

import pytest
from tollway.gateway.store import Conflict, Store, changes, users
from tollway.gateway.store.records import Role, UserStatus

pytestmark = pytest.mark.anyio


async def test_a_user_is_found_as_created(store: Store) -> None:
    user_id = await users.create(store, username="ada", password_hash="$x", role=Role.ROOT, quota=5, now_ms=10)
    user = await users.by_id(store, user_id)
    assert user is not None
    assert (user.username, user.display_name, user.role, user.status) == ("ada", "ada", Role.ROOT, UserStatus.ENABLED)
    assert (user.group, user.quota, user.used_quota, user.created_at) == ("default", 5, 0, 10)
    assert await users.by_name(store, "ada") == user
    assert await users.by_ids(store, [user_id, 99]) == (user,)


async def test_a_password_hash_is_not_printed(store: Store) -> None:
    await users.create(store, username="ada", password_hash="$argon2id$secret", now_ms=1)
    assert "secret" not in repr(await users.list_all(store))


async def test_a_name_is_given_once(store: Store) -> None:
    await users.create(store, username="ada", now_ms=1)
    with pytest.raises(Conflict):
        await users.create(store, username="ada", now_ms=1)
    assert len(await changes.since(store, 0)) == 1


async def test_users_are_listed_oldest_first(store: Store) -> None:
    for name in "abcde":
        await users.create(store, username=name, now_ms=1)
    assert [user.username for user in await users.list_all(store)] == ["a", "b", "c", "d", "e"]


async def test_quota_is_added_and_taken_at_once_by_many(store: Store) -> None:
    user_id = await users.create(store, username="ada", quota=100, now_ms=1)
    left = await asyncio.gather(*(users.add_quota(store, user_id, -1, now_ms=2) for _ in range(50)))
    assert sorted(value for value in left if value is not None) == list(range(50, 100))
    assert await users.add_quota(store, 99, 1, now_ms=2) is None


async def test_changes_to_a_user_are_seen_and_noted(store: Store) -> None:
    user_id = await users.create(store, username="ada", now_ms=1)
    assert await users.set_status(store, user_id, UserStatus.DISABLED, now_ms=2)
    assert await users.update_user(store, user_id, group="vip", now_ms=3)
    assert await users.set_password_hash(store, user_id, "$new", now_ms=4)
    user = await users.by_id(store, user_id)
    assert user is not None
    assert (user.status, user.group, user.password_hash) == (UserStatus.DISABLED, "vip", "$new")
    noted = [(change.kind, change.ref, change.created_at) for change in await changes.since(store, 0)]
    assert noted == [("user", user_id, at) for at in (1, 2, 3, 4)]


async def test_a_deleted_user_is_gone_and_the_number_is_not_used_again(store: Store) -> None:
    user_id = await users.create(store, username="ada", now_ms=1)
    assert await users.delete(store, user_id, now_ms=2)
    assert await users.by_id(store, user_id) is None
    assert await users.by_name(store, "ada") is None
    assert await users.list_all(store) == ()
    assert not await users.delete(store, user_id, now_ms=3)
    assert not await users.set_status(store, user_id, UserStatus.ENABLED, now_ms=3)
    assert await users.create(store, username="bob", now_ms=4) > user_id
