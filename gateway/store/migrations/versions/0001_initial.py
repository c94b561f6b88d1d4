"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    create_users()
    create_tokens()
    create_channels()
    create_abilities()
    create_options()
    create_groups()
    create_prices()
    create_logs()
    create_changes()


def create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(64), nullable=False, server_default=""),
        sa.Column("email", sa.String(255), nullable=False, server_default=""),
        sa.Column("role", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("status", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("password_hash", sa.String(255), nullable=False, server_default=""),
        sa.Column("group", sa.String(64), nullable=False, server_default="default"),
        sa.Column("quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("used_quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("request_count", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
        sqlite_autoincrement=True,
    )


def create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False, server_default=""),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("key_prefix", sa.String(32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("unlimited", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("remain_quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("used_quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("allow_ips", sa.Text(), nullable=True),
        sa.Column("group", sa.String(64), nullable=False, server_default=""),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("parallel_requests", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("accessed_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_tokens_key_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"])


def create_channels() -> None:
    op.create_table(
        "channels",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(128), nullable=False, server_default=""),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("keys_encrypted", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("base_url", sa.String(512), nullable=False, server_default=""),
        sa.Column("priority", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("weight", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("key_mode", sa.String(16), nullable=False, server_default=""),
        sa.Column("disabled_keys", sa.Text(), nullable=False),
        sa.Column("model_mapping", sa.Text(), nullable=False),
        sa.Column("status_code_mapping", sa.Text(), nullable=False),
        sa.Column("header_override", sa.Text(), nullable=False),
        sa.Column("param_override", sa.Text(), nullable=False),
        sa.Column("disconnect", sa.String(16), nullable=False, server_default=""),
        sa.Column("auto_ban", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("api_version", sa.String(64), nullable=False, server_default=""),
        sa.Column("organization", sa.String(128), nullable=False, server_default=""),
        sa.Column("test_model", sa.String(255), nullable=False, server_default=""),
        sa.Column("proxy", sa.String(512), nullable=False, server_default=""),
        sa.Column("tag", sa.String(64), nullable=False, server_default=""),
        sa.Column("status_reason", sa.String(512), nullable=False, server_default=""),
        sa.Column("status_at", sa.BigInteger(), nullable=True),
        sa.Column("tested_at", sa.BigInteger(), nullable=True),
        sa.Column("response_ms", sa.Integer(), nullable=True),
        sa.Column("used_quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sqlite_autoincrement=True,
    )


def create_abilities() -> None:
    op.create_table(
        "abilities",
        sa.Column("group", sa.String(64), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("channel_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("weight", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.PrimaryKeyConstraint("group", "model", "channel_id", name=op.f("pk_abilities")),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channels.id"], name=op.f("fk_abilities_channel_id_channels"), ondelete="CASCADE"
        ),
    )
    op.create_index(op.f("ix_abilities_channel_id"), "abilities", ["channel_id"])


def create_options() -> None:
    op.create_table(
        "options",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_options")),
    )


def create_groups() -> None:
    op.create_table(
        "groups",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("ratio", sa.String(32), nullable=False, server_default="1"),
        sa.Column("description", sa.String(255), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_groups")),
    )


def create_prices() -> None:
    op.create_table(
        "prices",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_prices")),
    )


def create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("charge_id", sa.String(64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("user_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("username", sa.String(64), nullable=False, server_default=""),
        sa.Column("token_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("token_name", sa.String(64), nullable=False, server_default=""),
        sa.Column("channel_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("channel_name", sa.String(128), nullable=False, server_default=""),
        sa.Column("model", sa.String(255), nullable=False, server_default=""),
        sa.Column("upstream_model", sa.String(255), nullable=False, server_default=""),
        sa.Column("operation", sa.String(64), nullable=False, server_default=""),
        sa.Column("group", sa.String(64), nullable=False, server_default=""),
        sa.Column("request_id", sa.String(64), nullable=False, server_default=""),
        sa.Column("status", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("is_stream", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("price_version", sa.String(64), nullable=False, server_default=""),
        sa.Column("breakdown", sa.Text(), nullable=True),
        sa.Column("outcome", sa.String(32), nullable=False, server_default=""),
        sa.Column("estimated", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("first_byte_ms", sa.BigInteger(), nullable=True),
        sa.Column("ip", sa.String(64), nullable=False, server_default=""),
        sa.Column("other", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logs")),
        sa.UniqueConstraint("charge_id", name=op.f("uq_logs_charge_id")),
    )
    op.create_index(op.f("ix_logs_channel_id_created_at"), "logs", ["channel_id", "created_at"])
    op.create_index(op.f("ix_logs_created_at"), "logs", ["created_at"])
    op.create_index(op.f("ix_logs_model_created_at"), "logs", ["model", "created_at"])
    op.create_index(op.f("ix_logs_request_id"), "logs", ["request_id"])
    op.create_index(op.f("ix_logs_token_id_created_at"), "logs", ["token_id", "created_at"])
    op.create_index(op.f("ix_logs_user_id_created_at"), "logs", ["user_id", "created_at"])


def create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("ref", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_changes_created_at"), "changes", ["created_at"])
