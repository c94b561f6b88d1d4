"""Pages of the log come by way of the hourly sums: rows have fewer indexes, sums have more."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNUSUAL = sa.text("outcome <> 'completed'")


def upgrade() -> None:
    for column in ("token_id", "channel_id", "model"):
        op.create_index(op.f(f"ix_usage_hourly_{column}_hour"), "usage_hourly", [column, "hour"])
    op.create_index(op.f("ix_logs_token_id_model_created_at"), "logs", ["token_id", "model", "created_at"])
    op.create_index(
        op.f("ix_logs_outcome"),
        "logs",
        ["outcome", "created_at", "id", "user_id", "token_id", "channel_id", "model"],
        sqlite_where=UNUSUAL,
        postgresql_where=UNUSUAL,
    )
    for column in ("user_id", "token_id", "model", "channel_id"):
        op.drop_index(op.f(f"ix_logs_{column}_created_at"), "logs")
