"""
PostgreSQL as an engine of the store, through `databases` and asyncpg.

The backend that comes with `databases` passes on a URL of which it ignores options in silence, and answers an UPDATE
with None. Here the options are those of `Server`, and a statement answers with what it did.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias, cast
from uuid import uuid4

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from databases import Database
from databases.backends.postgres import PostgresBackend, PostgresConnection
from databases.core import DatabaseURL
from sqlalchemy import ClauseElement, Insert, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.exc import DBAPIError

from . import tls
from .engine import Columns, Inserts, Row, Rows, Written
from .errors import BadValue, BrokenReference, Conflict, Contended, StoreError, Unavailable, Unsupported
from .server_address import Server

Raw: TypeAlias = Any  # asyncpg.Connection, whose types are left open
Compiled: TypeAlias = tuple[str, list[Any], Any]

# A statement that takes longer has met a server that hangs; a server paused for half a minute is waited for.
COMMAND_TIMEOUT_S = 60.0
# A transaction that hears no statement for so long belongs to a process that hangs or is cut off: its locks must not
# keep others waiting.
ABANDONED_S = 10
IDLE_CONNECTION_S = 300.0
CLOSE_WITHIN_S = 5.0

# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNIQUE, FOREIGN_KEY = "23505", "23503"
SERIALIZATION, DEADLOCK = "40001", "40P01"
# Connection, credentials, unknown database and schema, resources, operator, system, damage; then read-only, lock
# timeout, missing privilege.
UNAVAILABLE_CLASSES = ("08", "28", "3D", "3F", "53", "57", "58", "XX", "F0")
UNAVAILABLE = frozenset({"25006", "55P03", "42501"})
BAD_VALUE_CLASS = "22"
GONE = re.compile("connection (is|was) closed|pool is clos|released back to the pool")


def connect_options(server: Server) -> dict[str, Any]:
    """The keywords of `asyncpg.connect` for this server. Raises `Unsupported`."""
    context: ssl.SSLContext | str | bool | None = tls.context(server)
    if server.tls == "prefer":
        context = "prefer"  # as asyncpg spells it: encrypted where the server can, else plain
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password.reveal(),
        "database": server.name,
        "ssl": False if context is None or server.host.startswith("/") else context,
        "timeout": server.connect_timeout_s,
        "command_timeout": COMMAND_TIMEOUT_S,
        "statement_cache_size": server.statement_cache,
        "server_settings": {"application_name": server.application},
    }


def migration_options(server: Server) -> dict[str, Any]:
    """The keywords for SQLAlchemy's own use of asyncpg: no limit of time, and no two statements of one name."""
    options = connect_options(server) | {"command_timeout": None}
    return options | {
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__tollway_{uuid4().hex}__",
    }


async def _prepare(raw: Raw) -> None:
    """A sum of whole numbers is NUMERIC here, and an int everywhere else. Raises `Unsupported`."""
    # In another encoding a name might not fit its column, and one log row that is refused keeps all charges waiting.
    if (encoding := getattr(raw.get_settings(), "server_encoding", "UTF8")) != "UTF8":
        raise Unsupported(f"the encoding of the PostgreSQL database is {encoding}, and must be UTF8")
    await raw.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number)


def _number(text: str) -> int | Decimal:
    return int(text) if text.lstrip("-").isdecimal() else Decimal(text)


async def _leave_alone(_: Raw) -> None:
    """No reset between two users of a connection: it would be a round trip, and nobody here alters a session."""


class Backend(PostgresBackend):
    """The server comes as a keyword, so that nothing is bent by the rules of URLs."""

    def __init__(self, database_url: DatabaseURL | str, *, server: Server) -> None:
        super().__init__(database_url)
        self._server = server

    async def connect(self) -> None:
        self._pool = await cast("Any", asyncpg).create_pool(
            **connect_options(self._server),
            min_size=0,
            max_size=self._server.pool_size,
            max_inactive_connection_lifetime=IDLE_CONNECTION_S,
            init=_prepare,
            reset=_leave_alone,
        )

    async def disconnect(self) -> None:
        pool: Any = self._pool
        self._pool = None
        # When the time is over it closes every connection as it is: the server hangs, or somebody still waits for it.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await pool.close()

    def connection(self) -> PostgresConnection:
        return BackendConnection(self, self._dialect)


class BackendConnection(PostgresConnection):
    """Statements on a pooled connection."""

    async def execute(self, query: ClauseElement) -> Written:
        """The new id, where the table has one, and the number of rows that were matched."""
        # Asked for by name: an id that the statement itself gives is no default that SQLAlchemy would return.
        if isinstance(query, Insert) and (column := query.table.c.get("id")) is not None:
            query = query.returning(column)
        text, arguments, columns = cast("Compiled", self._compile(query))  # pyright: ignore[reportUnknownMemberType]
        raw: Raw = self.raw_connection
        if columns:
            rows = await raw.fetch(text, *arguments)
            return Written(rows[0][0] if rows and isinstance(rows[0][0], int) else 0, len(rows))
        status: str = await raw.execute(text, *arguments)
        count = status.rpartition(" ")[2]  # UPDATE 3, DELETE 3, INSERT 0 3
        return Written(0, int(count) if count.isdecimal() else 0)


class _Database(Database):
    SUPPORTED_BACKENDS: ClassVar[dict[str, str]] = {"postgresql": f"{Backend.__module__}:{Backend.__qualname__}"}


class PostgresqlEngine:
    """A database on a PostgreSQL server."""

    one_writer = False

    def __init__(self, server: Server) -> None:
        self._server = server
        dialect = asyncpg_dialect.dialect()
        self._adding, self._replacing = Inserts(dialect, _adding), Inserts(dialect, _replacing)

    def open(self) -> Database:
        return _Database("postgresql:///", server=self._server)

    def meaning(self, error: BaseException) -> StoreError | None:
        return meaning(error, self._server.shown)

    async def begin(self, raw: Raw) -> None:
        # The limit is set here, in the same message: PgBouncer refuses it at the beginning of a session.
        await raw.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
            f"SET LOCAL idle_in_transaction_session_timeout = '{ABANDONED_S}s'"
        )

    async def commit(self, raw: Raw) -> None:
        # A transaction that had failed answers a COMMIT with ROLLBACK, and with no error.
        if await raw.execute("COMMIT") != "COMMIT":
            raise RuntimeError("a transaction whose statement had failed was committed: let the failure out of `work`")

    async def rollback(self, raw: Raw) -> None:
        if raw.is_in_transaction():
            await raw.execute("ROLLBACK")

    def upsert(self, table: Table, row: Row) -> Insert:
        return _replacing(table, tuple(row)).values(**row)

    async def bulk(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        await raw.copy_records_to_table(table.name, records=rows, columns=columns)

    async def add_up(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        await raw.executemany(*self._adding.of(table, columns, rows))

    async def replace(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        await raw.executemany(*self._replacing.of(table, columns, rows))


def _replacing(table: Table, columns: Columns) -> postgresql.Insert:
    key = [column.name for column in table.primary_key]
    statement = postgresql.insert(table)
    if rest := {name: statement.excluded[name] for name in columns if name not in key}:
        return statement.on_conflict_do_update(index_elements=key, set_=rest)
    return statement.on_conflict_do_nothing(index_elements=key)


def _adding(table: Table, columns: Columns) -> Insert:
    key = [column.name for column in table.primary_key]
    statement = postgresql.insert(table)
    more = {name: table.c[name] + statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=more)


def meaning(error: BaseException | None, where: str) -> StoreError | None:
    """What an exception of asyncpg, or of SQLAlchemy around it, means. `where` is the database as it is shown."""
    if isinstance(error, DBAPIError):
        return meaning(error.orig and (error.orig.__cause__ or error.orig), where)
    if isinstance(error, TimeoutError):
        return Unavailable(f"{where} did not answer in time")
    if isinstance(error, OSError):
        return Unavailable(f"{where}: {error.strerror or error}")
    if isinstance(error, asyncpg.InternalClientError):
        # How asyncpg says that the server's last words, such as those of its administrator, met a statement half way.
        return Unavailable(f"{where}: the connection broke")
    if isinstance(error, asyncpg.InterfaceError):
        # Of the many mistakes that are one of these, a connection that is gone is no mistake of ours.
        return Unavailable(f"{where}: the connection is gone") if GONE.search(str(error)) else None
    if isinstance(error, UnicodeEncodeError):
        return BadValue("a text holds a character that cannot be stored")
    if isinstance(error, asyncpg.DataError) and (cause := error.__cause__) is not None:
        # A value that asyncpg does not send at all. Its own words show the value; their cause only says what is wrong.
        return meaning(cause, where) or BadValue(str(cause))
    return _meaning_of_state(error, where) if isinstance(error, asyncpg.PostgresError) else None


def _meaning_of_state(error: asyncpg.PostgresError, where: str) -> StoreError | None:
    # Without the lines DETAIL and HINT that `str` adds: they show values.
    message = str(error.args[0]) if error.args else type(error).__name__
    state = str(getattr(error, "sqlstate", None) or "")
    if state == UNIQUE:
        return Conflict(message)
    if state == FOREIGN_KEY:
        return BrokenReference(message)
    if state in {SERIALIZATION, DEADLOCK}:
        return Contended(f"{where}: {message}")
    if state.startswith(UNAVAILABLE_CLASSES) or state in UNAVAILABLE:
        return Unavailable(f"{where}: {message}")
    if state.startswith(BAD_VALUE_CLASS):
        return BadValue(message)
    return None
