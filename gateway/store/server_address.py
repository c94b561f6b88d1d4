"""A database on a server, out of a URL or the form of Go's MySQL driver. No option is ignored in silence."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from ...config.secret import Secret
from .errors import Unsupported

ServerDialect = Literal["postgresql", "mysql"]
TlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

NAMES: dict[ServerDialect, str] = {"postgresql": "PostgreSQL", "mysql": "MySQL"}
PORTS: dict[ServerDialect, int] = {"postgresql": 5432, "mysql": 3306}
# As the tools of each do without a word: libpq tries TLS first, Go's driver does not.
TLS_DEFAULTS: dict[ServerDialect, TlsMode] = {"postgresql": "prefer", "mysql": "disable"}
TLS_MODES: dict[str, TlsMode] = {
    "disable": "disable",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
}
# `tls` of Go's MySQL driver.
GO_TLS: dict[str, TlsMode] = {
    "false": "disable",
    "true": "verify-full",
    "skip-verify": "require",
    "preferred": "prefer",
}
# Options that steer how another driver reads dates or talks to the server, and that nothing here depends on: times
# are whole numbers in the tables, and rows matched are counted anyway.
HARMLESS: dict[ServerDialect, frozenset[str]] = {
    "postgresql": frozenset({"TimeZone", "timezone"}),
    "mysql": frozenset(
        {
            "parseTime",
            "loc",
            "interpolateParams",
            "allowNativePasswords",
            "checkConnLiveness",
            "clientFoundRows",
            "maxAllowedPacket",
        }
    ),
}

POOL_SIZE = 10
MOST_CONNECTIONS = 1000
CONNECT_TIMEOUT_S = 10.0
STATEMENT_CACHE = 100

DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)")  # Go's, as far as a timeout needs it
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    A database on a server. `host` is a name or an address, or a path: of the folder of PostgreSQL's socket, of
    MySQL's socket itself. `tls_root` is a file of certificates to trust, empty for the system's.
    `statement_cache` (PostgreSQL) is the number of prepared statements a connection keeps, 0 behind PgBouncer.
    """

    dialect: ServerDialect
    host: str
    port: int
    user: str
    password: Secret
    name: str
    tls: TlsMode
    tls_root: str = ""
    pool_size: int = POOL_SIZE
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    statement_cache: int = STATEMENT_CACHE
    application: str = "tollway"

    @property
    def shown(self) -> str:
        """For logs and messages: without user, password and options."""
        return f"{self.dialect}://{self.host}:{self.port}/{self.name}"


def parse_url(dialect: ServerDialect, rest: str) -> Server:
    """`rest` is a URL without its scheme: `user:password@host:port/name?options`. Raises `Unsupported`."""
    # Whatever follows the last @ before the path: a password may hold anything, quoted or not.
    authority, slash, tail = _split_authority(rest)
    name, _, query = tail.partition("?")
    if not slash and "?" in authority:
        authority, _, query = authority.partition("?")
    credentials, _, place = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    try:
        parts = urlsplit(f"//{place}")
        host, port = unquote(parts.hostname or ""), parts.port
    except ValueError:
        raise Unsupported(f"the port of a {NAMES[dialect]} URL must be a number from 1 to 65535") from None
    if "," in place:
        raise Unsupported(f"a {NAMES[dialect]} URL names one host: put a proxy before several")
    return _server(dialect, host, port, unquote(user), unquote(password), unquote(name), query)


def parse_go(user: str, password: str, protocol: str, place: str, name: str, query: str) -> Server:
    """The parts of `user:password@tcp(host:port)/name?options`, which nothing is quoted in. Raises `Unsupported`."""
    if protocol == "unix":
        return _server("mysql", place, None, user, password, name, query)
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Unsupported("the port of a MySQL address must be a number from 1 to 65535") from None
    return _server("mysql", host, port, user, password, unquote(name), query)


def _split_authority(rest: str) -> tuple[str, str, str]:
    """Cut at the first slash after the last @ of what can be user, password and host."""
    head = rest.partition("?")[0]
    at = head.rfind("@")
    slash = rest.find("/", at + 1)
    end = slash if slash != -1 else len(rest)
    return rest[:end], rest[end : end + 1], rest[end + 1 :]


def _server(
    dialect: ServerDialect, host: str, port: int | None, user: str, password: str, name: str, query: str
) -> Server:
    options = _Options(dialect, query)
    socket = options.text("host" if dialect == "postgresql" else "unix_socket")
    if socket and not socket.startswith("/"):
        raise Unsupported(f"the host of a {NAMES[dialect]} URL stands before its path; the option is for a socket")
    tls = options.tls()
    root = options.text("sslrootcert")
    if root and tls == "require":
        tls = "verify-ca"  # as libpq does it
    if root and tls in {"disable", "prefer"}:
        raise Unsupported(f"sslrootcert is of no use with sslmode={tls}: say sslmode=verify-full")
    options.require("charset", {"utf8mb4"}) if dialect == "mysql" else options.require(
        "client_encoding", {"utf8", "utf-8"}
    )
    if dialect == "mysql" and not options.text("collation", "utf8mb4_").startswith("utf8mb4_"):
        raise Unsupported("the collation of a MySQL URL must be one of utf8mb4")
    server = Server(
        dialect=dialect,
        host=socket or host or "127.0.0.1",
        port=port or PORTS[dialect],
        user=user,
        password=Secret(password),
        name=name,
        tls=tls,
        tls_root=root,
        pool_size=options.number("pool_size", POOL_SIZE, 2, MOST_CONNECTIONS),
        connect_timeout_s=options.connect_timeout(),
        statement_cache=options.number("statement_cache_size", STATEMENT_CACHE, 0, 10_000),
        application=options.text("application_name", "tollway"),
    )
    options.refuse_rest()
    if not user or not name:
        form = f"{dialect}://user:password@host/name"
        raise Unsupported(f"a {NAMES[dialect]} URL names its user and its database, as in {form}")
    return server


class _Options:
    """The options of one URL: each is taken by whoever understands it, and what is left over is refused."""

    def __init__(self, dialect: ServerDialect, query: str) -> None:
        self._dialect: ServerDialect = dialect
        self._left = dict(parse_qsl(query, keep_blank_values=True))

    def text(self, name: str, default: str = "") -> str:
        return self._left.pop(name, default)

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self._left.pop(name, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
            raise Unsupported(f"{name} of a database URL must be a whole number from {least} to {most}")
        return int(text)

    def tls(self) -> TlsMode:
        text = self._left.pop("sslmode", None)
        if text is None and self._dialect == "mysql" and (go := self._left.pop("tls", None)) is not None:
            if go not in GO_TLS:
                raise Unsupported(f"tls of a MySQL URL must be one of {', '.join(GO_TLS)}")
            return GO_TLS[go]
        if text is None:
            return TLS_DEFAULTS[self._dialect]
        if text not in TLS_MODES:
            raise Unsupported(f"sslmode of a database URL must be one of {', '.join(TLS_MODES)}")
        return TLS_MODES[text]

    def require(self, name: str, allowed: set[str]) -> None:
        """Refuse an encoding that not every text fits into."""
        if (text := self._left.pop(name, None)) is not None and text.lower() not in allowed:
            raise Unsupported(f"{name} of a database URL can only be {min(allowed)}: other names would be lost")

    def connect_timeout(self) -> float:
        """`connect_timeout` in seconds, or Go's `timeout` as a duration."""
        if self._dialect == "mysql" and (text := self._left.pop("timeout", None)) is not None:
            found = DURATION.fullmatch(text)
            if found is None or not 0 < float(found[1]) * SECONDS[found[2]] <= 3600:
                raise Unsupported("timeout of a MySQL URL must be a duration such as 10s")
            return float(found[1]) * SECONDS[found[2]]
        return float(self.number("connect_timeout", int(CONNECT_TIMEOUT_S), 1, 3600))

    def refuse_rest(self) -> None:
        for name in self._left:
            if name not in HARMLESS[self._dialect]:
                shown = name if re.fullmatch(r"[A-Za-z_]{1,40}", name) else "of this name"
                raise Unsupported(f"the option {shown} of a {NAMES[self._dialect]} URL is not understood")
