import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update
from tollway.config.channel import Channel, ChannelStatus, ChannelType
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import CannotDecrypt, Vault
from tollway.gateway.store import Store, Unreadable, changes, channels
from tollway.gateway.store.schema import abilities
from tollway.gateway.store.schema import channels as table

pytestmark = pytest.mark.anyio

FULL = Channel(
    id=0,
    name="primary",
    type=ChannelType.AZURE,
    models=("gpt-4o", "gpt-4o-mini"),
    keys=(Secret("key-one"), Secret("key-two")),
    base_url="https://example.test",
    groups=("default", "vip"),
    priority=10,
    weight=3,
    key_mode="polling",
    disabled_keys=frozenset({1}),
    model_mapping={"gpt-4o": "deployment"},
    status_code_mapping={429: 503},
    header_override={"x-team": "a"},
    param_override={"temperature": 0.5, "nested": {"a": [1, None]}},
    disconnect="drain",
    auto_ban=False,
    api_version="2026-01-01",
    organization="org",
    test_model="gpt-4o-mini",
    proxy="socks5://127.0.0.1:1",
    tag="eu",
)


async def create(store: Store, vault: Vault, **fields: object) -> Channel:
    return await channels.create(store, vault, replace(FULL, disabled_keys=frozenset(), **fields), now_ms=1)


async def abilities_of(store: Store) -> list[tuple[str, str, bool, int, int]]:
    rows = await store.all(select(abilities).order_by(abilities.c.group, abilities.c.model))
    return [(row["group"], row["model"], row["enabled"], row["priority"], row["weight"]) for row in rows]


async def test_a_channel_comes_back_as_it_went_in(store: Store, vault: Vault) -> None:
    created = await channels.create(store, vault, FULL, now_ms=1)
    assert created == replace(FULL, id=created.id)
    assert await channels.get(store, vault, created.id) == created
    assert await channels.list_all(store, vault) == (created,)
    assert await channels.get(store, vault, 99) is None


async def test_abilities_follow_their_channel(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    assert await abilities_of(store) == [
        ("default", "gpt-4o", True, 10, 3),
        ("default", "gpt-4o-mini", True, 10, 3),
        ("vip", "gpt-4o", True, 10, 3),
        ("vip", "gpt-4o-mini", True, 10, 3),
    ]
    await channels.update(store, vault, channel.id, lambda now: replace(now, models=("o9",), weight=0), now_ms=2)
    assert await abilities_of(store) == [("default", "o9", True, 10, 0), ("vip", "o9", True, 10, 0)]
    await channels.set_status(store, channel.id, ChannelStatus.DISABLED, now_ms=3)
    assert {row[2] for row in await abilities_of(store)} == {False}
    assert await channels.delete(store, channel.id, now_ms=4)
    assert await abilities_of(store) == []
    assert not await channels.delete(store, channel.id, now_ms=5)


async def test_a_name_that_is_listed_twice_is_one_ability(store: Store, vault: Vault) -> None:
    await create(store, vault, models=("m", "m"), groups=("g", "g"))
    assert len(await abilities_of(store)) == 1


async def test_groups_are_served_by_channels(store: Store, vault: Vault) -> None:
    assert await channels.is_served(store, "default"), "there is no channel at all"
    channel = await create(store, vault)
    assert [await channels.is_served(store, group) for group in ("default", "vip", "stuff")] == [True, True, False]
    await channels.set_status(store, channel.id, ChannelStatus.DISABLED, now_ms=2)
    assert await channels.is_served(store, "vip")


async def test_an_edit_changes_what_it_names_and_nothing_else(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    edits = [
        lambda now: replace(now, name="renamed"),
        lambda now: replace(now, priority=now.priority + 1),
        lambda now: replace(now, keys=(*now.keys, Secret("key-three"))),
    ]
    await asyncio.gather(*(channels.update(store, vault, channel.id, edit, now_ms=2) for edit in edits))
    expected = replace(channel, name="renamed", priority=11, keys=(*channel.keys, Secret("key-three")))
    assert await channels.get(store, vault, channel.id) == expected
    assert await channels.update(store, vault, 99, lambda now: now, now_ms=2) is None


async def test_of_many_who_disable_one_was_first(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    switch = [
        channels.set_status(store, channel.id, ChannelStatus.AUTO_DISABLED, reason=f"saw 401, {i}", now_ms=5 + i)
        for i in range(5)
    ]
    was_first = await asyncio.gather(*switch)
    assert sum(was_first) == 1
    first = was_first.index(True)  # on a server any of them may be
    state = (await channels.states(store))[channel.id]
    assert (state.status_reason, state.status_at) == (f"saw 401, {first}", 5 + first)
    after = await channels.get(store, vault, channel.id)
    assert after is not None
    assert after.status == ChannelStatus.AUTO_DISABLED


async def test_the_last_key_takes_the_channel_with_it(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    first = await channels.disable_key(store, vault, channel.id, 1, reason="revoked", now_ms=2)
    assert first is not None
    assert (first.disabled_keys, first.status) == (frozenset({1}), ChannelStatus.ENABLED)
    assert await channels.disable_key(store, vault, channel.id, 1, reason="again", now_ms=3) is None
    assert await channels.disable_key(store, vault, channel.id, 2, reason="no such key", now_ms=3) is None
    assert await channels.disable_key(store, vault, 99, 0, reason="no such channel", now_ms=3) is None
    last = await channels.disable_key(store, vault, channel.id, 0, reason="out of credit", now_ms=4)
    assert last == await channels.get(store, vault, channel.id)
    assert last is not None
    assert last.status == ChannelStatus.AUTO_DISABLED
    assert {row[2] for row in await abilities_of(store)} == {False}
    state = (await channels.states(store, [channel.id]))[channel.id]
    assert (state.disabled_keys, state.status_reason) == ({0: "out of credit", 1: "revoked"}, "out of credit")


async def test_enabling_a_key_again_keeps_the_reasons_of_the_others(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    for index in (0, 1):
        await channels.disable_key(store, vault, channel.id, index, reason=f"reason {index}", now_ms=2)
    await channels.update(store, vault, channel.id, lambda now: replace(now, disabled_keys=frozenset({1})), now_ms=3)
    assert (await channels.states(store))[channel.id].disabled_keys == {1: "reason 1"}


async def test_a_test_is_recorded(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    assert await channels.record_test(store, channel.id, response_ms=321, now_ms=9)
    state = (await channels.states(store))[channel.id]
    assert (state.tested_at, state.response_ms, state.used_quota, state.created_at) == (9, 321, 0, 1)
    assert not await channels.record_test(store, 99, response_ms=None, now_ms=9)


async def test_every_write_is_noted(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    await channels.update(store, vault, channel.id, lambda now: now, now_ms=2)
    await channels.set_status(store, channel.id, ChannelStatus.DISABLED, now_ms=3)
    await channels.disable_key(store, vault, channel.id, 0, reason="", now_ms=4)
    await channels.record_test(store, channel.id, response_ms=1, now_ms=5)
    await channels.delete(store, channel.id, now_ms=6)
    noted = [(change.kind, change.ref, change.created_at) for change in await changes.since(store, 0)]
    assert noted == [("channel", channel.id, at) for at in range(1, 7)]


async def test_a_key_that_was_moved_to_another_row_does_not_open(store: Store, vault: Vault) -> None:
    mine, other = await create(store, vault), await create(store, vault, keys=(Secret("other"),))
    row = await store.one(select(table.c.keys_encrypted).where(table.c.id == mine.id))
    assert row is not None
    await store.change(update(table).where(table.c.id == other.id).values(keys_encrypted=row["keys_encrypted"]))
    with pytest.raises(CannotDecrypt, match=f"channel:{other.id} was altered, or belongs to another record"):
        await channels.list_all(store, vault)
    locked: list[int] = []
    rest = await channels.list_all(store, vault, on_locked=lambda channel_id, _: locked.append(channel_id))
    assert (rest, locked) == ((mine,), [other.id])


@pytest.mark.parametrize("column", ["type", "status"])
async def test_a_channel_of_a_newer_version_is_left_out(column: str, store: Store, vault: Vault) -> None:
    mine, newer = await create(store, vault), await create(store, vault)
    await store.change(update(table).where(table.c.id == newer.id).values({column: 9999}))
    with pytest.raises(Unreadable, match="9999"):
        await channels.get(store, vault, newer.id)
    left_out: list[int] = []
    rest = await channels.list_all(store, vault, on_locked=lambda channel_id, _: left_out.append(channel_id))
    assert (rest, left_out) == ((mine,), [newer.id])


async def test_a_save_under_a_new_secret_encrypts_again(store: Store, vault: Vault) -> None:
    channel = await create(store, vault)
    fresh = Secret("a new secret, later")
    both = Vault(fresh, former=[Secret("the secret of these tests")])
    assert await channels.get(store, both, channel.id) == channel
    await channels.update(store, both, channel.id, lambda now: now, now_ms=2)
    assert await channels.get(store, Vault(fresh), channel.id) == channel
