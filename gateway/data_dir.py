"""
The data directory: the database and the secret, opened together and made at first use.

Both survive a start of several processes at once: the schema is made under the database's own lock, and the secret
appears whole or not at all, once.
"""

import errno
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.secret import Secret
from ..config.settings import Settings
from .secrets_at_rest import SHORTEST_SECRET, CannotDecrypt, Vault
from .store import Store, StoreError, channels, migrate, options, tokens
from .store.address import shown
from .store.sqlite_wal import create_private

SECRET_FILE = "crypto_secret"
SECRET_BYTES = 32
FINGERPRINT = "crypto_secret_fingerprint"
LOGS_ELSEWHERE = "logs_elsewhere"

log = logging.getLogger("tollway.data_dir")

NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK}


class DataDirError(Exception):
    """The data directory, or the secret that belongs to it, cannot be used. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """An open data directory. Whoever opened it closes `store`."""

    store: Store
    vault: Vault


@dataclass(frozen=True, slots=True)
class Stores(DataDir):
    """With the database of the logs, where they have one of their own."""

    log_store: Store | None


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncGenerator[Stores]:
    """All that a serving process needs, closed at the end. Raises `DataDirError`, `StoreError`."""
    opened = await open_data_dir(settings)
    try:
        log_store = await open_log_store(settings)
        try:
            await _remember(opened.store, logs_elsewhere=log_store is not None)
            yield Stores(opened.store, opened.vault, log_store)
        finally:
            if log_store is not None:
                await log_store.close()
    finally:
        await opened.store.close()


async def open_log_store(settings: Settings) -> Store | None:
    """The database of the logs, if they have one of their own. Raises `DataDirError`, `StoreError`."""
    if not (url := settings.log_database_url):
        return None
    try:
        return await open_store(replace(settings, database_url=url))
    except (DataDirError, StoreError) as error:
        raise type(error)(f"LOG_SQL_DSN: {error}") from error


async def has_logs_elsewhere(store: Store) -> bool:
    """Whether whoever served last had a database of its own for the logs."""
    return LOGS_ELSEWHERE in await options.list_all(store)


async def _remember(store: Store, *, logs_elsewhere: bool) -> None:
    """So that no command without LOG_SQL_DSN takes the main database's empty tables for the logs."""
    if logs_elsewhere:
        await options.set_first(store, LOGS_ELSEWHERE, "true")
    elif await options.unset(store, LOGS_ELSEWHERE, now_ms=int(time.time() * 1000)):
        log.warning("LOG_SQL_DSN was set before and is not now: from here on logs are in the main database")


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
        vault = Vault(secret)
        if not await _is_the_databases(store, vault):
            given = (
                "CRYPTO_SECRET is" if settings.crypto_secret else "CRYPTO_SECRET is not set, and the one kept here is"
            )
            raise DataDirError(
                f"{given} not the one under which the database's keys are stored: "
                "set it to that one, which all nodes of a database share"
            )
        return DataDir(store, vault)
    except BaseException:
        await store.close()
        raise


async def open_store(settings: Settings) -> Store:
    """Only the store, for work that needs no secret. Raises `DataDirError`, `StoreError`."""
    store = Store(settings.database)
    if store.address.server is None:
        _prepare(settings.data_dir, store.address.path)
    await store.connect()
    try:
        if await migrate.needs_upgrade(store):
            before = await migrate.upgrade(settings.database)
            if before not in (None, migrate.HEAD):
                log.warning(
                    "%s had schema %s and has %s now: an older Tollway no longer starts on it",
                    shown(store.address),
                    before,
                    migrate.HEAD,
                )
        if store.address.server is not None:
            # Only now: where a server cannot be used, nothing is written anywhere.
            _prepare(settings.data_dir, "")
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


async def _is_the_databases(store: Store, vault: Vault) -> bool:
    """
    Whether the vault's secret is the one of this database, which remembers a fingerprint of it.

    The first opener leaves its own there. In a database of an older version, which has none, the channels' keys tell:
    with another secret none of them opens.
    """
    kept = (await options.list_all(store)).get(FINGERPRINT)
    if kept is None:
        locked: list[int] = []

        def note_locked(channel_id: int, error: Exception) -> None:
            if isinstance(error, CannotDecrypt):
                locked.append(channel_id)

        opened = await channels.list_all(store, vault, on_locked=note_locked)
        if locked and not opened:
            return False
        kept = await options.set_first(store, FINGERPRINT, vault.fingerprint)
    return vault.has_fingerprint(kept)


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
        # Asked and not tried: to open the file, and close it again, would drop the locks that this process holds on it.
        if not os.access(database, os.R_OK | os.W_OK):
            raise DataDirError(f"the database {shown_path(database)} cannot be read and written by this user")


def shown_path(path: str) -> str:
    """A database's path for messages. What was meant as the address of a server is shown without its credentials."""
    return re.sub(r"^.*:.*@", "********@", path, flags=re.DOTALL)


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
    A new secret, if the database has none yet.

    Whoever has a database but no secret has most likely forgotten to set CRYPTO_SECRET in this shell, or on this node.
    A new one would make every key that is handed out from here a dead one.
    """
    has_one = FINGERPRINT in await options.list_all(store)
    has_one = has_one or bool(await channels.states(store) or await tokens.all_kept(store))
    # In this order: the process that wrote those rows had put its secret down before.
    kept = _read_secret(data_dir / SECRET_FILE)
    if kept is None and has_one:
        raise DataDirError(
            f"CRYPTO_SECRET is not set and there is no {data_dir / SECRET_FILE}, but the database has one already: "
            "set it to that one, which all nodes of a database share"
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
