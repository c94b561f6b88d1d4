"""Changing CRYPTO_SECRET in the database: nothing that was written before is lost, on every engine."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import DataDir, DataDirError, open_data_dir
from tollway.gateway.rotation import Rotated, rotate
from tollway.gateway.secrets_at_rest import CannotDecrypt, Vault
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import changes, channels, options, schema, secret_mark, tokens, users

pytestmark = pytest.mark.anyio

OLD, NEW, NEXT = Secret("the first secret ever"), Secret("the second secret now"), Secret("a third one, later on")
UPSTREAM_KEY = Secret("sk-of-the-upstream")
CHANNEL = Channel(0, "c", ChannelType.OPENAI, ("m",), keys=(UPSTREAM_KEY,))

SettingsUnder = Callable[..., Settings]


@pytest.fixture
def under(empty_database_url: str, tmp_path: Path) -> SettingsUnder:
    """`under(NEW, OLD)`: settings with this secret and these former ones, on the test's database."""
    return lambda secret, *former: Settings(
        data_dir=tmp_path / "data",
        database_url=empty_database_url,
        crypto_secret=secret,
        crypto_secret_former=former,
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[DataDir]:
    found = await open_data_dir(settings)
    try:
        yield found
    finally:
        await found.store.close()


async def set_up(settings: Settings, count: int = 3) -> str:
    """A user with a key, which is returned, and some channels."""
    async with opened(settings) as found:
        user_id = await users.create(found.store, username="ann", now_ms=1)
        for _ in range(count):
            await channels.create(found.store, found.vault, CHANNEL, now_ms=1)
        _, key = await tokens.create(found.store, found.vault, user_id=user_id, now_ms=1)
    return key.reveal()


async def rotated(settings: Settings) -> Rotated:
    async with opened(settings) as found:
        return await rotate(found, settings, now_ms=2)


async def snapshot_of(found: DataDir) -> Snapshot:
    snapshot = Snapshot(found.store, found.vault, defaults=Options())
    await snapshot.load()
    return snapshot


def upstream_keys(snapshot: Snapshot) -> list[Secret]:
    return [key for channel in snapshot.pool.index.channels for key in channel.keys]


async def assert_all_is_known(settings: Settings, *keys: str, count: int = 3) -> None:
    async with opened(settings) as found:
        snapshot = await snapshot_of(found)
        assert upstream_keys(snapshot) == [UPSTREAM_KEY] * count
        assert all(snapshot.tokens.find(key) for key in keys)
        assert snapshot.tokens.find("sk-" + "x" * 48) is None


async def everything(settings: Settings) -> list[object]:
    """What the database holds that has to do with secrets, as it is stored."""
    async with opened(settings) as found:
        rows = await found.store.all(select(schema.channels.c.keys_encrypted).order_by(schema.channels.c.id))
        hashes = await found.store.all(select(schema.tokens.c.key_hash).order_by(schema.tokens.c.id))
        return [*rows, *hashes, await secret_mark.read(found.store), await changes.latest(found.store)]


async def test_with_both_secrets_everything_of_the_former_one_is_known(under: SettingsUnder) -> None:
    key = await set_up(under(OLD))
    await assert_all_is_known(under(NEW, OLD), key)
    await assert_all_is_known(under(NEW, NEXT, OLD), key)


async def test_a_key_that_is_made_with_both_is_known_to_those_who_have_the_former_one(under: SettingsUnder) -> None:
    """Nodes are started anew one after the other."""
    first = await set_up(under(OLD))
    async with opened(under(NEW, OLD)) as found:
        _, made = await tokens.create(found.store, found.vault, user_id=1, now_ms=1)
    await assert_all_is_known(under(OLD), first, made.reveal())


async def test_after_it_the_new_secret_alone_opens_everything(under: SettingsUnder) -> None:
    key = await set_up(under(OLD))
    assert await rotated(under(NEW, OLD)) == Rotated(channels=3, changed=True)
    await assert_all_is_known(under(NEW), key)
    await assert_all_is_known(under(NEW, OLD), key)
    async with opened(under(NEW)) as found:
        await channels.create(found.store, found.vault, CHANNEL, now_ms=3)
        _, made = await tokens.create(found.store, found.vault, user_id=1, now_ms=3)
    await assert_all_is_known(under(NEW), key, made.reveal(), count=4)


async def test_a_start_with_the_former_secret_alone_is_refused_from_then_on(under: SettingsUnder) -> None:
    await set_up(under(OLD))
    await rotated(under(NEW, OLD))
    with pytest.raises(DataDirError, match=r"^CRYPTO_SECRET is not the one under which the database's keys are stored"):
        await open_data_dir(under(OLD))


async def test_the_secret_changes_again_and_again_and_back(under: SettingsUnder) -> None:
    key = await set_up(under(OLD))
    for now, before in ((NEW, OLD), (NEXT, NEW), (OLD, NEXT)):
        assert (await rotated(under(now, before))).channels == 3
        await assert_all_is_known(under(now), key)


async def test_a_second_time_there_is_nothing_to_do(under: SettingsUnder) -> None:
    await set_up(under(OLD))
    assert await rotated(under(OLD)) == Rotated(channels=0, changed=False)
    await rotated(under(NEW, OLD))
    before = await everything(under(NEW))
    assert await rotated(under(NEW, OLD)) == Rotated(channels=0, changed=False)
    assert await rotated(under(NEW)) == Rotated(channels=0, changed=False)
    assert await everything(under(NEW)) == before


async def test_a_database_without_channels_takes_the_mark_of_the_new_one(under: SettingsUnder) -> None:
    key = await set_up(under(OLD), count=0)
    assert await rotated(under(NEW, OLD)) == Rotated(channels=0, changed=True)
    await assert_all_is_known(under(NEW), key, count=0)


async def test_neither_secret_is_the_databases(under: SettingsUnder) -> None:
    await set_up(under(OLD))
    with pytest.raises(DataDirError, match="the database's keys are stored, nor is CRYPTO_SECRET_FORMER: set it to"):
        await open_data_dir(under(NEW, NEXT))
    assert (await everything(under(OLD)))[-2] == Vault(OLD).mark


async def test_a_channel_that_opens_with_none_of_them_stops_it_before_anything_is_changed(
    under: SettingsUnder,
) -> None:
    await set_up(under(OLD))
    foreign = Vault(NEXT).encrypt("[]", "channel:3")
    async with opened(under(OLD)) as found:
        where = update(schema.channels).where(schema.channels.c.id == 3)
        await found.store.change(where.values(keys_encrypted=foreign))
    before = await everything(under(OLD))
    with pytest.raises(CannotDecrypt, match="the secret of channel:3 was encrypted under another CRYPTO_SECRET"):
        await rotated(under(NEW, OLD))
    assert await everything(under(OLD)) == before
    assert (await rotated(under(NEW, OLD, NEXT))).channels == 3


async def test_what_fails_half_way_changes_nothing(under: SettingsUnder, monkeypatch: pytest.MonkeyPatch) -> None:
    await set_up(under(OLD))
    before = await everything(under(OLD))

    async def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(secret_mark, "replace", fail)
    with pytest.raises(KeyError):
        await rotated(under(NEW, OLD))
    assert await everything(under(OLD)) == before


async def test_a_server_that_has_both_goes_on_and_sees_what_is_written_afterwards(under: SettingsUnder) -> None:
    key = await set_up(under(OLD))
    async with opened(under(NEW, OLD)) as server:
        snapshot = await snapshot_of(server)
        await rotated(under(NEW, OLD))
        await snapshot.poll()
        assert upstream_keys(snapshot) == [UPSTREAM_KEY] * 3
        async with opened(under(NEW)) as found:
            fresh = replace(CHANNEL, keys=(Secret("sk-another"),))
            await channels.update(found.store, found.vault, 1, lambda _: fresh, now_ms=3)
            _, made = await tokens.create(found.store, found.vault, user_id=1, now_ms=3)
        await snapshot.poll()
        assert upstream_keys(snapshot) == [Secret("sk-another"), UPSTREAM_KEY, UPSTREAM_KEY]
        assert snapshot.tokens.find(key)
        assert snapshot.tokens.find(made.reveal())


async def test_a_server_that_has_the_former_alone_says_so_and_does_not_fall(
    under: SettingsUnder, caplog: pytest.LogCaptureFixture
) -> None:
    key = await set_up(under(OLD))
    async with opened(under(OLD)) as server:
        snapshot = await snapshot_of(server)
        await rotated(under(NEW, OLD))
        await snapshot.poll()
        assert upstream_keys(snapshot) == []
        assert snapshot.tokens.find(key)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 3
    assert said[0].startswith(
        "channel 1 is left out: the secret of channel:1 was encrypted under another CRYPTO_SECRET"
    )
    assert said[0].endswith("CRYPTO_SECRET or CRYPTO_SECRET_FORMER must name that one")


async def test_who_opened_the_database_before_writes_nothing_that_the_new_secret_does_not_open(
    under: SettingsUnder,
) -> None:
    key = await set_up(under(OLD))
    async with opened(under(OLD)) as late:
        await rotated(under(NEW, OLD))
        with pytest.raises(CannotDecrypt, match="changed meanwhile"):
            await channels.create(late.store, late.vault, CHANNEL, now_ms=3)
        with pytest.raises(CannotDecrypt, match="under another CRYPTO_SECRET"):
            await channels.update(late.store, late.vault, 1, lambda channel: channel, now_ms=3)
        _, made = await tokens.create(late.store, late.vault, user_id=1, now_ms=3)
    await assert_all_is_known(under(NEW), key, made.reveal())


@pytest.mark.parametrize("count", [0, 3])
async def test_of_two_new_secrets_at_once_one_wins(count: int, under: SettingsUnder) -> None:
    key = await set_up(under(OLD), count)
    async with opened(under(NEXT, OLD)) as late:
        await rotated(under(NEW, OLD))
        with pytest.raises(CannotDecrypt):
            await rotate(late, under(NEXT, OLD), now_ms=3)
    await assert_all_is_known(under(NEW), key, count=count)


async def test_of_channels_that_are_made_meanwhile_each_opens_afterwards_or_was_refused(under: SettingsUnder) -> None:
    await set_up(under(OLD))
    async with opened(under(OLD)) as late, opened(under(NEW, OLD)) as found:

        async def create(delay_s: float) -> bool:
            await asyncio.sleep(delay_s)
            try:
                await channels.create(late.store, late.vault, CHANNEL, now_ms=2)
            except CannotDecrypt:
                return False
            return True

        creating = [asyncio.create_task(create(number / 500)) for number in range(40)]
        await asyncio.sleep(0.02)
        await rotate(found, under(NEW, OLD), now_ms=2)
        created = sum(await asyncio.gather(*creating))
    await assert_all_is_known(under(NEW), count=3 + created)


async def test_a_database_of_before_marks_is_judged_by_its_channels(under: SettingsUnder) -> None:
    key = await set_up(under(OLD))
    async with opened(under(OLD)) as found:
        await options.unset(found.store, secret_mark.NAME, now_ms=1)
    await assert_all_is_known(under(NEW, OLD), key)
    await rotated(under(NEW, OLD))
    await assert_all_is_known(under(NEW), key)
