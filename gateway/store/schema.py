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
    Column("charge_id", String(64), unique=True),
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
    Index(None, "created_at"),
    Index(None, "user_id", "created_at"),
    Index(None, "token_id", "created_at"),
    Index(None, "model", "created_at"),
    Index(None, "channel_id", "created_at"),
    Index(None, "request_id"),
)

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
