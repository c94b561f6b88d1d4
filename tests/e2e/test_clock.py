"""The wall clock is set while servers run, or is an hour off on one of two nodes: money does not follow it."""

import time
from pathlib import Path

import pytest
from tollway.config.budget import BudgetKind, Period
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import budgets

from .gateway import Account, now_ms
from .load import FLAT, adds_up, asking, made, terminated
from .nodes import Installation

pytestmark = pytest.mark.parametrize("engine_name", ["sqlite", "mariadb-local"], indirect=True)

HOUR_S = 3600


def budget_for(installation: Installation, account: Account, requests: int) -> None:
    async def work(opened: DataDir) -> int:
        return await budgets.put(
            opened.store,
            BudgetKind.USER,
            str(account.user_id),
            Period.MONTHLY,
            amount=requests * FLAT,
            soft_percent=50,
            now_ms=now_ms(),
        )

    installation.run(work)


def test_a_clock_that_jumps_loses_doubles_and_holds_nothing(database_url: str, tmp_path: Path) -> None:
    """One node's clock jumps by an hour, back by two, and to what is right; the other's is right all the time."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    installation = Installation(database_url, [tmp_path / "jumping", tmp_path / "right"])
    account = made(installation, "", quota=10**9)
    budget_for(installation, account, 10**6)
    with (
        installation.node(0).bent(BENT_CLOCK=str(clock)).serving() as (jumping,),
        installation.node(1).serving() as (right,),
    ):
        with asking([jumping, right], account) as client:
            for hours in (1, -1, 0):
                time.sleep(1)
                clock.write_text(str(hours * HOUR_S))
            time.sleep(1)
        assert client.failed == []
        assert installation.audit(tmp_path / "right")["clean"]
        terminated([jumping, right])
        assert "dead" not in jumping.err + right.err
    adds_up(installation, account, client.ended)
