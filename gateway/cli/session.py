"""A command's way to the data: settings, then the store, closed again whatever happens."""

import os
import sys
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
from .output import clean


def settings_of(arguments: Namespace) -> Settings:
    """The environment's settings, with those of the command line over them. Raises `SettingError`, `Unsupported`."""
    settings = Settings.from_environ()
    try:
        parse(settings.database)
    except Unsupported as error:
        named_by = _variable("database_url")
        raise Unsupported(f"{named_by}: {error}" if named_by else str(error)) from None
    return settings if arguments.data_dir is None else replace(settings, data_dir=Path(arguments.data_dir))


def _variable(field: str) -> str:
    """The environment's variable that this setting has its value from, or ""."""
    names = (each.name for each in VARIABLES if each.field == field)
    return next((name for name in names if os.environ.get(name, "").strip()), "")


@asynccontextmanager
async def opened_store(arguments: Namespace, *, create: bool = False) -> AsyncGenerator[Store]:
    """The store. Without `create`, a database that is not there is a mistake and is not made."""
    settings = settings_of(arguments)
    found = _exists(settings, create=create)
    store = await open_store(settings)
    try:
        tell_of_new(found, settings, arguments)
        async with _telling(settings, store):
            yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_data_dir(arguments: Namespace, *, create: bool = False) -> AsyncGenerator[DataDir]:
    """The store and the vault."""
    settings = settings_of(arguments)
    found = _exists(settings, create=create)
    opened = await open_data_dir(settings)
    try:
        tell_of_new(found, settings, arguments)
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
    try:
        found = not url or exists(url)
    except Unsupported as error:
        raise Unsupported(f"LOG_SQL_DSN: {error}") from None
    if not found:
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


def _exists(settings: Settings, *, create: bool) -> bool:
    """Whether there is a database. Raises `Failure` where it is not and is not to be made."""
    found = exists(settings.database)
    if not found and not create:
        raise Failure(f"there is no database at {parse(settings.database).path}{_remedy()}")
    return found


def _remedy() -> str:
    named_by = _variable("database_url")
    return f", where {named_by} names one" if named_by else ": name its folder with --data-dir or DATA_DIR"


def tell_of_new(found: bool, settings: Settings, arguments: Namespace) -> None:
    """Where a database was made, and how to name another: a command in the wrong folder would start a second one."""
    if not found and not arguments.json:
        path = os.path.abspath(parse(settings.database).path)
        elsewhere = "" if _variable("database_url") else "; --data-dir or DATA_DIR names the folder of another"
        print(f"tollway: {clean(path)} is a new database{elsewhere}", file=sys.stderr)


async def user_named(store: Store, username: str) -> UserRow:
    """The user of this name. Raises `Failure`."""
    user = await users.by_name(store, username)
    if user is None:
        raise Failure(f"the user {username!r} does not exist")
    return user
