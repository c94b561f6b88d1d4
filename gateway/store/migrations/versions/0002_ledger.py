"""The ledger: leases, holders, grants, hourly sums; charges are found by their number and no longer by a unique id."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    change_logs()
    change_tokens()
    change_channels()
    create_hourly()
    create_log_cursors()
    create_grants()
    create_holders()
    create_leases()
    create_installation()
    fill_grants()
    fill_hourly()


def change_logs() -> None:
    with op.batch_alter_table("logs") as logs:
        logs.drop_constraint("uq_logs_charge_id", type_="unique")


def change_tokens() -> None:
    op.add_column("tokens", _count("free_quota"))
    op.execute("UPDATE tokens SET free_quota = used_quota WHERE unlimited")


def change_channels() -> None:
    op.add_column("channels", sa.Column("prompt_cache_ratio", sa.String(32), nullable=False, server_default=""))


def create_hourly() -> None:
    op.create_table(
        "usage_hourly",
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("token_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("channel_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        _count("requests"),
        _count("quota"),
        _count("input_tokens"),
        _count("output_tokens"),
        _count("cached_tokens"),
        sa.PrimaryKeyConstraint("hour", "user_id", "token_id", "channel_id", "model", name=op.f("pk_usage_hourly")),
    )
    op.create_index(op.f("ix_usage_hourly_user_id_hour"), "usage_hourly", ["user_id", "hour"])


def create_log_cursors() -> None:
    op.create_table(
        "log_cursors",
        sa.Column("holder", sa.String(64), nullable=False),
        _count("flushed"),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_log_cursors")),
    )


def create_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        _count("user_id"),
        _count("token_id"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False, server_default=""),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_user_id"), "grants", ["user_id"])
    op.create_index(op.f("ix_grants_token_id"), "grants", ["token_id"])


def create_holders() -> None:
    op.create_table(
        "holders",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False, server_default=""),
        _count("heartbeat"),
        _count("flushed"),
        sa.Column("expired", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holders")),
    )


def create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.BigInteger(), autoincrement=False, nullable=False),
        _count("amount"),
        sa.Column("recalled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("holder", "kind", "subject", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_kind_subject"), "leases", ["kind", "subject"])


def create_installation() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    table = sa.table("installation", sa.column("id", sa.String(32)))
    op.bulk_insert(table, [{"id": secrets.token_hex(16)}])


def fill_grants() -> None:
    """Whoever has quota was given it: what is left and what was charged."""
    op.execute(
        "INSERT INTO grants (user_id, token_id, amount, reason, created_at) "
        "SELECT id, 0, quota + used_quota, 'before', created_at FROM users WHERE quota + used_quota <> 0"
    )
    op.execute(
        "INSERT INTO grants (user_id, token_id, amount, reason, created_at) "
        "SELECT 0, id, remain_quota + used_quota - free_quota, 'before', created_at FROM tokens "
        "WHERE remain_quota + used_quota - free_quota <> 0"
    )


def fill_hourly() -> None:
    op.execute(
        "INSERT INTO usage_hourly (hour, user_id, token_id, channel_id, model, requests, quota, input_tokens, "
        "output_tokens, cached_tokens) SELECT created_at - created_at % 3600000, user_id, token_id, channel_id, model, "
        "count(*), sum(quota), sum(input_tokens), sum(output_tokens), sum(cached_tokens) FROM logs WHERE type = 2 "
        "GROUP BY created_at - created_at % 3600000, user_id, token_id, channel_id, model"
    )


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
