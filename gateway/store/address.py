"""Database URLs in every spelling an operator may have, as one value."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote

from . import server_address
from .errors import Unsupported
from .server_address import Server

Dialect = Literal["sqlite", "postgresql", "mysql"]

DIALECTS: dict[str, Dialect] = {
    "sqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
BUSY_TIMEOUT_MS = 10_000

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")

# user:password@tcp(host:3306)/name, as Go's MySQL driver (and so New API's SQL_DSN) spells it.
GO_MYSQL = re.compile(
    r"(?P<user>[^:@/]*)(:(?P<password>.*))?@(?P<protocol>tcp|unix|)\((?P<place>[^)]*)\)/(?P<name>[^?/]*)"
    r"(\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where the data is. SQLite: `path`, relative to the working directory unless it begins with `/`, and
    `busy_timeout_ms`, how long to wait for another process. PostgreSQL and MySQL: `server`.
    """

    dialect: Dialect
    path: str = ""
    busy_timeout_ms: int = BUSY_TIMEOUT_MS
    server: Server | None = None


def parse(text: str) -> Address:
    """
    Read `sqlite:///relative.db`, `sqlite:////absolute.db`, a plain path that begins with `/`, `postgres://`,
    `postgresql://`, `mysql://`, `mariadb://` (each also with `+driver`) or the MySQL form of Go.

    Raises `Unsupported`, which never shows a text that is not understood: it may hold a password.
    """
    if go := GO_MYSQL.fullmatch(text):
        return Address(
            "mysql",
            server=server_address.parse_go(
                go["user"], go["password"] or "", go["protocol"], go["place"], go["name"], go["query"] or ""
            ),
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text.startswith("/"):
            raise Unsupported("a database is a URL such as sqlite:///file.db, or a path that begins with /")
        return _sqlite(*_cut(text))
    dialect = DIALECTS.get(scheme.partition("+")[0].lower())
    if dialect is None:
        # A scheme is shown, and what a slip has put in its place is not.
        what = f"{scheme}://" if SCHEME.fullmatch(scheme) else "it"
        raise Unsupported(
            f"{what} is no database known here: use sqlite:///file.db, postgresql://, mysql:// or a path that "
            "begins with /"
        )
    if dialect != "sqlite":
        return Address(dialect, server=server_address.parse_url(dialect, rest))
    if not rest.startswith("/"):
        raise Unsupported("a SQLite URL has three slashes before a relative path and four before an absolute one")
    path, query = _cut(rest[1:])
    return _sqlite(unquote(path), query)


def _cut(text: str) -> tuple[str, str]:
    path, _, query = text.partition("?")
    return path, query


def _sqlite(path: str, query: str) -> Address:
    if path in {"", ":memory:"}:
        raise Unsupported("the store needs a SQLite file: every connection to :memory: is a database of its own")
    busy_timeout_ms = BUSY_TIMEOUT_MS
    for name, value in parse_qsl(query, keep_blank_values=True):
        # New API's default SQLITE_PATH ends in ?_busy_timeout=30000. Nothing is ignored in silence.
        if name not in {"_busy_timeout", "busy_timeout"} or not value.isdigit():
            raise Unsupported(f"the option {name} of a SQLite path is not understood: only busy_timeout=<ms> is")
        busy_timeout_ms = int(value)
    return Address("sqlite", path=path, busy_timeout_ms=busy_timeout_ms)


def shown(address: Address) -> str:
    """The address for logs and messages: without user, password and options."""
    return address.path if address.server is None else address.server.shown
