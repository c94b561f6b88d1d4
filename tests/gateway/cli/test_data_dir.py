"""The data directory: private, made once, and never under a second secret."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from tollway.config.channel import Channel, ChannelType
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import DataDirError, open_data_dir
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import channels, migrate, options, secret_mark, tokens, users

pytestmark = pytest.mark.anyio

STARTS_AT_ONCE = 4
OPEN = """
import asyncio, sys
from pathlib import Path
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_data_dir

async def main():
    opened = await open_data_dir(Settings(data_dir=Path(sys.argv[1]), database_url=sys.argv[2]))
    print(opened.vault.token_hash("sk-same"))
    await opened.store.close()

asyncio.run(main())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def settings(made: Path, tmp_path: Path) -> Settings:
    return Settings(data_dir=Path(shutil.copytree(made, tmp_path / "data")))


async def hash_under(settings: Settings) -> str:
    opened = await open_data_dir(settings)
    await opened.store.close()
    return opened.vault.token_hash("sk-same")


async def write_a_token(settings: Settings) -> None:
    opened = await open_data_dir(settings)
    user_id = await users.create(opened.store, username="ann", now_ms=1)
    await tokens.create(opened.store, opened.vault, user_id=user_id, now_ms=1)
    await opened.store.close()


def test_what_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "data"
    asyncio.run(hash_under(Settings(data_dir=folder)))
    assert mode(folder) == 0o700
    files = {path.name: mode(path) for path in folder.iterdir()}
    assert files.keys() >= {"crypto_secret", "tollway.db"}
    assert set(files.values()) == {0o600}


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "data"), ""]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(STARTS_AT_ONCE)]
    printed = {process.communicate(timeout=50)[0] for process in started}
    assert [process.returncode for process in started] == [0] * STARTS_AT_ONCE
    assert len(printed) == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if "secret" in path.name) == ["crypto_secret"]


def old_database(path: Path) -> None:
    """A database as the first version made it."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, migrate.REVISIONS[0])
    engine.dispose()


async def test_a_schema_that_is_brought_up_to_date_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Any command does it, also one that only shows something, and the older version starts no more."""
    settings = Settings(data_dir=tmp_path)
    old_database(tmp_path / "tollway.db")
    await hash_under(settings)
    await hash_under(settings)
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path}/tollway.db had schema 0001 and has {migrate.HEAD} now")


async def test_a_new_schema_is_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await hash_under(Settings(data_dir=tmp_path))
    assert caplog.messages == []


async def test_a_file_that_is_another_users_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do everything
    with pytest.raises(DataDirError, match=r"data/tollway\.db cannot be read and written by this user"):
        await hash_under(settings)


async def test_the_secret_outlives_the_process(settings: Settings) -> None:
    assert await hash_under(settings) == await hash_under(settings)


async def test_a_secret_that_is_set_is_not_written_down(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path / "data", crypto_secret=Secret("a secret from outside"))
    await hash_under(given)
    assert not (given.data_dir / "crypto_secret").exists()


async def test_two_secrets_that_differ_are_refused(settings: Settings) -> None:
    with pytest.raises(DataDirError, match="differs from the one in"):
        await open_data_dir(replace(settings, crypto_secret=Secret("a secret from outside")))


async def test_the_same_secret_twice_is_accepted(settings: Settings) -> None:
    kept = (settings.data_dir / "crypto_secret").read_text().strip()
    assert await hash_under(replace(settings, crypto_secret=Secret(kept))) == await hash_under(settings)


async def test_no_second_secret_is_made_beside_keys_that_were_written_under_a_first(settings: Settings) -> None:
    await write_a_token(settings)
    (settings.data_dir / "crypto_secret").unlink()
    with pytest.raises(DataDirError, match="CRYPTO_SECRET is not set"):
        await open_data_dir(settings)
    assert not (settings.data_dir / "crypto_secret").exists()


async def test_nor_beside_a_database_that_has_had_another_node(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    await hash_under(Settings(data_dir=tmp_path / "first", database_url=url))
    with pytest.raises(DataDirError, match="CRYPTO_SECRET is not set"):
        await open_data_dir(Settings(data_dir=tmp_path / "second", database_url=url))
    assert not (tmp_path / "second" / "crypto_secret").exists()


async def test_another_secret_than_the_databases_is_refused_before_a_key_is_made(
    empty_database_url: str, tmp_path: Path
) -> None:
    first = Settings(
        data_dir=tmp_path / "first", database_url=empty_database_url, crypto_secret=Secret("the secret of all nodes")
    )
    await hash_under(first)
    with pytest.raises(DataDirError, match=r"^CRYPTO_SECRET is not the one under which"):
        await open_data_dir(replace(first, data_dir=tmp_path / "second", crypto_secret=Secret("that of one of them")))
    await hash_under(replace(first, data_dir=tmp_path / "third"))


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb-local"], indirect=True)
def test_of_nodes_that_start_at_once_with_secrets_of_their_own_one_serves(
    empty_database_url: str, tmp_path: Path
) -> None:
    commands = [[sys.executable, "-c", OPEN, str(tmp_path / str(i)), empty_database_url] for i in range(2)]
    started = [subprocess.Popen(each, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in commands]
    said = {process.communicate(timeout=50)[1]: process.returncode for process in started}
    assert sorted(process.returncode for process in started) == [0, 1]
    assert all("DataDirError: CRYPTO_SECRET is not set" in error for error, status in said.items() if status)


async def test_a_database_without_a_fingerprint_is_judged_by_its_channels_keys(settings: Settings) -> None:
    opened = await open_data_dir(settings)
    channel = Channel(0, "c", ChannelType.OPENAI, ("m",), keys=(Secret("sk-upstream"),))
    await channels.create(opened.store, opened.vault, channel, now_ms=1)
    await options.unset(opened.store, secret_mark.NAME, now_ms=1)
    await opened.store.close()
    (settings.data_dir / "crypto_secret").rename(kept := settings.data_dir / "kept")
    with pytest.raises(DataDirError, match="CRYPTO_SECRET is not the one"):
        await open_data_dir(replace(settings, crypto_secret=Secret("a secret from outside")))
    right = replace(settings, crypto_secret=Secret(kept.read_text().strip()))
    opened = await open_data_dir(right)
    mark = await secret_mark.read(opened.store)
    await opened.store.close()
    assert mark == Vault(right.crypto_secret).mark


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40], ids=["empty", "cut short", "no text"])
async def test_a_damaged_secret_is_named_and_not_replaced(content: bytes, settings: Settings) -> None:
    path = settings.data_dir / "crypto_secret"
    path.write_bytes(content)
    with pytest.raises(DataDirError, match="crypto_secret"):
        await open_data_dir(settings)
    assert path.read_bytes() == content
