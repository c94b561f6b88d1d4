"""The lock under which a schema is upgraded: the database's own, so that it holds across processes and machines."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from .address import Address
from .errors import Unavailable
from .server_address import Server

TIMEOUT_S = 120
# Any number will do that no other program takes for its own.
ADVISORY_KEY = int.from_bytes(hashlib.sha256(b"tollway schema").digest()[:8], signed=True)


def locked(connection: AsyncConnection, address: Address) -> AbstractAsyncContextManager[None]:
    """
    A transaction of which there is one at a time in this database, committed at the end. `connection` has none open.

    Raises `Unavailable`, or what `Engine.meaning` finds to be so, after two minutes of waiting for another.
    """
    server = address.server
    if server is None:
        return _sqlite(connection)
    return _postgresql(connection) if server.dialect == "postgresql" else _mysql(connection, server)


@asynccontextmanager
async def _sqlite(connection: AsyncConnection) -> AsyncGenerator[None]:
    await connection.exec_driver_sql(f"PRAGMA busy_timeout={TIMEOUT_S * 1000}")
    await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    await connection.commit()
    await connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
    await connection.commit()


@asynccontextmanager
async def _postgresql(connection: AsyncConnection) -> AsyncGenerator[None]:
    # Both last until the transaction ends, so that this works through PgBouncer too.
    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TIMEOUT_S}s'")
    await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_KEY})")
    yield
    await connection.commit()


@asynccontextmanager
async def _mysql(connection: AsyncConnection, server: Server) -> AsyncGenerator[None]:
    # For the session, as this engine commits at every change of a table. The name is one for the whole server.
    name = {"name": f"tollway {hashlib.sha256(server.name.encode()).hexdigest()[:40]}"}
    taken = await connection.scalar(text(f"SELECT get_lock(:name, {TIMEOUT_S})"), name)
    if taken != 1:
        raise Unavailable(f"{server.shown}: another process has been upgrading the schema for {TIMEOUT_S} s")
    try:
        yield
        await connection.commit()
    finally:
        await connection.rollback()
        await connection.execute(text("SELECT release_lock(:name)"), name)
