"""
Store: the one way to the database, and the only user of `databases`.

Every write runs in a transaction, and every transaction runs in a task of its own that is shielded from its caller:
a client that hangs up cancels the task that serves it, and a task cancelled inside a transaction would leave a
connection behind for good, or half a settlement. A cancelled caller stops waiting; the work it began is finished.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

from databases import Database
from sqlalchemy import ClauseElement, Delete, Insert, Select, Table, TextClause, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect as CompilerDialect

from .address import Address, check_served, parse
from .errors import translated
from .sqlite_wal import WalBackend, WalConnection

T = TypeVar("T")
Row: TypeAlias = Mapping[str, Any]
Query: TypeAlias = Select[Any] | TextClause

logger = logging.getLogger("tollway.store")


class _Database(Database):
    SUPPORTED_BACKENDS: ClassVar[dict[str, str]] = {"sqlite": f"{WalBackend.__module__}:{WalBackend.__qualname__}"}


class _Record(Protocol):
    """A row as `databases` returns it."""

    def keys(self) -> Iterable[str]: ...
    def values(self) -> Iterable[Any]: ...


class _Connection(Protocol):
    """What is used of `databases.core.Connection`, with the types it leaves out."""

    @property
    def raw_connection(self) -> Any: ...
    async def fetch_one(self, query: ClauseElement) -> _Record | None: ...
    async def fetch_all(self, query: ClauseElement) -> list[_Record]: ...
    async def execute(self, query: ClauseElement) -> Any: ...


class Transaction:
    """
    The statements of one transaction. Made by `Store.run` and closed with it; safe to use from child tasks.

    Repositories take a `Store` or a `Transaction` and call `run` on either: on a transaction it joins.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection

    async def one(self, query: Query) -> Row | None:
        """The first row by column name, or None."""
        with translated():
            row = await self._open().fetch_one(query)
        return None if row is None else _named(row)

    async def all(self, query: Query) -> list[Row]:
        with translated():
            rows = await self._open().fetch_all(query)
        return [_named(row) for row in rows]

    async def insert(self, statement: Insert) -> int:
        """Insert one row and return its id. Raises `Conflict`, `BrokenReference`."""
        return await self._execute(statement)

    async def change(self, statement: Update | Delete) -> int:
        """The number of rows that the statement matched and so wrote or removed."""
        return await self._execute(statement)

    async def upsert(self, table: Table, row: Row) -> None:
        """Insert `row`, or replace the named columns of the row that has its primary key."""
        key = [column.name for column in table.primary_key]
        statement = sqlite.insert(table).values(**row)
        rest = {name: statement.excluded[name] for name in row if name not in key}
        await self._execute(statement.on_conflict_do_update(index_elements=key, set_=rest))

    async def bulk(self, table: Table, rows: Sequence[Row]) -> None:
        """
        Insert many rows with the driver's own `executemany`. All rows have the keys of the first; values are what
        the driver takes (int, str, bool, None).
        """
        if not rows:
            return
        text, names = _insert_text(table, tuple(rows[0]))
        arguments = [tuple(row[name] for name in names) for row in rows]
        with translated():
            async with _raw(self._open()).executemany(text, arguments):
                pass

    async def run(self, work: "Callable[[Transaction], Awaitable[T]]") -> T:
        """Run `work` as a part of this transaction."""
        return await work(self)

    def close(self) -> None:
        """The transaction is over: any later statement is a mistake and raises RuntimeError."""
        self._connection = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def _open(self) -> _Connection:
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        return self._connection

    async def _execute(self, statement: ClauseElement) -> int:
        with translated():
            return cast("int", await self._open().execute(statement))


# The transaction that the running code is a part of, to tell a mistake from a deadlock.
_CURRENT: ContextVar[Transaction | None] = ContextVar("tollway.store.transaction", default=None)


class Store:
    """
    A database, by URL (see `address.parse`). Raises `Unsupported` for one that cannot be served.

    Statements outside `run` are transactions of their own. The schema is not made here: see `migrate`.
    """

    def __init__(self, url: str) -> None:
        self.address = parse(url)
        self._database = _open_database(self.address)
        # Writers queue here, in order and without sleeping; SQLite's own lock is met only by another process.
        self._writer = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def connect(self) -> None:
        """Open the pool. Raises `Unavailable` if the file cannot be opened."""
        await self._database.connect()
        async with self._connection():
            pass

    async def close(self) -> None:
        """Wait for the work that was begun, then close every connection."""
        while self._running:
            await asyncio.wait(self._running)
        await self._database.disconnect()

    async def one(self, query: Query) -> Row | None:
        """The first row by column name, or None."""
        async with self._connection() as connection:
            return await Transaction(connection).one(query)

    async def all(self, query: Query) -> list[Row]:
        async with self._connection() as connection:
            return await Transaction(connection).all(query)

    async def insert(self, statement: Insert) -> int:
        """Insert one row and return its id. Raises `Conflict`, `BrokenReference`."""
        return await self.run(lambda transaction: transaction.insert(statement))

    async def change(self, statement: Update | Delete) -> int:
        """The number of rows that the statement matched and so wrote or removed."""
        return await self.run(lambda transaction: transaction.change(statement))

    async def upsert(self, table: Table, row: Row) -> None:
        """Insert `row`, or replace the named columns of the row that has its primary key."""
        await self.run(lambda transaction: transaction.upsert(table, row))

    async def bulk(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert many rows with the driver's own `executemany`, all or none."""
        await self.run(lambda transaction: transaction.bulk(table, rows))

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """
        Run `work` in a transaction: committed when it returns, rolled back when it raises.

        It is finished even if the caller is cancelled meanwhile. Raises RuntimeError when called by `work` itself:
        hand the transaction on instead, it has the same methods.
        """

        async def transact() -> T:
            async with self._writer, self._connection() as connection:
                raw = _raw(connection)
                transaction = Transaction(connection)
                _CURRENT.set(transaction)
                try:
                    with translated():
                        await raw.begin()
                    result = await work(transaction)
                    with translated():
                        await raw.commit()
                except BaseException:
                    await raw.rollback()
                    raise
                finally:
                    transaction.close()
                return result

        return await self._shielded(transact)

    async def run_plain(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run a plain function in a transaction, on the driver's connection and in its thread. SQLite only.

        For batches: one visit to the thread costs as much as some ten rows. Shielded like `run`.
        """

        async def transact() -> T:
            async with self._writer, self._connection() as connection:
                with translated():
                    return await _raw(connection).transact(work)

        return await self._shielded(transact)

    async def _shielded(self, transact: Callable[[], Awaitable[T]]) -> T:
        outer = _CURRENT.get()
        if outer is not None and outer.is_open:
            raise RuntimeError("a transaction inside a transaction would wait for itself: hand the outer one on")
        task = asyncio.ensure_future(transact())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[_Connection]:
        if not self._database.is_connected:
            raise RuntimeError("the store is not connected")
        async with self._database.connection() as connection:
            yield cast("_Connection", connection)


Session: TypeAlias = Store | Transaction


def _insert_text(table: Table, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The INSERT of these columns as the driver's own SQL, and the order in which it takes their values."""
    dialect: CompilerDialect = sqlite.dialect(paramstyle="qmark")
    compiled = table.insert().compile(dialect=dialect, column_keys=list(names))
    order = compiled.positiontup or []
    return compiled.string, tuple(order)


def _open_database(address: Address) -> Database:
    check_served(address)
    return _Database("sqlite:///", path=address.path, busy_timeout_ms=address.busy_timeout_ms)


def _named(record: _Record) -> Row:
    return dict(zip(record.keys(), record.values(), strict=True))


def _raw(connection: _Connection) -> WalConnection:
    return cast("WalConnection", connection.raw_connection)


def _log_failure(task: "asyncio.Task[Any]") -> None:
    """Nobody waits for this task any more, so nobody would hear of its failure."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a transaction failed after its caller had gone: %s", failure)
