"""
Settings: what a process is told at its start, read from the environment once and frozen.

Names are New API's where it has them. A mounted app passes `Settings(...)` and no environment is read.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .secret import Secret
from .setting_texts import (
    SECRETS,
    database_url,
    networks,
    number,
    origins,
    redis_url,
    secret,
    secret_list,
    switch,
    webhook_secret,
    webhook_url,
    whole,
)


class SettingError(ValueError):
    """A setting that cannot be used. The message is one sentence that names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Everything a process needs to start. Times are in seconds, sizes in bytes, unless the name says otherwise.

    Empty secrets are generated and kept in `data_dir` (mode 0600) by whoever opens the store.
    """

    data_dir: Path = Path("data")
    database_url: str = field(default="", repr=False)
    """Empty: SQLite in `data_dir`. Not in `repr`, as the next: a password may stand in it."""
    log_database_url: str = field(default="", repr=False)
    """Empty: logs live in the main database."""
    redis_url: Secret = field(default_factory=lambda: Secret(""))
    """Empty: limits are counted in each process, and changes are seen by polling."""
    journal_fsync_ms: int = 50
    """How often the journal is made durable; 0: before each answer ends."""
    journal_max_bytes: int = 256 * 1024 * 1024
    """Beyond it new requests are refused until the database has taken what waits."""
    host: str = "127.0.0.1"
    port: int = 3000
    workers: int = 1
    """Processes of `tollway serve`; a mounted app is one anyway."""
    crypto_secret: Secret = field(default_factory=lambda: Secret(""))
    crypto_secret_former: tuple[Secret, ...] = ()
    """Earlier ones: they open what was encrypted under them, and encrypt nothing."""
    max_request_bytes: int = 32 * 1024 * 1024
    max_answer_bytes: int = 256 * 1024 * 1024
    connect_timeout: float = 10.0
    first_byte_timeout: float = 120.0
    streaming_timeout: float = 120.0
    """The longest silence between two reads of an answer."""
    relay_timeout: float = 3600.0
    shutdown_timeout: float = 120.0
    idle_connection_timeout: float = 90.0
    max_idle_connections: int = 512
    allow_private_upstreams: bool = True
    azure_api_version: str = "2025-04-01-preview"
    force_stream_option: bool = True
    get_media_token: bool = True
    """Measure pictures and sound, where tokens are counted here; else they count flat."""
    get_media_token_not_stream: bool = True
    """The same for requests that do not stream."""
    access_log: bool = True
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed."""
    cors_origins: tuple[str, ...] = ("*",)
    metrics_token: Secret = field(default_factory=lambda: Secret(""))
    """When set, `/metrics` wants it as a bearer token."""
    notify_webhook_url: Secret = field(default_factory=lambda: Secret(""))
    """Where notices are posted as JSON. Empty: they are in the log only."""
    notify_webhook_secret: Secret = field(default_factory=lambda: Secret(""))
    """When set, what is posted there is signed with it."""
    notification_limit_minutes: int = 10
    notify_limit_count: int = 2
    """At most so many notices of one kind about the same budget or user in that time."""

    @property
    def database(self) -> str:
        """The database's URL, with the embedded default filled in."""
        return self.database_url or f"sqlite:///{quote(str(self.data_dir / 'tollway.db'))}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Settings from the environment. Raises `SettingError` for the first variable that cannot be used."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for variable in VARIABLES:
            text = environ.get(variable.name, "").strip()
            if text and variable.field not in values:  # of several names of one thing the first counts
                try:
                    values[variable.field] = variable.parse(text)
                except ValueError as error:
                    shown = "" if variable.is_secret else f", not {text!r}"
                    raise SettingError(f"{variable.name} must be {variable.kind}{shown}: {error}") from None
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, the field it fills, how it is read, and what it means."""

    name: str
    field: str
    parse: Callable[[str], Any]
    kind: str
    meaning: str

    @property
    def is_secret(self) -> bool:
        """Whether no message may show its text: it is a secret, or may hold one."""
        return self.parse in SECRETS


SECONDS = "a number of seconds"
MOST_WORKERS = 256

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "DATA_DIR", "data_dir", Path, "a folder", "Where the database, the secrets and the journal live. Default: data"
    ),
    Variable(
        "SQL_DSN",
        "database_url",
        database_url,
        "a database URL",
        "postgresql://user:password@host/name, mysql://..., sqlite:////path/file.db. Default: DATA_DIR/tollway.db",
    ),
    Variable(
        "DATABASE_URL",
        "database_url",
        database_url,
        "a database URL",
        "The same, under its common name; SQL_DSN goes before it",
    ),
    Variable(
        "SQLITE_PATH",
        "database_url",
        lambda path: f"sqlite:///{path}",
        "a file",
        "The SQLite file, if not DATA_DIR/tollway.db; the two above go before it",
    ),
    Variable(
        "LOG_SQL_DSN",
        "log_database_url",
        database_url,
        "a database URL",
        "A database of its own for the logs. Default: the main one",
    ),
    Variable(
        "REDIS_CONN_STRING",
        "redis_url",
        redis_url,
        "a Redis URL",
        "Redis, for limits that count over all processes and for changes seen at once. Default: none",
    ),
    Variable(
        "JOURNAL_FSYNC_MS",
        "journal_fsync_ms",
        whole(0, 10_000),
        "a number of milliseconds",
        "How often the journal is made durable; 0: before each answer ends. Default: 50",
    ),
    Variable(
        "JOURNAL_MAX_MB",
        "journal_max_bytes",
        whole(16, 1024 * 1024, 1024 * 1024),
        "a number of MiB",
        "The largest journal of a process; beyond it new requests are refused. Default: 256",
    ),
    Variable("HOST", "host", str, "an address", "The address to listen on. Default: 127.0.0.1"),
    Variable("PORT", "port", whole(0, 65535), "a port", "The port to listen on. Default: 3000"),
    Variable(
        "WORKERS",
        "workers",
        whole(1, MOST_WORKERS),
        "a number of processes",
        "Processes that serve, on one port and data directory. Default: 1",
    ),
    Variable(
        "CRYPTO_SECRET",
        "crypto_secret",
        secret,
        "a secret",
        "Encrypts channel keys and hashes tokens. Default: generated into DATA_DIR",
    ),
    Variable(
        "CRYPTO_SECRET_FORMER",
        "crypto_secret_former",
        secret_list,
        "a secret, or several between commas",
        "Earlier ones, which open what was encrypted under them: see tollway db rotate-secret --help. Default: none",
    ),
    Variable(
        "MAX_REQUEST_BODY_MB",
        "max_request_bytes",
        whole(1, 4096, 1024 * 1024),
        "a number of MiB",
        "The largest request body. Default: 32",
    ),
    Variable(
        "MAX_ANSWER_BODY_MB",
        "max_answer_bytes",
        whole(1, 4096, 1024 * 1024),
        "a number of MiB",
        "The largest answer held in memory. Default: 256",
    ),
    Variable(
        "CONNECT_TIMEOUT",
        "connect_timeout",
        number(0.01, 600),
        SECONDS,
        "Seconds to reach an upstream: DNS, TCP and TLS. Default: 10",
    ),
    Variable(
        "FIRST_BYTE_TIMEOUT",
        "first_byte_timeout",
        number(0, 86400),
        SECONDS,
        "Seconds from the request sent to the first byte; 0: no limit. Default: 120",
    ),
    Variable(
        "STREAMING_TIMEOUT",
        "streaming_timeout",
        number(0, 86400),
        SECONDS,
        "The longest silence inside an answer, in seconds; 0: no limit. Default: 120",
    ),
    Variable(
        "RELAY_TIMEOUT",
        "relay_timeout",
        number(0, 86400),
        SECONDS,
        "Seconds for a whole upstream exchange; 0: no limit. Default: 3600",
    ),
    Variable(
        "SHUTDOWN_TIMEOUT_SECONDS",
        "shutdown_timeout",
        number(0, 86400),
        SECONDS,
        "How long open requests may finish after SIGTERM. Default: 120",
    ),
    Variable(
        "RELAY_IDLE_CONN_TIMEOUT",
        "idle_connection_timeout",
        number(0, 86400),
        SECONDS,
        "Seconds that an idle upstream connection is kept. Default: 90",
    ),
    Variable(
        "RELAY_MAX_IDLE_CONNS",
        "max_idle_connections",
        whole(0, 100_000),
        "a whole number",
        "Idle upstream connections kept in all. Default: 512",
    ),
    Variable(
        "ALLOW_PRIVATE_UPSTREAMS",
        "allow_private_upstreams",
        switch,
        "true or false",
        "Channels may point at private addresses. Default: true",
    ),
    Variable(
        "AZURE_DEFAULT_API_VERSION",
        "azure_api_version",
        str,
        "a version",
        "For Azure channels that name none. Default: 2025-04-01-preview",
    ),
    Variable(
        "FORCE_STREAM_OPTION",
        "force_stream_option",
        switch,
        "true or false",
        "Ask upstreams for usage in streams. Default: true",
    ),
    Variable(
        "GET_MEDIA_TOKEN",
        "get_media_token",
        switch,
        "true or false",
        "Measure pictures and sound where their tokens are counted here; else they count flat. Default: true",
    ),
    Variable(
        "GET_MEDIA_TOKEN_NOT_STREAM",
        "get_media_token_not_stream",
        switch,
        "true or false",
        "The same for requests that do not stream. Default: true",
    ),
    Variable(
        "ACCESS_LOG",
        "access_log",
        switch,
        "true or false",
        "Write one line a request to standard output. Default: true",
    ),
    Variable(
        "TRUSTED_PROXIES",
        "trusted_proxies",
        networks,
        "a comma list of networks",
        "Proxies whose X-Forwarded-For is believed. Default: none",
    ),
    Variable(
        "CORS_ORIGINS", "cors_origins", origins, "a comma list of origins", "Who may call from a browser. Default: *"
    ),
    Variable(
        "METRICS_TOKEN", "metrics_token", secret, "a secret", "A bearer token that /metrics then wants. Default: none"
    ),
    Variable(
        "NOTIFY_WEBHOOK_URL",
        "notify_webhook_url",
        webhook_url,
        "a URL",
        "Where notices of low budgets and balances are posted as JSON. Default: none, they are in the log only",
    ),
    Variable(
        "NOTIFY_WEBHOOK_SECRET",
        "notify_webhook_secret",
        webhook_secret,
        "base64 of 24 to 64 bytes",
        "Signs those notices as standardwebhooks.com has it; `whsec_` may stand before it. Default: none, unsigned",
    ),
    Variable(
        "NOTIFICATION_LIMIT_DURATION_MINUTE",
        "notification_limit_minutes",
        whole(1, 43_200),
        "a number of minutes",
        "The time that NOTIFY_LIMIT_COUNT is about. Default: 10",
    ),
    Variable(
        "NOTIFY_LIMIT_COUNT",
        "notify_limit_count",
        whole(1, 1000),
        "a whole number",
        "The most notices of one kind about the same budget or user in that time. Default: 2",
    ),
)
