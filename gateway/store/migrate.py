"""
The schema's version: is it ours, and make it so.

Alembic is imported only to upgrade; a process that finds its schema up to date does not carry it. Processes that
start together take turns (see `migration_lock`), and whoever comes second finds nothing to do.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, String, Table, TextClause, select, text

from ..finishing import finished
from .address import Address, Dialect, parse, shown
from .engines import engine_for
from .errors import ForeignDatabase, SchemaTooNew, translated
from .schema import metadata
from .store import Store

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Oldest first. A revision that was released is never edited: the next one follows.
REVISIONS = ("0001", "0002", "0003", "0004", "0005")
HEAD = REVISIONS[-1]

_version = Table("alembic_version", MetaData(), Column("version_num", String(32)))
_TABLES: dict[Dialect, TextClause] = {
    "sqlite": text("SELECT name FROM sqlite_master WHERE type = 'table'"),
    "postgresql": text("SELECT tablename AS name FROM pg_catalog.pg_tables WHERE schemaname = current_schema()"),
    "mysql": text("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database()"),
}


async def needs_upgrade(store: Store) -> bool:
    """
    Whether `upgrade` has something to do: two plain queries, without Alembic.

    Raises `SchemaTooNew` if a newer Tollway wrote the database, `ForeignDatabase` if another program did.
    """
    names = {row["name"] for row in await store.all(_TABLES[store.address.dialect])}
    row = await store.one(select(_version)) if _version.name in names else None
    return _judge(store.address, None if row is None else row["version_num"], names) != HEAD


async def upgrade(url: str) -> str | None:
    """
    Bring the database to this version's schema; create a SQLite file if there is none. The revision that it had before,
    None if it was empty; HEAD where there was nothing to do.

    Whole or not at all, except on MySQL: there an upgrade that was cut short is taken up where it stopped. Waits up to
    two minutes for another process that does the same. An upgrade whose caller is cancelled is finished: one that is
    broken off keeps its lock on a SQLite file for as long as a statement of it is not collected. Raises `Unavailable`,
    `SchemaTooNew`, `ForeignDatabase`, `Unsupported`.
    """
    return await finished(asyncio.create_task(_upgrade(url)))


async def _upgrade(url: str) -> str | None:
    from alembic import command

    from .migration_lock import locked

    address = parse(url)
    with translated(engine_for(address).meaning):
        engine = await _engine(address)
        try:
            async with _connection(engine, address) as connection:
                if await connection.run_sync(_current, address) == HEAD:
                    return HEAD
                await connection.rollback()
                async with locked(connection, address):
                    before = await connection.run_sync(_current, address)
                    if before != HEAD:
                        await connection.run_sync(lambda bound: command.upgrade(_config(bound), "head"))
                    return before
        finally:
            await engine.dispose()


async def current(url: str) -> str | None:
    """The revision of the database, None for an empty one. Raises as `upgrade` does, and changes nothing."""
    address = parse(url)
    with translated(engine_for(address).meaning):
        engine = await _engine(address)
        try:
            async with _connection(engine, address) as connection:
                return await connection.run_sync(_current, address)
        finally:
            await engine.dispose()


@asynccontextmanager
async def _connection(engine: "AsyncEngine", address: Address) -> AsyncGenerator["AsyncConnection"]:
    """Raises TimeoutError where a server takes the connection and then says nothing."""
    async with asyncio.timeout(None if address.server is None else address.server.connect_timeout_s):
        connection = await engine.connect()
    try:
        yield connection
    finally:
        await connection.close()


async def _engine(address: Address) -> "AsyncEngine":
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    server = address.server
    if server is None:
        from .sqlite_wal import create_private

        create_private(address.path)
        return create_async_engine(URL.create("sqlite+aiosqlite", database=address.path), poolclass=NullPool)
    options: dict[str, Any]
    if server.dialect == "postgresql":
        from . import postgresql

        driver, options = "postgresql+asyncpg", postgresql.migration_options(server)
    else:
        from . import mysql

        driver, options = "mysql+asyncmy", await mysql.migration_options(server)
    return create_async_engine(URL.create(driver), poolclass=NullPool, connect_args=options)


def _config(connection: "Connection") -> "Config":
    from alembic.config import Config

    # To import it is to make it known to Alembic.
    from .migrations import mysql_ddl as _  # noqa: F401

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _current(connection: "Connection", address: Address) -> str | None:
    names: set[str] = set(connection.execute(_TABLES[address.dialect]).scalars())
    version = connection.execute(select(_version)).scalar() if _version.name in names else None
    return _judge(address, version, names)


def _judge(address: Address, version: str | None, names: set[str]) -> str | None:
    # MySQL has no transactions around changes of tables: there an empty table of versions is how an upgrade looks
    # that was cut short.
    begun = address.dialect == "mysql" and _version.name in names
    if version is None and not begun and names & set(metadata.tables):
        remedy = "another folder with --data-dir or DATA_DIR" if address.server is None else "another one in SQL_DSN"
        raise ForeignDatabase(f"{shown(address)} holds tables of another program: name {remedy}")
    if version is not None and version not in REVISIONS:
        raise SchemaTooNew(
            f"{shown(address)} has schema {version}, this Tollway knows up to {HEAD}: run the version that wrote it"
        )
    return version
