"""SQLite as an engine of the store: one writer at a time, beside readers that never wait."""

import sqlite3
from typing import ClassVar

from databases import Database
from sqlalchemy import Insert, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect as CompilerDialect
from sqlalchemy.exc import DBAPIError

from .address import Address
from .engine import Columns, Inserts, Row, Rows, insert_into
from .errors import BadValue, BrokenReference, Conflict, StoreError, Unavailable
from .sqlite_wal import WalBackend, WalConnection

# https://www.sqlite.org/rescode.html: the low byte is the primary code.
BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, TOOBIG, NOTADB = 5, 6, 8, 10, 11, 13, 14, 18, 26
UNAVAILABLE = frozenset({BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB})


class _Database(Database):
    SUPPORTED_BACKENDS: ClassVar[dict[str, str]] = {"sqlite": f"{WalBackend.__module__}:{WalBackend.__qualname__}"}


class SqliteEngine:
    """A file, or what will be one."""

    one_writer = True

    def __init__(self, address: Address) -> None:
        self._address = address
        dialect: CompilerDialect = sqlite.dialect(paramstyle="qmark")
        self._plain, self._adding = Inserts(dialect, insert_into), Inserts(dialect, _adding)
        self._replacing = Inserts(dialect, _replacing)

    def open(self) -> Database:
        address = self._address
        return _Database("sqlite:///", path=address.path, busy_timeout_ms=address.busy_timeout_ms)

    def meaning(self, error: BaseException) -> StoreError | None:
        return meaning(error)

    async def begin(self, raw: WalConnection) -> None:
        await raw.begin()

    async def commit(self, raw: WalConnection) -> None:
        await raw.commit()

    async def rollback(self, raw: WalConnection) -> None:
        await raw.rollback()

    def upsert(self, table: Table, row: Row) -> Insert:
        return _replacing(table, tuple(row)).values(**row)

    async def bulk(self, raw: WalConnection, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.executemany(*self._plain.of(table, columns, rows)):
            pass

    async def add_up(self, raw: WalConnection, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.executemany(*self._adding.of(table, columns, rows)):
            pass

    async def replace(self, raw: WalConnection, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.executemany(*self._replacing.of(table, columns, rows)):
            pass


def _replacing(table: Table, columns: Columns) -> sqlite.Insert:
    key = [column.name for column in table.primary_key]
    statement = sqlite.insert(table)
    if rest := {name: statement.excluded[name] for name in columns if name not in key}:
        return statement.on_conflict_do_update(index_elements=key, set_=rest)
    return statement.on_conflict_do_nothing(index_elements=key)


def _adding(table: Table, columns: Columns) -> Insert:
    key = [column.name for column in table.primary_key]
    statement = sqlite.insert(table)
    more = {name: table.c[name] + statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=more)


def meaning(error: BaseException | None) -> StoreError | None:
    """What an exception of the driver, or of SQLAlchemy around it, means."""
    match error:
        case DBAPIError():
            return meaning(error.orig)
        case sqlite3.IntegrityError(sqlite_errorname="SQLITE_CONSTRAINT_UNIQUE" | "SQLITE_CONSTRAINT_PRIMARYKEY"):
            return Conflict(str(error))
        case sqlite3.IntegrityError(sqlite_errorname="SQLITE_CONSTRAINT_FOREIGNKEY"):
            return BrokenReference(str(error))
        case sqlite3.Error(sqlite_errorcode=code) if code & 0xFF in UNAVAILABLE:
            return Unavailable(str(error))
        case sqlite3.Error(sqlite_errorcode=code) if code & 0xFF == TOOBIG:
            return BadValue(str(error))
        case OverflowError():
            return BadValue("a number is out of range")
        case UnicodeEncodeError():
            return BadValue("a text holds a character that cannot be stored")
        case OSError():
            return Unavailable(f"{error.filename}: {error.strerror}")
        case _:
            return None
