"""A command's way to the data: settings, then the store, closed again whatever happens."""

import os
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ...config.settings import Settings
from ..data_dir import DataDir, open_data_dir, open_store
from ..store import Store, users
from ..store.address import check_served, parse
from ..store.records import UserRow
from .failures import Failure


def settings_of(arguments: Namespace) -> Settings:
    """The environment's settings, with those of the command line over them. Raises `SettingError`, `Unsupported`."""
    settings = Settings.from_environ()
    check_served(parse(settings.database))
    return settings if arguments.data_dir is None else replace(settings, data_dir=Path(arguments.data_dir))


@asynccontextmanager
async def opened_store(arguments: Namespace, *, create: bool = False) -> AsyncGenerator[Store]:
    """The store. Without `create`, a database that is not there is a mistake and is not made."""
    settings = settings_of(arguments)
    if not create:
        _must_exist(settings)
    store = await open_store(settings)
    try:
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
        yield opened
    finally:
        await opened.store.close()


def exists(url: str) -> bool:
    """Whether there is a database, where that can be told without asking it. Asking would make it."""
    path = parse(url).path
    return not path or os.path.exists(path)


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
