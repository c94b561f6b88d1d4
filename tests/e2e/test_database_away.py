"""The database stops, hangs or loses connections while requests come: they go on, and nothing is lost or doubled."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .gateway import Account
from .lane import Lane, lane_to
from .load import BODY, FLAT, adds_up, asking, made, terminated, user_of
from .nodes import Installation
from .running import LoopThread, Process
from .test_waiting_charges import pending
from .waiting import until
from .wire import ask

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb-local"], indirect=True)


@pytest.fixture
def lane(threads: LoopThread, database_url: str) -> Iterator[tuple[Lane, str]]:
    with lane_to(threads, database_url) as lane:
        yield lane


@pytest.fixture
def installation(database_url: str, lane: tuple[Lane, str], tmp_path: Path) -> Installation:
    """Tests look at the database directly; the gateway has to go by the lane."""
    return Installation(database_url, [tmp_path / "node"], environ={"SQL_DSN": lane[1]})


def chat(process: Process, account: Account) -> int:
    return ask(process.address, "/v1/chat/completions", account.key, BODY).status


def written(process: Process, within: float = 30) -> None:
    """Wait until the database has every charge."""
    give_up = time.monotonic() + within
    while pending(process.address):
        assert time.monotonic() < give_up, "charges still wait"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["cut", "hold"])
def test_requests_go_on_without_the_database(
    kind: str, installation: Installation, lane: tuple[Lane, str], threads: LoopThread, request: pytest.FixtureRequest
) -> None:
    account = made(installation, "", quota=10**7)
    with installation.serving() as (process,):
        assert [chat(process, account) for _ in range(5)] == [200] * 5
        time.sleep(0.5)
        threads.run(getattr(lane[0], kind)())
        began = time.monotonic()
        assert [chat(process, account) for _ in range(10)] == [200] * 10
        assert time.monotonic() - began < 3
        time.sleep(0.5)
        assert pending(process.address) == 10
        assert ask(process.address, "/readyz").status == 200
        time.sleep(request.config.getoption("--pause"))
        assert [chat(process, account) for _ in range(10)] == [200] * 10
        threads.run(lane[0].restore())
        written(process)
        assert chat(process, account) == 200
        assert installation.audit(installation.folders[0])["clean"]
        terminated([process])
    assert user_of(installation, account).used_quota == 26 * FLAT
    adds_up(installation, account)


def test_connections_that_break_in_the_middle_of_anything_lose_and_double_nothing(
    installation: Installation, lane: tuple[Lane, str], threads: LoopThread
) -> None:
    account = made(installation, "", quota=10**9)
    chance = random.Random(7)
    with installation.serving() as (process,):
        with asking([process], account) as client:
            for _ in range(12):
                time.sleep(chance.uniform(0.05, 0.3))
                threads.run(lane[0].cut())
                time.sleep(chance.uniform(0.0, 0.15))
                threads.run(lane[0].restore())
        written(process)
        terminated([process])
    assert len(client.ended) > 50
    adds_up(installation, account, client.ended)


def test_commits_whose_answer_is_lost_are_neither_lost_nor_doubled(
    installation: Installation, lane: tuple[Lane, str]
) -> None:
    account = made(installation, "", quota=10**9)
    with installation.serving() as (process,):
        with asking([process], account) as client:
            until(lambda: len(client.ended) > 50, 20)
            lane[0].lose_every = 2
            until(lambda: lane[0].lost > 5, 20)
            lane[0].lose_every = 0
        written(process)
        terminated([process])
    adds_up(installation, account, client.ended)
