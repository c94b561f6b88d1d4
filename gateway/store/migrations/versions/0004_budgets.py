"""Budgets, their periods, and what operators were told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    create_budgets()
    create_budget_periods()
    create_notices()


def create_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("soft_percent", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_index(op.f("ix_budgets_kind_subject_period"), "budgets", ["kind", "subject", "period"], unique=True)


def create_budget_periods() -> None:
    op.create_table(
        "budget_periods",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("budget_id", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("soft_limit", sa.BigInteger()),
        sa.Column("remain_quota", sa.BigInteger(), nullable=False),
        sa.Column("used_quota", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], name=op.f("fk_budget_periods_budget_id_budgets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_periods")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_budget_periods_budget_id_starts_at"), "budget_periods", ["budget_id", "starts_at"], unique=True
    )
    op.create_index(op.f("ix_budget_periods_ends_at"), "budget_periods", ["ends_at"])


def create_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("about", sa.BigInteger(), nullable=False),
        sa.Column("occasion", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(
        op.f("ix_notices_kind_about_occasion_level"), "notices", ["kind", "about", "occasion", "level"], unique=True
    )
