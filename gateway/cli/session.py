"""A command's way to the data: settings, then the store, closed again whatever happens."""

import os
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ...config.settings import VARIABLES, Settings
from ..data_dir import DataDir, has_logs_elsewhere, open_data_dir, open_log_store, open_store
from ..store import Store, StoreError, Unsupported, changes, users
from ..store.address import parse
from ..store.records import UserRow
from .failures import Failure, Usage


def settings_of(arguments: Namespace) -> Settings:
    """The environment's settings, with those of the command line over them. Raises `SettingError`, `Unsupported`."""
    settings = Settings.from_environ()
    try:
        parse(settings.database)
    except Unsupported as error:
        names = (each.name for each in VARIABLES if each.field == "database_url")
        set_here = [name for name in names if os.environ.get(name, "").strip()]
        raise Unsupported(f"{set_here[0]}: {error}" if set_here else str(error)) from None
    return settings if arguments.data_dir is None else replace(settings, data_dir=Path(arguments.data_dir))


@asynccontextmanager
async def opened_store(arguments: Namespace, *, create: bool = False) -> AsyncGenerator[Store]:
    """The store. Without `create`, a database that is not there is a mistake and is not made."""
    settings = settings_of(arguments)
    if not create:
        _must_exist(settings)
    store = await open_store(settings)
    try:
        async with _telling(settings, store):
            yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_data_dir(arguments: Namespace, *, create: bool = False) -> AsyncGenerator[DataDir]:
    """The store and the vault."""
    settings = settings_of(arguments)
    if not create:
        _must_exist(settings)
    opened = await open_data_dir(settings)
    try:
        async with _telling(settings, opened.store):
            yield opened
    finally:
        await opened.store.close()


@asynccontextmanager
async def opened_logs(arguments: Namespace, store: Store) -> AsyncGenerator[Store]:
    """The database of the logs and their hourly sums, which may be `store` itself. Raises `Failure`, `Usage`."""
    settings = settings_of(arguments)
    url = settings.log_database_url
    if not url and await has_logs_elsewhere(store):
        raise Usage("the logs are in a database of their own: set LOG_SQL_DSN as the server has it")
    if url and not exists(url):
        raise Failure(f"there is no database at {parse(url).path}, where LOG_SQL_DSN names one")
    log_store = await open_log_store(settings)
    try:
        yield log_store or store
    finally:
        if log_store is not None:
            await log_store.close()


@asynccontextmanager
async def _telling(settings: Settings, store: Store) -> AsyncGenerator[None]:
    """Tell the servers at once of what a command has changed, where there is a Redis; else they find it by polling."""
    if not settings.redis_url:
        yield
        return
    from ..redis import Publisher

    publisher = Publisher(settings.redis_url)
    seen = await changes.latest(store)
    try:
        yield
    finally:  # a command that failed may have written before
        with suppress(StoreError):
            if await changes.latest(store) != seen:
                await publisher.publish()


def exists(url: str) -> bool:
    """
    Whether there is a database, where that can be told without asking it. Asking would make it.

    Raises `Failure` where this user may not even look.
    """
    path = parse(url).path
    try:
        return not path or bool(os.stat(path))
    except PermissionError as error:
        # What lies in a folder of somebody else's may well be there: the server's user has closed it.
        raise Failure(
            f"the database {path} cannot be reached: {error.strerror}; run this as the user who runs the server"
        ) from None
    except (OSError, ValueError):
        return False


def _must_exist(settings: Settings) -> None:
    if not exists(settings.database):
        path = parse(settings.database).path
        raise Failure(f"there is no database at {path}: name its folder with --data-dir or DATA_DIR")


async def user_named(store: Store, username: str) -> UserRow:
    """The user of this name. Raises `Failure`."""
    user = await users.by_name(store, username)
    if user is None:
        raise Failure(f"the user {username!r} does not exist")
    return user


def now_ms() -> int:
    return int(time.time() * 1000)
