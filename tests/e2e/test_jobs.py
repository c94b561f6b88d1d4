"""Housework of a running installation: done by one of its processes, however many there are."""

from collections.abc import Mapping

import pytest
from sqlalchemy import select
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import hourly, logs
from tollway.gateway.store.hourly import HourFilter
from tollway.gateway.store.schema import hourly as hourly_table
from tollway.gateway.store.schema import jobs
from tollway.gateway.store.schema import logs as log_table

from .gateway import now_ms
from .load import terminated
from .nodes import Installation
from .test_ledger import installation as installation
from .waiting import until

DAY_MS = 24 * 3_600_000
ONCE = {"forget-changes": (1, ""), "forget-logs": (1, "")}
"""By job: the times that it was taken, and who has it now."""


@pytest.mark.parametrize("engine_name", ["sqlite", "postgresql"], indirect=True)
def test_old_rows_are_forgotten_once_over_all_processes(installation: Installation) -> None:
    hour = now_ms() // 3_600_000 * 3_600_000

    async def fill(opened: DataDir) -> None:
        ages = [100 * DAY_MS] * 700 + [80 * DAY_MS] * 3
        await opened.store.bulk(log_table, ("created_at", "type"), [(hour - age, 2) for age in ages])
        columns = ("hour", "user_id", "token_id", "channel_id", "model", "requests")
        await opened.store.bulk(hourly_table, columns, [(hour - 100 * DAY_MS, 1, 1, 1, "m", 700)])

    async def left(opened: DataDir) -> tuple[int, int]:
        rows = await logs.count(opened.store, logs.LogFilter())
        return rows, (await hourly.totals(opened.store, HourFilter())).requests

    async def done(opened: DataDir) -> Mapping[str, tuple[int, str]]:
        return {row["name"]: (row["term"], row["holder"]) for row in await opened.store.all(select(jobs))}

    installation.run(fill)
    with installation.serving() as processes:
        until(lambda: installation.run(left) == (3, 700), 5)
        until(lambda: installation.run(done) == ONCE, 5)
        terminated(processes)
    assert installation.run(done) == ONCE
