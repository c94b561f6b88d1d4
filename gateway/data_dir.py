"""
The data directory: the database and the secret, opened together and made at first use; at the end, what the database
did not take.

Both survive a start of several processes at once: the schema is made under the database's own lock, and the secret
appears whole or not at all, once.
"""

import errno
import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import asdict

from ..config.secret import Secret
from ..config.settings import Settings
from .secrets_at_rest import SHORTEST_SECRET, Vault
from .store import Store, channels, json_text, migrate, tokens
from .store.records import ChargeRecord
from .store.sqlite_wal import create_private

SECRET_FILE = "crypto_secret"  # noqa: S105
SECRET_BYTES = 32

NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK}


class DataDirError(Exception):
    """The data directory, or the secret that belongs to it, cannot be used. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """An open data directory. Whoever opened it closes `store`."""

    store: Store
    vault: Vault


async def open_data_dir(settings: Settings) -> DataDir:
    """
    The store, connected and at this version's schema, and the vault that opens its secrets.

    Makes what is missing: the directory (mode 0700), the database and, unless `settings.crypto_secret` is given, a
    secret in a file of mode 0600. Raises `DataDirError`, `StoreError`.
    """
    store = await open_store(settings)
    try:
        secret = find_secret(settings)
        if secret is None:
            secret = await _first_secret(settings.data_dir, store)
        return DataDir(store, Vault(secret))
    except BaseException:
        await store.close()
        raise


async def open_store(settings: Settings) -> Store:
    """Only the store, for work that needs no secret. Raises `DataDirError`, `StoreError`."""
    store = Store(settings.database)
    _prepare(settings.data_dir, store.address.path)
    await store.connect()
    try:
        if await migrate.needs_upgrade(store):
            await migrate.upgrade(settings.database)
    except BaseException:
        await store.close()
        raise
    return store


def find_secret(settings: Settings) -> Secret | None:
    """
    The secret that is set, or that the data directory keeps; None where there is neither.

    Raises `DataDirError` where there are two that differ: with the wrong one every key would be refused.
    """
    kept = _read_secret(settings.data_dir / SECRET_FILE)
    given = settings.crypto_secret
    if given and kept is not None and given != kept:
        raise DataDirError(
            f"CRYPTO_SECRET is set and differs from the one in {settings.data_dir / SECRET_FILE}, "
            "under which the data was written: unset it, or remove the file if the variable is right"
        )
    return given or kept


def _prepare(data_dir: Path, database: str) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"DATA_DIR {data_dir} cannot be used as a folder: {error.strerror}") from error
    if database:
        try:
            create_private(database)
        except OSError as error:
            # Not from `error`, which names the file too.
            raise DataDirError(
                f"the database {shown_path(database)} cannot be opened for writing: {error.strerror}"
            ) from None


def shown_path(path: str) -> str:
    """A database's path for messages. What was meant as the address of a server is shown without its credentials."""
    return re.sub(r"^.*:.*@", "********@", path, flags=re.DOTALL)


def keep_charges(data_dir: Path, unwritten: Sequence[ChargeRecord]) -> Path | None:
    """
    Write charges that the database did not take to a new file of their own (mode 0600), a JSON line each; its path.

    It lies beside the database, or, where that disk is full, in the machine's folder for temporary files. None where
    neither takes it.
    """
    content = "".join(json_text.dump(asdict(record)) + "\n" for record in unwritten).encode()
    name = f"unwritten-charges-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}.jsonl"
    for folder in (data_dir, Path(tempfile.gettempdir())):
        try:
            _write_new(folder / name, content)
            _sync_folder(folder)
        except OSError:
            continue
        return folder / name
    return None


def _write_new(path: Path, content: bytes) -> None:
    """A new file, whole and on the disk, or none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


async def _first_secret(data_dir: Path, store: Store) -> Secret:
    """
    A new secret, if nothing was ever written under another one.

    Whoever has a database but no secret has most likely forgotten to set CRYPTO_SECRET in this shell. A new one would
    make every key that is handed out from here a dead one.
    """
    written = await channels.states(store) or await tokens.all_kept(store)
    # In this order: the process that wrote those rows had put its secret down before.
    kept = _read_secret(data_dir / SECRET_FILE)
    if kept is None and written:
        raise DataDirError(
            f"CRYPTO_SECRET is not set and {data_dir / SECRET_FILE} is gone, but the database holds keys "
            "written under it: set it to what it was"
        )
    return kept or _make_secret(data_dir / SECRET_FILE)


def _read_secret(path: Path) -> Secret | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataDirError(f"the secret in {path} cannot be read: {reason}") from error
    if len(text) < SHORTEST_SECRET:
        raise DataDirError(f"the secret in {path} is damaged: put the file back from a backup")
    return Secret(text)


def _make_secret(path: Path) -> Secret:
    """Write a new secret, or read the one that another process has written meanwhile."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(draft, secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n")
        try:
            # A link, because it fails where a file is already; a rename would take the other process's secret away.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in NO_HARD_LINKS:
            raise DataDirError(f"a secret cannot be kept in {path.parent}: set CRYPTO_SECRET instead") from error
        raise DataDirError(f"a secret cannot be kept in {path.parent}: {error.strerror}") from error
    kept = _read_secret(path)
    if kept is None:
        raise DataDirError(f"the secret in {path} disappeared while it was written")
    return kept


def _sync_folder(folder: Path) -> None:
    """Make the file's name as durable as its content: a secret that a power cut takes away locks every channel."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
