"""What is SQLite's own: its file, its locks, its thread."""

import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from tollway.config.channel import Channel, ChannelType
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, Unavailable, channels, tokens
from tollway.gateway.store import users as user_rows
from tollway.gateway.store.schema import users

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine_name() -> str:
    return "sqlite"


@pytest.fixture
async def user_id(store: Store) -> int:
    return await user_rows.create(store, username="ada", quota=1000, now_ms=1)


async def add(store: Store, name: str) -> int:
    return await store.insert(insert(users).values(username=name, created_at=1))


async def quota_of(store: Store, user_id: int) -> int:
    row = await store.one(select(users.c.quota).where(users.c.id == user_id))
    assert row is not None
    return row["quota"]


@pytest.fixture
async def impatient(path: Path) -> AsyncGenerator[Store]:
    store = Store(f"sqlite:///{path}?busy_timeout=20")
    await store.connect()
    yield store
    await store.close()


async def test_a_database_locked_for_too_long_is_unavailable_and_recovers(path: Path, impatient: Store) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(10):  # more often than there are connections: a failed BEGIN must give its own back
        with pytest.raises(Unavailable, match="locked"):
            await add(impatient, "a")
    other.execute("ROLLBACK")
    other.close()
    assert await add(impatient, "a") == 1


@pytest.mark.parametrize("content", [b"this is text, and no database" * 100, None], ids=["not a database", "no folder"])
async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "folder" / "tollway.db" if content is None else tmp_path / "tollway.db"
    if content is not None:
        path.write_bytes(content)
    store = Store(str(path))
    with pytest.raises(Unavailable):
        await store.connect()
    await store.close()


async def test_plain_work_is_a_transaction(store: Store, user_id: int) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE users SET quota = 0")
        raise LookupError

    with pytest.raises(LookupError):
        await store.run_plain(work)
    assert await quota_of(store, user_id) == 1000


async def test_what_is_committed_is_synced_and_the_file_is_private(path: Path, store: Store) -> None:
    assert await store.one(text("PRAGMA synchronous")) == {"synchronous": 2}
    assert await store.one(text("PRAGMA journal_mode")) == {"journal_mode": "wal"}
    fresh = Store(str(path.with_name("fresh.db")))
    await fresh.connect()
    assert path.with_name("fresh.db").stat().st_mode & 0o777 == 0o600
    await fresh.close()


async def test_no_secret_is_anywhere_in_the_database_file(store: Store, vault: Vault, user_id: int, path: Path) -> None:
    _, key = await tokens.create(store, vault, user_id=user_id, now_ms=2)
    upstream = Secret("sk-upstream-0123456789")
    channel = Channel(id=0, name="c", type=ChannelType.OPENAI, models=("m",), keys=(upstream,))
    created = await channels.create(store, vault, channel, now_ms=3)
    await channels.disable_key(store, vault, created.id, 0, reason="401", now_ms=4)
    files = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))
    assert b"sk-" + key.reveal()[3:7].encode() in files  # the display prefix: so this is where a key would be
    for secret in (key.reveal(), key.reveal()[3:], key.reveal()[7:-4], upstream.reveal()):
        assert secret.encode() not in files
