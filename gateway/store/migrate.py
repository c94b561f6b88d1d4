"""
The schema's version: is it ours, and make it so.

Alembic is imported only to upgrade; a process that finds its schema up to date does not carry it. Processes that
start together take turns: the lock is the write transaction itself, and whoever comes second finds nothing to do.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, String, Table, select

from .address import Address, check_served, parse, shown
from .errors import ForeignDatabase, SchemaTooNew, translated
from .schema import metadata
from .store import Store

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

# Oldest first. A revision that was released is never edited: the next one follows.
REVISIONS = ("0001",)
HEAD = REVISIONS[-1]
LOCK_TIMEOUT_S = 120

_version = Table("alembic_version", MetaData(), Column("version_num", String(32)))
_catalogue = Table("sqlite_master", MetaData(), Column("type", String), Column("name", String))


async def needs_upgrade(store: Store) -> bool:
    """
    Whether `upgrade` has something to do: two plain queries, without Alembic.

    Raises `SchemaTooNew` if a newer Tollway wrote the database, `ForeignDatabase` if another program did.
    """
    names = {row["name"] for row in await store.all(select(_catalogue.c.name).where(_catalogue.c.type == "table"))}
    row = await store.one(select(_version)) if _version.name in names else None
    return _judge(store.address, None if row is None else row["version_num"], names) != HEAD


async def upgrade(url: str) -> None:
    """
    Bring the database to this version's schema, whole or not at all; create it if there is none.

    Waits up to two minutes for another process that does the same. Raises `Unavailable`, `SchemaTooNew`,
    `ForeignDatabase`, `Unsupported`.
    """
    from alembic import command

    address = parse(url)
    engine = _engine(address)
    try:
        with translated():
            async with engine.connect() as connection:
                if await connection.run_sync(_current, address) == HEAD:
                    return
                await connection.rollback()
                await connection.exec_driver_sql(f"PRAGMA busy_timeout={LOCK_TIMEOUT_S * 1000}")
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                await connection.commit()
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                if await connection.run_sync(_current, address) != HEAD:
                    await connection.run_sync(lambda bound: command.upgrade(_config(bound), "head"))
                await connection.commit()
    finally:
        await engine.dispose()


async def current(url: str) -> str | None:
    """The revision of the database, None for an empty one. Raises as `upgrade` does, and changes nothing."""
    address = parse(url)
    engine = _engine(address)
    try:
        with translated():
            async with engine.connect() as connection:
                return await connection.run_sync(_current, address)
    finally:
        await engine.dispose()


def _engine(address: Address) -> "AsyncEngine":
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from .sqlite_wal import create_private

    check_served(address)
    with translated():
        create_private(address.path)
    return create_async_engine(URL.create("sqlite+aiosqlite", database=address.path), poolclass=NullPool)


def _config(connection: "Connection") -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _current(connection: "Connection", address: Address) -> str | None:
    from sqlalchemy import inspect

    names = set(inspect(connection).get_table_names())
    version = connection.execute(select(_version)).scalar() if _version.name in names else None
    return _judge(address, version, names)


def _judge(address: Address, version: str | None, names: set[str]) -> str | None:
    if version is None and names & set(metadata.tables):
        raise ForeignDatabase(
            f"{shown(address)} holds tables of another program: name another folder with --data-dir or DATA_DIR"
        )
    if version is not None and version not in REVISIONS:
        raise SchemaTooNew(
            f"{shown(address)} has schema {version}, this Tollway knows up to {HEAD}: run the version that wrote it"
        )
    return version
