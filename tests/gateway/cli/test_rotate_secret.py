"""`tollway db rotate-secret`, and the secret that is kept in the data directory: no moment to be killed at loses it."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.secret import Secret
from tollway.gateway.data_dir import DataDir
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.snapshot import Snapshot
from tollway.gateway.store import channels, secret_mark, tokens, users

from .conftest import Ended, Tollway

NEW, NEXT = "the new secret of these tests", "and one that comes after it"
UPSTREAM_KEY = Secret("sk-of-the-upstream")

InStore = Callable[..., Any]
Set = Callable[..., None]


class Killed(BaseException):
    """What `kill -9` is, as far as it can be had within a process: nothing that follows is done."""


@pytest.fixture
def kept(data_dir: Path) -> Path:
    return data_dir / "crypto_secret"


@pytest.fixture
def key(in_store: InStore) -> str:
    """That of a user, beside a channel."""

    async def work(opened: DataDir) -> str:
        user_id = await users.create(opened.store, username="ann", now_ms=1)
        channel = Channel(0, "c", ChannelType.OPENAI, ("m",), keys=(UPSTREAM_KEY,))
        await channels.create(opened.store, opened.vault, channel, now_ms=1)
        _, made = await tokens.create(opened.store, opened.vault, user_id=user_id, now_ms=1)
        return made.reveal()

    return in_store(work)


@pytest.fixture
def secrets_are(monkeypatch: pytest.MonkeyPatch) -> Set:
    """`secrets_are(CRYPTO_SECRET="...")`: these and no others."""

    def put(**values: str) -> None:
        for name in ("CRYPTO_SECRET", "CRYPTO_SECRET_FORMER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def assert_known(in_store: InStore, key: str) -> Callable[[], None]:
    """That whoever starts with no more than the data directory knows everything."""

    async def work(opened: DataDir) -> None:
        snapshot = Snapshot(opened.store, opened.vault, defaults=Options())
        await snapshot.load()
        assert [channel.keys for channel in snapshot.pool.index.channels] == [(UPSTREAM_KEY,)]
        assert snapshot.tokens.find(key)

    return lambda: in_store(work)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_refused(ended: Ended, *says: str) -> None:
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert all(each in ended.err for each in says), ended.err


def test_the_file_has_the_new_secret_and_no_variable_is_needed_any_more(
    kept: Path, secrets_are: Set, tollway: Tollway, assert_known: Callable[[], None]
) -> None:
    old = kept.read_text().strip()
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=old)
    ended = tollway("db", "rotate-secret")
    assert ended.status == 0
    assert ended.out.endswith(
        "tollway.db is under the current CRYPTO_SECRET now, 1 channel was encrypted anew: "
        "CRYPTO_SECRET_FORMER may be taken away.\n"
    )
    assert (kept.read_text(), mode(kept)) == (f"{NEW}\n", 0o600)
    assert [path.name for path in kept.parent.glob("crypto_secret*")] == ["crypto_secret"]
    again = tollway("db", "rotate-secret")
    assert again.out.startswith("Nothing to do: ")
    for variables in ({"CRYPTO_SECRET": NEW}, {}):
        secrets_are(**variables)
        assert tollway("channel", "list").status == 0
    assert_known()
    secrets_are(CRYPTO_SECRET=old)
    assert_refused(tollway("channel", "list"), "CRYPTO_SECRET is set and differs from the one in")


def test_the_document_says_what_was_done(kept: Path, key: str, secrets_are: Set, done: Callable[..., Any]) -> None:
    database = str(kept.with_name("tollway.db"))
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=kept.read_text())
    assert done("db", "rotate-secret") == {"database": database, "changed": True, "channels": 1}
    assert done("db", "rotate-secret") == {"database": database, "changed": False, "channels": 0}


def test_without_a_new_secret_there_is_nothing_to_do(kept: Path, tollway: Tollway) -> None:
    before = kept.read_bytes()
    assert tollway("db", "rotate-secret").out.startswith("Nothing to do: ")
    assert kept.read_bytes() == before


def test_servers_start_with_both_before_it(kept: Path, key: str, secrets_are: Set, tollway: Tollway) -> None:
    before = kept.read_bytes()
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=f"{NEXT}, {kept.read_text()}")
    assert tollway("channel", "list").status == 0
    assert kept.read_bytes() == before, "only the command changes what is kept"


@pytest.mark.parametrize("former", [NEXT, ""])
def test_secrets_of_which_none_is_the_databases_are_refused(
    former: str, kept: Path, secrets_are: Set, tollway: Tollway, assert_known: Callable[[], None]
) -> None:
    before = kept.read_bytes()
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=former)
    assert_refused(tollway("db", "rotate-secret"), "CRYPTO_SECRET is set and differs from the one in", "rotate-secret")
    elsewhere = kept.rename(kept.with_name("elsewhere"))
    assert_refused(tollway("db", "rotate-secret"), "CRYPTO_SECRET is not the one under which the database's keys")
    assert elsewhere.read_bytes() == before
    elsewhere.rename(kept)
    secrets_are()
    assert_known()


def test_a_secret_that_is_in_no_file_is_written_to_none(
    kept: Path, key: str, secrets_are: Set, tollway: Tollway
) -> None:
    old = kept.read_text()
    kept.unlink()
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=old)
    assert tollway("db", "rotate-secret").status == 0
    assert not list(kept.parent.glob("crypto_secret*"))
    secrets_are(CRYPTO_SECRET=NEW)
    assert tollway("channel", "list").status == 0


def test_a_folder_that_takes_no_file_stops_it_before_the_database_is_changed(
    kept: Path,
    secrets_are: Set,
    tollway: Tollway,
    monkeypatch: pytest.MonkeyPatch,
    assert_known: Callable[[], None],
) -> None:
    before = kept.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=kept.read_text())
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        assert_refused(tollway("db", "rotate-secret"), "a secret cannot be kept in", "Permission denied")
    assert [path.name for path in kept.parent.glob("crypto_secret*")] == ["crypto_secret"]
    assert kept.read_bytes() == before
    secrets_are()
    assert_known()


def test_root_may_do_it_for_the_servers_user(
    kept: Path, secrets_are: Set, tollway: Tollway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who then still owns, and so can read, what is kept."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((user, group)))
    secrets_are(CRYPTO_SECRET=NEW, CRYPTO_SECRET_FORMER=kept.read_text())
    owner = kept.stat()
    assert tollway("db", "rotate-secret").status == 0
    assert given == [(owner.st_uid, owner.st_gid)] * 2


class Deadly:
    """Calls that are counted, and of which one, with all that would follow, is the last."""

    def __init__(self, last: int) -> None:
        self.left = last

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return call(*given, **named)

        return counted


@pytest.mark.parametrize("how_again", ["as before", "with the data directory alone"])
def test_whenever_it_is_killed_everything_is_known_and_it_can_be_run_again(
    how_again: str,
    kept: Path,
    secrets_are: Set,
    tollway: Tollway,
    monkeypatch: pytest.MonkeyPatch,
    in_store: InStore,
    assert_known: Callable[[], None],
) -> None:
    """The new secret may have been made up for this command, and be known from nowhere else."""
    before, killed_at = kept.read_text().strip(), 0
    for killed_at in range(100):
        after = f"{NEW}, number {killed_at}"
        secrets_are(CRYPTO_SECRET=after, CRYPTO_SECRET_FORMER=before)
        deadly, finished = Deadly(killed_at), False
        with monkeypatch.context() as patched:
            for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (secret_mark, "replace")):
                patched.setattr(owner, name, deadly.around(getattr(owner, name)))
            with suppress(Killed):
                finished = tollway("db", "rotate-secret").status == 0
        left = kept.read_text().strip()
        secrets_are()
        assert_known()
        assert mode(kept) == 0o600
        if how_again == "as before":
            secrets_are(CRYPTO_SECRET=after, CRYPTO_SECRET_FORMER=before)
        assert tollway("db", "rotate-secret").status == 0
        assert not kept.with_name("crypto_secret_former").exists()
        secrets_are()
        assert_known()
        assert kept.read_text().strip() in ((after,) if how_again == "as before" else (left,))
        before = kept.read_text().strip()
        assert in_store(lambda opened: secret_mark.read(opened.store)).startswith(Vault(Secret(before)).mark)
        if finished:
            break
    assert killed_at >= 8, "no step of it was looked at"
