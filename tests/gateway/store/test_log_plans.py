"""Pages of the log come from an index on every engine, whatever they are asked by; so do hourly sums."""

import pytest
from sqlalchemy import text
from tollway.gateway.store import Store, hourly, logs

from tests.many_logs import PAGES, RARE, SUMS, Asked, fill, plan_of

pytestmark = pytest.mark.anyio

ROWS = 50_000

PLACES = "ix_logs_token_id_model_created_at"
INDEXES = {
    "newest": "ix_logs_created_at",
    "user, rare": PLACES,
    "token, rare": PLACES,
    "model, rare": PLACES,
    "channel, rare": PLACES,
    "time": "ix_logs_created_at",
    "failed": "ix_logs_outcome",
    "failed, of an ordinary user": "ix_logs_outcome",
    "request id": "ix_logs_request_id",
}


def works_through_everything(dialect: str, plan: str) -> bool:
    """Whether a plan reads the whole table."""
    match dialect:
        case "sqlite":
            return "SCAN logs" in plan and "USING INDEX" not in plan
        case "postgresql":
            return "Seq Scan on logs" in plan
        case _:
            return " logs ALL " in plan


async def test_a_page_comes_from_an_index(store: Store) -> None:
    await fill(store, ROWS)
    dialect, plans = store.address.dialect, {}
    if dialect != "sqlite":  # as servers do by themselves, and not at once
        await store.change(text("ANALYZE logs" if dialect == "postgresql" else "ANALYZE TABLE logs"))
    for name, wanted in PAGES.items():
        asked = Asked(store)
        await logs.find(asked, wanted)  # pyright: ignore[reportArgumentType]
        plans[name] = "\n".join([await plan_of(store, query) for query in asked.queries])
    assert {name: plan for name, plan in plans.items() if works_through_everything(dialect, plan)} == {}
    assert {name: plans[name] for name, index in INDEXES.items() if index not in plans[name]} == {}
    assert len(await logs.find(store, PAGES["user, rare"])) == 100
    assert {row.user_id for row in await logs.find(store, PAGES["model, rare"])} == {RARE}


async def test_sums_of_hours_agree_with_their_rows_and_come_from_an_index(store: Store) -> None:
    await fill(store, 5_000)
    for wanted in SUMS.values():
        named = {
            name: getattr(wanted, name) for name in ("user_id", "token_id", "channel_id", "model", "since", "until")
        }
        assert (await hourly.totals(store, wanted)).requests == await logs.count(store, logs.LogFilter(**named)) > 0
    asked = Asked(store)
    await hourly.totals(asked, SUMS["a day"])  # pyright: ignore[reportArgumentType]
    assert (
        "pk_usage_hourly" in (plan := await plan_of(store, asked.queries[0]))
        or "PRIMARY" in plan
        or "autoindex" in plan
    )
