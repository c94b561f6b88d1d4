"""
SQLite for `databases` as a server needs it: WAL, a small pool of open connections, `BEGIN IMMEDIATE`.

The backend that comes with `databases` opens a file and a thread for every query, returns the connection's last
insert id for an UPDATE, and begins transactions as readers, so that all but one of several read-then-write
transactions fail. Here connections stay open, an UPDATE returns the rows it changed, and a transaction is a writer
from its first statement.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import aiosqlite
from databases.backends.sqlite import SQLiteBackend, SQLiteConnection
from databases.core import DatabaseURL
from sqlalchemy.sql import ClauseElement

from .engine import Written

T = TypeVar("T")
Compiled: TypeAlias = tuple[str, list[Any], Any, Any]  # the base class says three and returns four

POOL_SIZE = 4  # one writer at a time, the others read
WAL_LIMIT_BYTES = 64 * 1024 * 1024
CACHE_KIB = 512
"""Of each connection: the kernel keeps the pages for all. Four times as much saves a flush some 5 % of its time."""


def create_private(path: str) -> None:
    """
    Create an empty file that only its owner may read, unless there is one. SQLite gives -wal and -shm its mode.

    A file that is there is not opened: closing it again would drop every lock that this process holds on it (POSIX),
    and the next process to close the database would take the log from under us ("How To Corrupt An SQLite Database
    File", 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _connect(path: str, busy_timeout_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_ms / 1000)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # what was committed survives a power cut: this is money
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


class WalConnection(aiosqlite.Connection):
    """One open connection and its thread."""

    def __init__(self, path: str, busy_timeout_ms: int) -> None:
        super().__init__(partial(_connect, path, busy_timeout_ms), iter_chunk_size=64)
        # A process that dies without closing the store must not wait for this thread for ever.
        self._thread.daemon = True

    async def open(self) -> None:
        try:
            await self
        except BaseException:
            # The thread still has an answer to give to this loop.
            await asyncio.to_thread(self._thread.join)
            raise

    async def begin(self) -> None:
        await self._visit(lambda: self._conn.execute("BEGIN IMMEDIATE"))

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a plain function in a transaction, all in one visit to the thread: the visits are the cost."""
        return await self._visit(lambda: self._transact(work))

    async def _visit(self, work: Callable[[], T]) -> T:
        return await self._execute(work)  # pyright: ignore[reportUnknownMemberType]

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._conn
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        return result


class WalPool:
    """At most `POOL_SIZE` open connections, the last used first."""

    def __init__(self, path: str, busy_timeout_ms: int) -> None:
        self._path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._made = False
        self._idle: list[WalConnection] = []
        self._free = asyncio.Semaphore(POOL_SIZE)

    async def acquire(self) -> WalConnection:
        await self._free.acquire()
        try:
            if self._idle:
                return self._idle.pop()
            if not self._made:  # later ones open what is there: a file that is gone must not come back empty
                create_private(self._path)
                self._made = True
            connection = WalConnection(self._path, self._busy_timeout_ms)
            await connection.open()
            return connection
        except BaseException:
            self._free.release()
            raise

    async def release(self, connection: WalConnection) -> None:
        try:
            if connection.in_transaction:  # a rollback failed or was cancelled: never hand this one on
                await connection.close()
            else:
                self._idle.append(connection)
        finally:
            self._free.release()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()


class WalBackendConnection(SQLiteConnection):
    """Statements on a pooled connection."""

    async def execute(self, query: ClauseElement) -> Written:
        """The new id, and the number of rows that were matched."""
        text, arguments, *_ = cast("Compiled", self._compile(query))  # pyright: ignore[reportUnknownMemberType]
        async with self.raw_connection.execute(text, arguments) as cursor:
            # A statement that inserted nothing leaves the id of an earlier one.
            return Written((cursor.lastrowid or 0) if cursor.rowcount > 0 else 0, cursor.rowcount)


class WalBackend(SQLiteBackend):
    """The path comes as a keyword, so that no file name is bent by the rules of URLs."""

    def __init__(self, database_url: DatabaseURL | str, *, path: str, busy_timeout_ms: int) -> None:
        super().__init__(database_url)
        self._wal_pool = WalPool(path, busy_timeout_ms)

    def connection(self) -> SQLiteConnection:
        return WalBackendConnection(self._wal_pool, self._dialect)  # pyright: ignore[reportArgumentType]

    async def disconnect(self) -> None:
        await self._wal_pool.close()
