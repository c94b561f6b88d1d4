"""Changes told at once, by commands and by servers; and what happens without Redis."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.secret import Secret
from tollway.config.settings import VARIABLES, Settings
from tollway.gateway.__main__ import main
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.redis import Publisher, listen
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import channels
from tollway.middleware.state import Candidate

from .conftest import OwnServer

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _tries_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollway.gateway.redis.changes.TRY_EVERY", 0.1)


@pytest.fixture(autouse=True)
def _patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer than a word is worth waiting for; these tests are about words that arrive."""
    if "hangs" not in request.fixturenames:
        monkeypatch.setattr("tollway.gateway.redis.changes.TIMEOUT", 5.0)
        monkeypatch.setattr("tollway.gateway.redis.client.TIMEOUT", 5.0)


class Looks:
    """Counts how often somebody looked, and can take long or fail."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def look(self) -> None:
        self.count += 1
        await self.free.wait()
        if self.failure is not None:
            raise self.failure

    async def until(self, condition: Callable[[int], bool], within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not condition(self.count):  # noqa: ASYNC110 - a condition may be anything
                await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(url: str) -> AsyncGenerator[Looks]:
    """Somebody who listens, and has looked once."""
    looks = Looks()
    task = asyncio.create_task(listen(Secret(url), looks.look))
    try:
        yield looks
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_word_is_heard_at_once(redis_url: str) -> None:
    async with listening(redis_url) as looks:
        await looks.until(lambda count: count == 1)
        begun = time.monotonic()
        await Publisher(Secret(redis_url)).publish()
        await looks.until(lambda count: count >= 2)
        assert time.monotonic() - begun < 0.4, "polling would do that"


async def test_words_that_come_together_are_one_look(redis_url: str) -> None:
    async with listening(redis_url) as looks:
        await looks.until(lambda count: count == 1)
        looks.free.clear()
        publisher = Publisher(Secret(redis_url))
        for _ in range(20):
            await publisher.publish()
        await looks.until(lambda count: count == 2)
        await asyncio.sleep(0.1)
        looks.free.set()
        await looks.until(lambda count: count == 3)
        await asyncio.sleep(0.1)
        assert looks.count == 3


async def test_a_look_that_fails_does_not_end_the_listening(redis_url: str) -> None:
    async with listening(redis_url) as looks:
        looks.failure = ValueError("a row that nobody understands")
        await looks.until(lambda count: count == 1)
        await Publisher(Secret(redis_url)).publish()
        await looks.until(lambda count: count >= 2)


async def test_what_was_said_while_redis_was_away_is_looked_for_when_it_is_back(server: OwnServer) -> None:
    async with listening(server.url) as looks:
        await looks.until(lambda count: count == 1)
        server.kill()
        await asyncio.sleep(0.2)
        server.start()
        await looks.until(lambda count: count >= 2)
        seen = looks.count
        await Publisher(Secret(server.url)).publish()
        await looks.until(lambda count: count > seen)


async def test_a_redis_that_hangs_is_noticed(server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollway.gateway.redis.changes.SILENCE", 0.2)
    async with listening(server.url) as looks:
        await looks.until(lambda count: count == 1)
        await asyncio.sleep(0.7)
        assert looks.count == 1, "silence alone is no failure"
        server.pause()
        await asyncio.sleep(0.7)
        server.go_on()
        await looks.until(lambda count: count >= 2)


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "is not there"])
async def test_publishing_waits_for_no_redis_that(server: OwnServer, hangs: bool) -> None:
    if hangs:
        server.pause()
    else:
        server.kill()
    begun = time.monotonic()
    await Publisher(Secret(server.url)).publish()
    assert time.monotonic() - begun < 1.5
    server.go_on() if hangs else None


@pytest.fixture
def data_dir(server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_CONN_STRING", server.url)
    return tmp_path


async def run(*argv: str) -> int:
    return await asyncio.to_thread(main, list(argv))


async def test_commands_tell_what_they_have_changed_and_only_that(server: OwnServer, data_dir: Path) -> None:
    assert await run("user", "create", "--username", "alice", "--quota", "5") == 0
    async with listening(server.url) as looks:
        await looks.until(lambda count: count == 1)
        assert await run("user", "list") == 0
        assert await run("user", "create", "--username", "alice", "--quota", "5") != 0
        await asyncio.sleep(0.1)
        assert looks.count == 1
        assert await run("token", "create", "--user", "alice", "--name", "laptop", "--unlimited") == 0
        await looks.until(lambda count: count >= 2)
        seen = looks.count
        assert await run("token", "disable", "laptop") == 0
        await looks.until(lambda count: count > seen)


async def test_commands_work_while_redis_is_away(server: OwnServer, data_dir: Path, capsys: Any) -> None:
    assert await run("db", "upgrade") == 0
    capsys.readouterr()
    server.kill()
    assert await run("user", "create", "--username", "alice", "--quota", "5") == 0
    assert capsys.readouterr().err == ""


@asynccontextmanager
async def following(data_dir: Path, url: str) -> AsyncGenerator[Snapshot]:
    """What a server sees that hears words and does not poll."""
    opened = await open_data_dir(Settings(data_dir=data_dir))
    snapshot = Snapshot(opened.store, opened.vault, defaults=Options())
    snapshot.tell_others = Publisher(Secret(url)).publish
    await snapshot.load()
    task = asyncio.create_task(listen(Secret(url), snapshot.refresh))
    try:
        await asyncio.sleep(0.3)
        yield snapshot
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await opened.store.close()


async def test_a_server_takes_over_what_a_command_has_changed_without_polling(
    server: OwnServer, data_dir: Path, capsys: Any
) -> None:
    assert await run("user", "create", "--username", "alice", "--quota", "5") == 0
    capsys.readouterr()
    async with following(data_dir, server.url) as snapshot:
        assert await run("token", "create", "--user", "alice", "--name", "laptop", "--unlimited", "--json") == 0
        key = json.loads(capsys.readouterr().out)["key"]
        async with asyncio.timeout(5):
            while snapshot.tokens.find(key) is None:  # noqa: ASYNC110 - a key that comes is announced to nobody
                await asyncio.sleep(0.005)


async def test_a_server_tells_the_others_of_a_key_that_it_disabled(server: OwnServer, data_dir: Path) -> None:
    channel = Channel(0, "openai", ChannelType.OPENAI, ("m",), keys=(Secret("sk-1"), Secret("sk-2")))
    async with following(data_dir, server.url) as one, following(data_dir, server.url) as other:
        await channels.create(one.store, one.vault, channel, now_ms=1)
        await asyncio.gather(one.poll(), other.poll())
        (channel,) = one.pool.index.channels
        one._on_dead_key(Candidate(channel, 0), "the upstream refused the key with status 401")
        async with asyncio.timeout(5):
            while not other.pool.index.channels[0].disabled_keys:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
