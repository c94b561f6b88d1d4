"""Budgets over two nodes: exact to the request, told of once, and changed while they serve; on every engine."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tollway.config.budget import BudgetKind, Period
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import budgets

from .conftest import UpstreamOf
from .gateway import Account, now_ms
from .load import BODY, FLAT, made, terminated
from .nodes import Installation
from .running import Process
from .scripted import always
from .test_ledger import at_once
from .waiting import until
from .wire import ask, completion, whole

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
AT_ONCE_S = 2.0


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, [tmp_path / "node-0", tmp_path / "node-1"])


def budget(installation: Installation, account: Account, requests: int) -> None:
    """What the user's group may spend in a month: so many requests. (A test at midnight of a first is another day.)"""

    async def work(opened: DataDir) -> int:
        return await budgets.put(
            opened.store,
            BudgetKind.GROUP,
            account.group,
            Period.MONTHLY,
            amount=requests * FLAT,
            soft_percent=50,
            now_ms=now_ms(),
        )

    installation.run(work)


def served_within(seconds: float, processes: list[Process], account: Account) -> bool:
    """Whether every node serves a request in time."""
    end = time.monotonic() + seconds
    waiting = list(processes)
    while waiting and time.monotonic() < end:
        waiting = [process for process in waiting if status(process, account) != 200]
        time.sleep(0.05)
    return not waiting


def status(process: Process, account: Account) -> int:
    return ask(process.address, "/v1/chat/completions", account.key, BODY).status


def test_a_budget_for_ten_serves_ten_of_a_hundred_and_is_told_of_once(
    installation: Installation, upstream: UpstreamOf
) -> None:
    webhook = upstream(always(TAKEN))
    installation.environ["NOTIFY_WEBHOOK_URL"] = f"{webhook.url}/hook"
    account = made(installation, upstream(always(whole(completion()))).url, quota=1000 * FLAT)
    budget(installation, account, 10)
    with installation.serving() as processes:
        assert at_once(processes, account, 100) == Counter({200: 10, 402: 90})
        refused = ask(processes[0].address, "/v1/chat/completions", account.key, BODY)
        assert refused.status == 402
        assert refused.json["error"]["code"] == "budget_exceeded"
        assert f"The monthly budget of the group {account.group} is used up." in refused.json["error"]["message"]
        today = datetime.now(UTC)
        first = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
        left = (first - today).total_seconds()
        assert left - 5 < int(refused.headers["retry-after"]) < left + 5
        assert installation.audit(installation.folders[0])["clean"]
        until(lambda: len(webhook.requests) >= 1)

        budget(installation, account, 12)
        assert served_within(AT_ONCE_S, processes, account)
        assert [status(process, account) for process in processes] == [402, 402]
        assert installation.audit(installation.folders[0])["clean"]
        terminated(processes)
    assert installation.audit(installation.folders[0])["clean"]
    told = [json.loads(request.body) for request in webhook.requests]
    # The higher amount has a soft limit of its own, which is crossed too.
    assert [(each["type"], each["values"]["amount"]) for each in told] in (
        [("budget_soft_limit", 10 * FLAT)],
        [("budget_soft_limit", 10 * FLAT), ("budget_soft_limit", 12 * FLAT)],
    )
    lines = [line for process in processes for line in (process.out + process.err).splitlines()]
    assert len([line for line in lines if line.startswith("budget_soft_limit: ")]) == len(told)
