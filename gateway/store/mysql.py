"""
MySQL and MariaDB as an engine of the store, through `databases` and asyncmy.

The session is made to behave like the other engines: text that does not fit is refused and not cut, names may be
quoted as in standard SQL, reads see what is committed, and an UPDATE counts the rows it matched, also those that had
the new values already.
"""

import asyncio
import ssl
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias, cast

import asyncmy
from asyncmy.constants import CLIENT, FIELD_TYPE
from asyncmy.converters import conversions  # pyright: ignore[reportUnknownVariableType]
from asyncmy.errors import InterfaceError, MySQLError, OperationalError
from asyncmy.pool import Pool
from databases import Database
from databases.backends.asyncmy import AsyncMyBackend, AsyncMyConnection
from databases.core import DatabaseURL
from sqlalchemy import ClauseElement, Insert, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.mysql import pymysql
from sqlalchemy.engine import Dialect as CompilerDialect
from sqlalchemy.exc import DBAPIError

from . import tls
from .engine import Columns, Inserts, Row, Rows, Written, insert_into
from .errors import BadValue, BrokenReference, Conflict, Contended, StoreError, Unavailable
from .server_address import Server

Raw: TypeAlias = Any  # asyncmy.Connection, whose types are left open
Compiled: TypeAlias = tuple[str, dict[str, Any], Any, Any]

# A statement that takes longer has met a server that hangs; a server paused for half a minute is waited for.
READ_TIMEOUT_S = 60.0
IDLE_CONNECTION_S = 300
CLOSE_WITHIN_S = 5.0

# In quotes, which the driver leaves to its user.
SQL_MODE = "'STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,ANSI_QUOTES'"
# A transaction that hears no statement for so long belongs to a process that hangs or is cut off: its locks must not
# keep others waiting. MySQL ends idle connections only, with their transactions.
ABANDONED_S = 10
LIMITS = "/*M!100300 , idle_transaction_timeout = {0} */ /*!80000 , wait_timeout = {0} */"
# A server goes on with a statement whose client has given up, and keeps its locks for so long. MySQL ends queries only.
STATEMENT_LIMIT = "/*M!100300 , max_statement_time = {0:g} */ /*!80000 , max_execution_time = {1:d} */"
ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"

# https://mariadb.com/kb/en/mariadb-error-codes/, which begin as MySQL's do.
UNIQUE = frozenset({1062, 1169, 1586})
FOREIGN_KEY = frozenset({1216, 1217, 1451, 1452})
LOCK_TIMEOUT, DEADLOCK, CHANGED_SINCE_READ = 1205, 1213, 1020
BAD_VALUE = frozenset({1264, 1265, 1366, 1406, 1690, 3140})
UNAVAILABLE = frozenset(
    {
        *(3, 5, 28, 1021, 1030, 1114, 1034, 1194, 1195),  # disk and damaged files
        *(1040, 1041, 1203, 1226, 1037, 1038),  # too many connections, no memory
        *(1044, 1045, 1049, 1046, 1142, 1143, 1227, 1370, 1698, 1820, 4151),  # credentials, rights, unknown database
        *(1290, 1792, 1836),  # read-only
        *(1053, 1077, 1079, 1152, 1153, 1154, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 1969, 3024),  # shut down, cut
        *(2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2055, 2061),  # the client's own
    }
)


def _number(text: str | bytes) -> int | Decimal:
    """A sum of whole numbers is DECIMAL here, and an int everywhere else."""
    written = text.decode() if isinstance(text, bytes) else text
    return int(written) if written.lstrip("-").isdecimal() else Decimal(written)


CONVERSIONS: dict[Any, Any] = cast("dict[Any, Any]", conversions) | {
    FIELD_TYPE.DECIMAL: _number,
    FIELD_TYPE.NEWDECIMAL: _number,
}


async def connect_options(server: Server) -> dict[str, Any]:
    """The keywords of `asyncmy.connect` for this server. Raises `Unsupported`."""
    options = await migration_options(server)
    limit = STATEMENT_LIMIT.format(READ_TIMEOUT_S, int(READ_TIMEOUT_S * 1000))
    return options | {"read_timeout": READ_TIMEOUT_S, "sql_mode": options["sql_mode"] + limit}


async def migration_options(server: Server) -> dict[str, Any]:
    """The same without a limit of time: a table of logs may take long to alter."""
    options: dict[str, Any] = {
        "user": server.user,
        # The driver would take it for Latin-1.
        "password": server.password.reveal().encode(),
        "database": server.name,
        "charset": "utf8mb4",
        "autocommit": True,
        "client_flag": CLIENT.FOUND_ROWS,
        "sql_mode": SQL_MODE + LIMITS.format(ABANDONED_S),  # the driver puts it behind `SET sql_mode = ` as it is
        "init_command": ISOLATION,
        "conv": CONVERSIONS,
        "connect_timeout": server.connect_timeout_s,
        "read_timeout": None,
        "program_name": server.application,
    }
    if server.host.startswith("/"):
        return options | {"unix_socket": server.host}
    options |= {"host": server.host, "port": server.port, "ssl": tls.context(server)}
    if server.tls == "prefer" and not await _speaks_tls(options):
        options["ssl"] = None
    return options


async def _speaks_tls(options: dict[str, Any]) -> bool:
    """Whether the server takes an encrypted connection. The driver itself knows only with and without."""
    try:
        async with asyncio.timeout(options["connect_timeout"]):
            connection = await cast("Any", asyncmy).connect(**options)
    except (OperationalError, ssl.SSLError) as error:
        # Whatever else is wrong is wrong without encryption too, and is said there.
        return isinstance(error, OperationalError) and error.args[0] in {1044, 1045, 1049}
    await connection.ensure_closed()
    return True


class _Pool(cast("Any", Pool)):
    """
    Gives up a connection that is not made within `connect_timeout`, which the driver heeds until the server's greeting
    only. A server that takes connections and says nothing would hold up everyone who wants one.
    """

    async def fill_free_pool(self, override_min: bool = False) -> None:
        async with asyncio.timeout(self._conn_kwargs["connect_timeout"]):
            parent: Any = super()
            await parent.fill_free_pool(override_min)


class Backend(AsyncMyBackend):
    """The server comes as a keyword, so that nothing is bent by the rules of URLs."""

    def __init__(self, database_url: DatabaseURL | str, *, server: Server) -> None:
        super().__init__(database_url)
        self._server = server

    async def connect(self) -> None:
        options = await connect_options(self._server)
        self._pool = _Pool(0, self._server.pool_size, pool_recycle=IDLE_CONNECTION_S, **options)

    async def disconnect(self) -> None:
        pool: Any = self._pool
        self._pool = None
        pool.close()
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await pool.wait_closed()
        except TimeoutError:
            pool.terminate()  # the server hangs, or somebody still waits for it

    def connection(self) -> AsyncMyConnection:
        return BackendConnection(self, self._dialect)


class BackendConnection(AsyncMyConnection):
    """Statements on a pooled connection."""

    async def execute(self, query: ClauseElement) -> Written:
        """The new id, where the table makes one, and the number of rows that were matched."""
        text, arguments, *_ = cast("Compiled", self._compile(query))  # pyright: ignore[reportUnknownMemberType]
        raw: Raw = self.raw_connection
        async with raw.cursor() as cursor:
            await cursor.execute(text, arguments)
            return Written(cursor.lastrowid, cursor.rowcount)


class _Database(Database):
    SUPPORTED_BACKENDS: ClassVar[dict[str, str]] = {"mysql": f"{Backend.__module__}:{Backend.__qualname__}"}


class MysqlEngine:
    """A database on a MySQL or MariaDB server."""

    one_writer = False

    def __init__(self, server: Server) -> None:
        self._server = server
        dialect: CompilerDialect = pymysql.dialect(paramstyle="format")
        self._plain, self._adding = Inserts(dialect, insert_into), Inserts(dialect, _adding)
        self._replacing = Inserts(dialect, _replacing)

    def open(self) -> Database:
        return _Database("mysql:///", server=self._server)

    def meaning(self, error: BaseException) -> StoreError | None:
        return meaning(error, self._server.shown)

    async def begin(self, raw: Raw) -> None:
        await raw.begin()

    async def commit(self, raw: Raw) -> None:
        await raw.commit()

    async def rollback(self, raw: Raw) -> None:
        await raw.rollback()

    def upsert(self, table: Table, row: Row) -> Insert:
        return _replacing(table, tuple(row)).values(**row)

    async def bulk(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.cursor() as cursor:
            await cursor.executemany(*self._plain.of(table, columns, rows))

    async def add_up(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.cursor() as cursor:
            await cursor.executemany(*self._adding.of(table, columns, rows))

    async def replace(self, raw: Raw, table: Table, columns: Columns, rows: Rows) -> None:
        async with raw.cursor() as cursor:
            await cursor.executemany(*self._replacing.of(table, columns, rows))


def _replacing(table: Table, columns: Columns) -> mysql.Insert:
    # Unlike the others, this engine does not ask which key was taken. Tables that are upserted have one.
    key = [column.name for column in table.primary_key]
    statement = mysql.insert(table)
    rest = {name: statement.inserted[name] for name in columns if name not in key}
    return statement.on_duplicate_key_update(rest or {key[0]: table.c[key[0]]})


def _adding(table: Table, columns: Columns) -> Insert:
    key = [column.name for column in table.primary_key]
    statement = mysql.insert(table)
    more = {name: table.c[name] + statement.inserted[name] for name in columns if name not in key}
    return statement.on_duplicate_key_update(more)


def meaning(error: BaseException | None, where: str) -> StoreError | None:
    """What an exception of asyncmy, or of SQLAlchemy around it, means. `where` is the database as it is shown."""
    if isinstance(error, DBAPIError):
        return meaning(error.orig, where)
    if isinstance(error, TimeoutError):
        return Unavailable(f"{where} did not answer in time")
    if isinstance(error, OSError):
        return Unavailable(f"{where}: {error.strerror or error}")
    if isinstance(error, UnicodeEncodeError):
        return BadValue("a text holds a character that cannot be stored")
    return _meaning_of_code(error, where) if isinstance(error, MySQLError) else None


def _meaning_of_code(error: MySQLError, where: str) -> StoreError | None:
    code, message = error.args if len(error.args) == 2 else (0, str(error))
    if code in UNIQUE:
        # Duplicate entry 'what' for key 'uq_users_username': the value may be nobody's business.
        return Conflict(f"duplicate entry for key {str(message).rpartition(' for key ')[2]}")
    if code in FOREIGN_KEY:
        return BrokenReference(str(message))
    if code in {LOCK_TIMEOUT, DEADLOCK, CHANGED_SINCE_READ}:
        return Contended(f"{where}: {message}")
    if code in UNAVAILABLE or isinstance(error, InterfaceError):
        return Unavailable(f"{where}: {message}")
    if code in BAD_VALUE:
        return BadValue(str(message))
    return None
