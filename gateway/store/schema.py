"""
Every table, in SQLAlchemy Core.

Times are BIGINT milliseconds since 1970 (UTC), money is BIGINT quota, JSON is TEXT. Defaults are the server's:
`databases` does not apply Python-side ones. TEXT columns have no default because MySQL allows none.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column spelled INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Column[int]:
    return Column("id", BigId, primary_key=True, autoincrement=True)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _small(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text(str(default)))


def _text(name: str, length: int) -> Column[str]:
    return Column(name, String(length), nullable=False, server_default="")


users = Table(
    "users",
    metadata,
    _id(),
    Column("username", String(64), nullable=False, unique=True),
    _text("display_name", 64),
    _text("email", 255),
    _small("role", 1),
    _small("status", 1),
    Column("password_hash", String(255), nullable=False, server_default=""),
    Column("group", String(64), nullable=False, server_default="default"),
    _count("quota"),
    _count("used_quota"),
    _count("request_count"),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    # Numbers of deleted users are not given out again: logs go on naming them.
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False, index=True),
    _text("name", 64),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("key_prefix", String(32), nullable=False),
    _small("status", 1),
    Column("unlimited", Boolean, nullable=False, server_default=false()),
    _count("remain_quota"),
    _count("used_quota"),
    Column("models", Text),
    Column("allow_ips", Text),
    _text("group", 64),
    Column("expires_at", BigInteger),
    _small("requests_per_minute"),
    _count("tokens_per_minute"),
    _small("parallel_requests"),
    Column("created_at", BigInteger, nullable=False),
    Column("accessed_at", BigInteger),
    Column("deleted_at", BigInteger),
    # The part of `used_quota` that was charged while the token was unlimited, and so not taken from `remain_quota`.
    _count("free_quota"),
    sqlite_autoincrement=True,
)

channels = Table(
    "channels",
    metadata,
    _id(),
    _text("name", 128),
    Column("type", Integer, nullable=False),
    _small("status", 1),
    Column("keys_encrypted", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("groups", Text, nullable=False),
    _text("base_url", 512),
    _count("priority"),
    _small("weight", 1),
    _text("key_mode", 16),
    Column("disabled_keys", Text, nullable=False),
    Column("model_mapping", Text, nullable=False),
    Column("status_code_mapping", Text, nullable=False),
    Column("header_override", Text, nullable=False),
    Column("param_override", Text, nullable=False),
    _text("disconnect", 16),
    Column("auto_ban", Boolean, nullable=False, server_default=true()),
    _text("api_version", 64),
    _text("organization", 128),
    _text("test_model", 255),
    _text("proxy", 512),
    _text("tag", 64),
    _text("status_reason", 512),
    Column("status_at", BigInteger),
    Column("tested_at", BigInteger),
    Column("response_ms", Integer),
    _count("used_quota"),
    Column("created_at", BigInteger, nullable=False),
    # What a cached input token costs, as a share of an input token (0 to 1); empty: as the model's price says.
    _text("prompt_cache_ratio", 32),
    sqlite_autoincrement=True,
)

# Which channel serves which model for which group: written with its channel, for questions asked in SQL.
abilities = Table(
    "abilities",
    metadata,
    Column("group", String(64), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column(
        "channel_id",
        BigInteger,
        ForeignKey("channels.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        index=True,
    ),
    Column("enabled", Boolean, nullable=False),
    _count("priority"),
    _small("weight", 1),
)

options = Table(
    "options",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("ratio", String(32), nullable=False, server_default="1"),
    _text("description", 255),
)

prices = Table(
    "prices",
    metadata,
    Column("model", String(255), primary_key=True),
    Column("price", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

logs = Table(
    "logs",
    metadata,
    _id(),
    # "holder-number": where in whose journal the charge was written first. NULL for rows that charge nobody.
    Column("charge_id", String(64)),
    Column("created_at", BigInteger, nullable=False),
    _small("type"),
    _count("user_id"),
    _text("username", 64),
    _count("token_id"),
    _text("token_name", 64),
    _count("channel_id"),
    _text("channel_name", 128),
    _text("model", 255),
    _text("upstream_model", 255),
    _text("operation", 64),
    _text("group", 64),
    _text("request_id", 64),
    _small("status"),
    Column("is_stream", Boolean, nullable=False, server_default=false()),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("cached_tokens"),
    _count("quota"),
    _text("price_version", 64),
    Column("breakdown", Text),
    _text("outcome", 32),
    Column("estimated", Boolean, nullable=False, server_default=false()),
    _small("attempts"),
    _count("duration_ms"),
    Column("first_byte_ms", BigInteger),
    _text("ip", 64),
    Column("other", Text),
    # Each is a write of every request: pages of a user, a channel or a model come by way of `usage_hourly`.
    Index(None, "created_at"),
    Index(None, "token_id", "model", "created_at"),
    Index(None, "request_id"),
    # Of the outcomes only the unusual are looked for, so only they are in it, save on MySQL, which knows no such
    # indexes: see revision 0005. Said here, it would make every process import PostgreSQL's dialect, 2 MiB.
    Index("ix_logs_outcome", "outcome", "created_at", "id", "user_id", "token_id", "channel_id", "model"),
)

# One row a subject, hour and so on: sums of `logs`, written in the same transaction and kept when logs are deleted.
hourly = Table(
    "usage_hourly",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("token_id", BigInteger, primary_key=True, autoincrement=False),
    Column("channel_id", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String(255), primary_key=True),
    _count("requests"),
    _count("quota"),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("cached_tokens"),
    Index(None, "user_id", "hour"),
    Index(None, "token_id", "hour"),
    Index(None, "channel_id", "hour"),
    Index(None, "model", "hour"),
)

# Where a log database stands: up to which charge of each holder its `logs` and `usage_hourly` go.
log_cursors = Table(
    "log_cursors",
    metadata,
    Column("holder", String(64), primary_key=True),
    _count("flushed"),
)

# Every quota that was given or taken by hand: users and tokens have what these say, less what was charged.
grants = Table(
    "grants",
    metadata,
    _id(),
    _count("user_id"),
    _count("token_id"),
    Column("amount", BigInteger, nullable=False),
    _text("reason", 64),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "user_id"),
    Index(None, "token_id"),
)

# Processes that serve, or did and left something to be recovered. `heartbeat` counts up while the process lives;
# `flushed` is the number of its last charge that the database has; `expired`: its leases were taken back.
holders = Table(
    "holders",
    metadata,
    Column("id", String(64), primary_key=True),
    _text("host", 255),
    _count("heartbeat"),
    _count("flushed"),
    Column("expired", Boolean, nullable=False, server_default=false()),
    Column("started_at", BigInteger, nullable=False),
)

# Quota that was moved from a balance to a process, which spends it from memory. Below 0: charged beyond the lease, and
# settled with the balance by the next move.
leases = Table(
    "leases",
    metadata,
    Column("holder", String(64), primary_key=True),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("subject", BigInteger, primary_key=True, autoincrement=False),
    _count("amount"),
    # Somebody else needs it: the holder gives back what it does not use.
    Column("recalled", Boolean, nullable=False, server_default=false()),
    Index(None, "kind", "subject"),
)

# What a user, a token or a group may spend in each period. `subject`: an id in decimal, or the group's name.
budgets = Table(
    "budgets",
    metadata,
    _id(),
    Column("kind", String(8), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("period", String(8), nullable=False),
    Column("amount", BigInteger, nullable=False),
    _small("soft_percent"),
    Column("created_at", BigInteger, nullable=False),
    # Its periods stay, and go on where they stood if it is set again.
    Column("deleted_at", BigInteger),
    Index(None, "kind", "subject", "period", unique=True),
)

# Each period of a budget is a balance of its own: amount = remain_quota + leases + used_quota.
budget_periods = Table(
    "budget_periods",
    metadata,
    _id(),
    Column("budget_id", BigInteger, ForeignKey("budgets.id"), nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    # The operator is told when so much is used; NULL: never.
    Column("soft_limit", BigInteger),
    Column("remain_quota", BigInteger, nullable=False),
    _count("used_quota"),
    Index(None, "budget_id", "starts_at", unique=True),
    Index(None, "ends_at"),
    # A late charge of a forgotten period must not find another one.
    sqlite_autoincrement=True,
)

# What operators were told: each occasion once, over all processes. `about`: the id of the budget or user; `occasion`
# and `level` tell one crossing from the next. `sent` is false where a limit held it back.
notices = Table(
    "notices",
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),
    Column("about", BigInteger, nullable=False),
    Column("occasion", BigInteger, nullable=False),
    Column("level", BigInteger, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "kind", "about", "occasion", "level", unique=True),
)

# One row: which installation this is. Journals name it, so that none is ever replayed into another's database.
installation = Table("installation", metadata, Column("id", String(32), primary_key=True))

# What was written, for other processes to poll. Numbers are never used twice, so that `since` misses nothing.
changes = Table(
    "changes",
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),
    _count("ref"),
    Column("created_at", BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,
)

# What one process does for all, from time to time: who does it now (the id of a row in `holders`; empty: nobody), since
# which of the job's terms, and when it is due.
jobs = Table(
    "jobs",
    metadata,
    Column("name", String(64), primary_key=True),
    _text("holder", 64),
    _count("term"),
    _count("due_at"),
)
