"""A key that its upstream refuses for good is disabled once, however many requests were on their way with it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import channels
from tollway.middleware.state import Candidate

pytestmark = pytest.mark.anyio


@pytest.fixture
async def snapshot(tmp_path: Path) -> AsyncGenerator[Snapshot]:
    """Of one channel with two keys."""
    opened = await open_data_dir(Settings(data_dir=tmp_path))
    keys = (Secret("sk-1"), Secret("sk-2"))
    channel = Channel(id=0, name="openai", type=ChannelType.OPENAI, models=("m",), keys=keys)
    await channels.create(opened.store, opened.vault, channel, now_ms=1)
    snapshot = Snapshot(opened.store, opened.vault, defaults=Options())
    await snapshot.load()
    yield snapshot
    await opened.store.close()


async def refuse(snapshot: Snapshot, *candidates: Candidate) -> None:
    """As many requests find out at once, and what follows from that is done."""
    for candidate in candidates:
        snapshot._on_dead_key(candidate, "the upstream refused the key with status 401")
    await asyncio.gather(*snapshot._tasks)


async def stored(snapshot: Snapshot) -> Channel:
    channel = await channels.get(snapshot.store, snapshot.vault, 1)
    assert channel is not None
    return channel


async def test_many_requests_disable_a_key_once(snapshot: Snapshot, caplog: pytest.LogCaptureFixture) -> None:
    (channel,) = snapshot.pool.index.channels
    with caplog.at_level(logging.WARNING, "tollway.snapshot"):
        await refuse(snapshot, *[Candidate(channel, 1)] * 5)
        await refuse(snapshot, Candidate(channel, 1))
        await snapshot.poll()
        await refuse(snapshot, Candidate(channel, 1))
    assert [record.message for record in caplog.records] == [
        "channel 1 (openai): key 1 is disabled: the upstream refused the key with status 401"
    ]
    assert (await stored(snapshot)).disabled_keys == {1}


async def test_a_key_that_is_enabled_again_stays_so_whatever_was_on_its_way(snapshot: Snapshot) -> None:
    (before,) = snapshot.pool.index.channels
    await refuse(snapshot, Candidate(before, 1))
    await snapshot.poll()
    await channels.update(
        snapshot.store, snapshot.vault, 1, lambda channel: replace(channel, disabled_keys=frozenset()), now_ms=2
    )
    await snapshot.poll()
    await refuse(snapshot, Candidate(before, 1))
    assert (await stored(snapshot)).disabled_keys == frozenset()
    (again,) = snapshot.pool.index.channels
    await refuse(snapshot, Candidate(again, 1))
    assert (await stored(snapshot)).disabled_keys == {1}


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known here yet"])
async def test_a_key_that_was_put_in_its_place_is_left_alone(is_known: bool, snapshot: Snapshot) -> None:
    (channel,) = snapshot.pool.index.channels

    def edit(before: Channel) -> Channel:
        return Channel(id=1, name=before.name, type=before.type, models=before.models, keys=(Secret("sk-new"),))

    await channels.update(snapshot.store, snapshot.vault, 1, edit, now_ms=2)
    if is_known:
        await snapshot.poll()
    await refuse(snapshot, Candidate(channel, 0), Candidate(channel, 1))
    assert (await stored(snapshot)).disabled_keys == frozenset()


async def test_a_channel_that_is_gone_is_not_looked_for(snapshot: Snapshot) -> None:
    (channel,) = snapshot.pool.index.channels
    await channels.delete(snapshot.store, 1, now_ms=2)
    await snapshot.poll()
    await refuse(snapshot, Candidate(channel, 0))
