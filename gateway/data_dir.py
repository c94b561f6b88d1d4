"""
The data directory: the database and the secret, opened together and made at first use.

Both survive a start of several processes at once: the schema is made under the database's own lock, and the secret
appears whole or not at all, once.
"""

import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.secret import Secret
from ..config.settings import Settings
from .secret_files import SECRET_FILE, DataDirError, kept_former, kept_secret, make_secret
from .secrets_at_rest import CannotDecrypt, Vault
from .store import Store, StoreError, channels, migrate, options, secret_mark, tokens
from .store.address import shown
from .store.sqlite_wal import create_private

LOGS_ELSEWHERE = "logs_elsewhere"

log = logging.getLogger("tollway.data_dir")


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
        secret, former = find_secrets(settings)
        if secret is None:
            secret = await _first_secret(settings.data_dir, store)
        vault = await _vault_of(store, secret, former)
        if vault is None:
            given = (
                "CRYPTO_SECRET is" if settings.crypto_secret else "CRYPTO_SECRET is not set, and the one kept here is"
            )
            raise DataDirError(
                f"{given} not the one under which the database's keys are stored"
                f"{', nor is CRYPTO_SECRET_FORMER' if former else ''}: "
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


def find_secrets(settings: Settings) -> tuple[Secret | None, tuple[Secret, ...]]:
    """
    The secret that is set, or that the data directory keeps, None where there is neither; and the former ones.

    Raises `DataDirError` where there are two that differ: with the wrong one every key would be refused. That the one
    kept here is a former one has to be said.
    """
    kept, given = kept_secret(settings.data_dir), settings.crypto_secret
    former = (*settings.crypto_secret_former, *kept_former(settings.data_dir))
    if given and kept is not None and kept not in (given, *former):
        raise DataDirError(
            f"CRYPTO_SECRET is set and differs from the one in {settings.data_dir / SECRET_FILE}, "
            "under which the data was written: unset it, or remove the file if the variable is right, or see tollway "
            "db rotate-secret --help"
        )
    return given or kept, former


async def _vault_of(store: Store, secret: Secret, former: Sequence[Secret]) -> Vault | None:
    """
    The vault that fits this database, which remembers its secret by a mark; None where none of these is that one.

    The first opener leaves its own mark there. In a database of an older version, which has none, the channels' keys
    tell: with another secret none of them opens.
    """
    mark = await secret_mark.read(store)
    if mark is None:
        for each in (secret, *former):
            alone = Vault(each)
            if await _opens_a_channel(store, alone):
                mark = await secret_mark.set_first(store, alone.mark)
                break
    return None if mark is None else Vault(secret, former=former).for_database(mark)


async def _opens_a_channel(store: Store, vault: Vault) -> bool:
    """Whether any does, or there is none that does not."""
    locked: list[int] = []

    def note_locked(channel_id: int, error: Exception) -> None:
        if isinstance(error, CannotDecrypt):
            locked.append(channel_id)

    opened = await channels.list_all(store, vault, on_locked=note_locked)
    return bool(opened) or not locked


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


async def _first_secret(data_dir: Path, store: Store) -> Secret:
    """
    A new secret, if the database has none yet.

    Whoever has a database but no secret has most likely forgotten to set CRYPTO_SECRET in this shell, or on this node.
    A new one would make every key that is handed out from here a dead one.
    """
    has_one = await secret_mark.read(store) is not None
    has_one = has_one or bool(await channels.states(store) or await tokens.all_kept(store))
    # In this order: the process that wrote those rows had put its secret down before.
    kept = kept_secret(data_dir)
    if kept is None and has_one:
        raise DataDirError(
            f"CRYPTO_SECRET is not set and there is no {data_dir / SECRET_FILE}, but the database has one already: "
            "set it to that one, which all nodes of a database share"
        )
    return kept or make_secret(data_dir)
