"""What users and tokens spent lately, by the hourly sums: the pace that forecasts go by."""

from typing import Literal

from sqlalchemy import func, select

from ...config.budget import PACE_MS
from .schema import hourly, tokens, users
from .store import Session
from .sums import HOUR_MS


async def spent_lately(hours: Session, by: Literal["user_id", "token_id"], now_ms: int) -> dict[int, int]:
    """
    Quota spent in the last 7 days, whole hours, by user or by token; whoever spent nothing is left out.

    `hours` is the database of the logs, where they have one of their own.
    """
    since = (now_ms - PACE_MS) // HOUR_MS * HOUR_MS
    # Not the column itself: SQLite would go through its index for the sake of the order, and so through every hour.
    column = hourly.c[by] + 0
    query = select(column.label("id"), func.sum(hourly.c.quota).label("quota")).where(hourly.c.hour >= since)
    return {row["id"]: int(row["quota"]) for row in await hours.all(query.group_by(column))}


async def groups_of_tokens(session: Session) -> dict[int, str]:
    """The group that each token routes by now: its own, else its user's. Deleted tokens too."""
    query = select(tokens.c.id, tokens.c.group.label("own"), users.c.group.label("owners")).join(
        users, users.c.id == tokens.c.user_id
    )
    return {row["id"]: row["own"] or row["owners"] for row in await session.all(query)}
