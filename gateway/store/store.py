"""
Store: the one way to the database, and with the engines the only user of `databases`.

Every write runs in a transaction, and every transaction runs in a task of its own that is shielded from its caller:
a client that hangs up cancels the task that serves it, and a task cancelled inside a transaction would leave a
connection behind for good, or half a settlement. A cancelled caller stops waiting; the work it began is finished.
Reads are shielded too: on Python 3.11 `asyncio.wait_for`, by which MySQL's driver waits, may swallow a cancellation,
and a duty that was to end would go on for ever.

On SQLite transactions take turns, and each is a writer from its first statement. On a server they run side by side and
each statement sees what others have committed: a row that is read in order to be written back is read with
`with_for_update()`, which SQLite has no need of and leaves out.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from sqlalchemy import Insert, Table

from .address import Dialect, parse
from .engine import Columns, Connection, Engine, Query, Record, Row, Rows, Statement, Written
from .engines import engine_for
from .errors import Contended, Unsupported, translated

if TYPE_CHECKING:
    from .sqlite_wal import WalConnection

T = TypeVar("T")

# Of the transactions that stand in each other's way a server ends all but one; the others begin again.
ATTEMPTS = 8
FIRST_PAUSE_S = 0.01
FINISH_WITHIN_S = 10.0

logger = logging.getLogger("tollway.store")


class Transaction:
    """
    The statements of one transaction. Made by `Store.run` and closed with it; safe to use from child tasks.

    Repositories take a `Store` or a `Transaction` and call `run` on either: on a transaction it joins.
    """

    def __init__(self, engine: Engine, dialect: Dialect, connection: Connection) -> None:
        self.dialect: Dialect = dialect
        self._engine = engine
        self._connection: Connection | None = connection
        # A connection answers one statement at a time, whichever child task it comes from.
        self._turn = asyncio.Lock()

    async def one(self, query: Query) -> Row | None:
        """The first row by column name, or None."""
        with translated(self._engine.meaning):
            async with self._turn:
                row = await self._open().fetch_one(query)
        return None if row is None else _named(row)

    async def all(self, query: Query) -> list[Row]:
        """Every row, by column name."""
        with translated(self._engine.meaning):
            async with self._turn:
                rows = await self._open().fetch_all(query)
        return [_named(row) for row in rows]

    async def insert(self, statement: Insert) -> int:
        """Insert one row and return its id. Raises `Conflict`, `BrokenReference`, `BadValue`."""
        return (await self._execute(statement)).id

    async def change(self, statement: Statement) -> int:
        """The number of rows that the statement matched and so wrote or removed; of an INSERT, that it inserted."""
        return (await self._execute(statement)).rows

    async def upsert(self, table: Table, row: Row) -> None:
        """Insert `row`, or replace the named columns of the row that has its primary key, the table's only key."""
        await self._execute(self._engine.upsert(table, row))

    async def bulk(self, table: Table, columns: Columns, rows: Rows) -> None:
        """
        Insert many rows in the driver's own way for it. Values are what the driver takes for the column (int, str,
        bool, None).
        """
        if rows:
            with translated(self._engine.meaning):
                async with self._turn:
                    await self._engine.bulk(self._open().raw_connection, table, columns, rows)

    async def add_up(self, table: Table, columns: Columns, rows: Rows) -> None:
        """As `bulk`, but where a row has the primary key of one of them, what is no key is added to it."""
        if rows:
            with translated(self._engine.meaning):
                async with self._turn:
                    await self._engine.add_up(self._open().raw_connection, table, columns, rows)

    async def replace(self, table: Table, columns: Columns, rows: Rows) -> None:
        """As `bulk`, but where a row has the primary key of one of them, the table's only key, it is replaced."""
        if rows:
            with translated(self._engine.meaning):
                async with self._turn:
                    await self._engine.replace(self._open().raw_connection, table, columns, rows)

    async def run(self, work: "Callable[[Transaction], Awaitable[T]]") -> T:
        """Run `work` as a part of this transaction."""
        return await work(self)

    def close(self) -> None:
        """The transaction is over: any later statement is a mistake and raises RuntimeError."""
        self._connection = None

    def is_open_on(self, engine: Engine) -> bool:
        return self._connection is not None and self._engine is engine

    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        return self._connection

    async def _execute(self, statement: Statement) -> Written:
        with translated(self._engine.meaning):
            async with self._turn:
                return await self._open().execute(statement)


# The transaction that the running code is a part of, to tell a mistake from a deadlock.
_CURRENT: ContextVar[Transaction | None] = ContextVar("tollway.store.transaction", default=None)


class Store:
    """
    A database, by URL (see `address.parse`). Raises `Unsupported` for one that cannot be served.

    Statements outside `run` are transactions of their own. The schema is not made here: see `migrate`.
    """

    def __init__(self, url: str) -> None:
        self.address = parse(url)
        self._engine = engine_for(self.address)
        self._database = self._engine.open()
        # SQLite's writers queue here, in order and without sleeping; its own lock is met only by another process.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if self._engine.one_writer else nullcontext()
        self._running: set[asyncio.Task[Any]] = set()

    async def connect(self) -> None:
        """Open the pool and one connection. Raises `Unavailable` if the database cannot be reached or opened."""
        try:
            with translated(self._engine.meaning):
                await self._database.connect()
            async with self._connection():
                pass
        except BaseException:
            await self._database.disconnect()
            raise

    async def close(self) -> None:
        """Wait for the work that was begun, unless the database hangs; then close every connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_WITHIN_S):
                while self._running:
                    await asyncio.wait(self._running)
        await self._database.disconnect()

    async def one(self, query: Query) -> Row | None:
        """The first row by column name, or None."""

        async def read() -> Row | None:
            async with self._connection() as connection:
                return await self._transaction(connection).one(query)

        return await asyncio.shield(self._begun(read()))

    async def all(self, query: Query) -> list[Row]:
        """Every row, by column name."""

        async def read() -> list[Row]:
            async with self._connection() as connection:
                return await self._transaction(connection).all(query)

        return await asyncio.shield(self._begun(read()))

    async def insert(self, statement: Insert) -> int:
        """Insert one row and return its id. Raises `Conflict`, `BrokenReference`, `BadValue`."""
        return await self.run(lambda transaction: transaction.insert(statement))

    async def change(self, statement: Statement) -> int:
        """The number of rows that the statement matched and so wrote or removed; of an INSERT, that it inserted."""
        return await self.run(lambda transaction: transaction.change(statement))

    async def upsert(self, table: Table, row: Row) -> None:
        """Insert `row`, or replace the named columns of the row that has its primary key, the table's only key."""
        await self.run(lambda transaction: transaction.upsert(table, row))

    async def bulk(self, table: Table, columns: Columns, rows: Rows) -> None:
        """Insert many rows in the driver's own way for it, all or none."""
        await self.run(lambda transaction: transaction.bulk(table, columns, rows))

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """
        Run `work` in a transaction: committed when it returns, rolled back when it raises.

        It is finished even if the caller is cancelled meanwhile. A server may end a transaction in favour of another,
        and then `work` is called again, on a new one: what it does besides its statements must bear that. Raises
        `Unavailable`; RuntimeError when called by `work` itself: hand the transaction on instead, it has the same
        methods.
        """

        async def transact() -> T:
            for attempt in range(1, ATTEMPTS):
                try:
                    return await self._transact(work)
                except Contended:
                    # Apart from each other, or they would meet again.
                    await asyncio.sleep(FIRST_PAUSE_S * 2**attempt * random.random())
            return await self._transact(work)

        return await self._shielded(transact)

    async def run_plain(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run a plain function in a transaction, on the driver's connection and in its thread. Raises `Unsupported` on
        anything but SQLite.

        For batches: one visit to the thread costs as much as some ten rows. Shielded like `run`.
        """
        if self.address.dialect != "sqlite":
            raise Unsupported("plain functions run in a transaction on SQLite only")

        async def transact() -> T:
            async with self._turn, self._connection() as connection:
                with translated(self._engine.meaning):
                    return await cast("WalConnection", connection.raw_connection).transact(work)

        return await self._shielded(transact)

    async def _transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self._turn, self._connection() as connection:
            raw = connection.raw_connection
            transaction = self._transaction(connection)
            _CURRENT.set(transaction)
            try:
                with translated(self._engine.meaning):
                    await self._engine.begin(raw)
                result = await work(transaction)
                with translated(self._engine.meaning):
                    await self._engine.commit(raw)
            except BaseException as failure:
                await self._roll_back(raw, failure)
                raise
            finally:
                transaction.close()
            return result

    async def _roll_back(self, raw: Any, failure: BaseException) -> None:
        try:
            await self._engine.rollback(raw)
        except Exception as error:
            # On a connection that is gone: the server does it, and the pool drops what is left here.
            failure.add_note(f"and the transaction could not be rolled back: {type(error).__name__}")

    async def _shielded(self, transact: Callable[[], Coroutine[Any, Any, T]]) -> T:
        outer = _CURRENT.get()
        if outer is not None and outer.is_open_on(self._engine):
            raise RuntimeError("a transaction inside a transaction would wait for itself: hand the outer one on")
        task = self._begun(transact())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    def _begun(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _transaction(self, connection: Connection) -> Transaction:
        return Transaction(self._engine, self.address.dialect, connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection]:
        if not self._database.is_connected:
            raise RuntimeError("the store is not connected")
        connection = cast("Connection", self._database.connection())
        with translated(self._engine.meaning):
            await connection.__aenter__()
        try:
            yield connection
        finally:
            with translated(self._engine.meaning):
                await connection.__aexit__(None, None, None)


Session: TypeAlias = Store | Transaction


def _named(record: Record) -> Row:
    return dict(zip(record.keys(), record.values(), strict=True))


def _log_failure(task: "asyncio.Task[Any]") -> None:
    """Nobody waits for this task any more, so nobody would hear of its failure."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a transaction failed after its caller had gone: %s", failure)
