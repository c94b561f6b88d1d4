"""Money over processes, nodes and engines: nobody overspends, nothing is charged twice, nothing is lost or stuck."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import UpstreamOf
from .gateway import Account
from .load import BODY, FLAT, adds_up, made, terminated, user_of
from .nodes import Installation
from .running import Process
from .scripted import always
from .wire import ask, completion, whole

TOPOLOGIES = {"one process": (1, ()), "4 workers": (1, ("--workers", "4")), "2 nodes": (2, ())}


@pytest.fixture(params=TOPOLOGIES)
def installation(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Installation:
    nodes, flags = TOPOLOGIES[request.param]
    return Installation(database_url, [tmp_path / f"node-{number}" for number in range(nodes)], flags)


def at_once(processes: list[Process], account: Account, times: int) -> Counter[int]:
    def one(number: int) -> int:
        address = processes[number % len(processes)].address
        return ask(address, "/v1/chat/completions", account.key, BODY, timeout=30).status

    with ThreadPoolExecutor(50) as pool:
        return Counter(pool.map(one, range(times)))


def test_a_hundred_at_once_on_a_balance_for_ten(installation: Installation, upstream: UpstreamOf) -> None:
    account = made(installation, upstream(always(whole(completion()))).url, quota=10 * FLAT)
    with installation.serving() as processes:
        assert at_once(processes, account, 100) == {200: 10, 402: 90}
        assert installation.audit(installation.folders[0])["clean"]
        terminated(processes)
    user = user_of(installation, account)
    assert (user.quota, user.used_quota, user.request_count) == (0, 10 * FLAT, 10)
    adds_up(installation, account)
