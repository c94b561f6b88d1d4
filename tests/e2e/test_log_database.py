"""Logs in a database of their own: their rows are there and only there, once, however long it is away."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import Store, hourly, logs
from tollway.gateway.store.hourly import HourFilter

from .conftest import UpstreamOf
from .gateway import Account
from .load import BODY, FLAT, left_behind, made, terminated, user_of
from .nodes import Installation
from .running import Process
from .scripted import always
from .waiting import until
from .wire import ask, completion, whole

T = TypeVar("T")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "logs.db"


@pytest.fixture
def installation(tmp_path: Path, log_file: Path) -> Installation:
    # Who finds the file locked says so soon, so that the test need not be long.
    environ = {"LOG_SQL_DSN": f"sqlite:///{log_file}?busy_timeout=100"}
    return Installation(f"sqlite:///{tmp_path}/main.db", [tmp_path / "node"], ("--workers", "2"), environ)


def on_file(path: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    async def on_loop() -> T:
        store = Store(f"sqlite:///{path}")
        await store.connect()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(on_loop())


def rows_of(store: Store) -> Awaitable[tuple[logs.LogRow, ...]]:
    return logs.find(store, logs.LogFilter(), limit=1_000)


def send(process: Process, account: Account, name: str, times: int) -> list[str]:
    ids = [f"{name}-{number}" for number in range(times)]
    for request_id in ids:
        headers = {"x-request-id": request_id}
        assert ask(process.address, "/v1/chat/completions", account.key, BODY, headers=headers).status == 200
    return ids


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Nobody else can write to the file until the block ends."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_rows_land_once_in_the_log_database_also_after_it_was_away(
    installation: Installation, log_file: Path, upstream: UpstreamOf
) -> None:
    account = made(installation, upstream(always(whole(completion()))).url, quota=100 * FLAT)

    def logged() -> Counter[str]:
        return Counter(row.request_id for row in on_file(log_file, rows_of))

    with installation.serving() as processes:
        (process,) = processes
        before = send(process, account, "before", 10)
        until(lambda: len(logged()) == len(before), 3)
        with away(log_file):
            meanwhile = send(process, account, "meanwhile", 10)
            until(lambda: user_of(installation, account).used_quota == 20 * FLAT, 3)
            time.sleep(0.5)
            assert set(logged()) == set(before)
        until(lambda: len(logged()) == 20, 5)
        assert installation.audit(installation.folders[0])["clean"]
        terminated(processes)
    assert logged() == dict.fromkeys(before + meanwhile, 1)
    assert on_file(log_file, lambda store: hourly.totals(store, HourFilter(user_id=account.user_id))).quota == 20 * FLAT
    assert installation.run(in_main) == ((), 0)
    assert left_behind(installation) == (0, 0)
    assert installation.audit(installation.folders[0]) == {
        "clean": True,
        "waiting": 0,
        "differences": [],
        "damages": [],
        "notes": [],
    }


def test_what_the_log_database_did_not_take_before_a_kill_arrives_after_the_next_start(
    installation: Installation, log_file: Path, upstream: UpstreamOf
) -> None:
    account = made(installation, upstream(always(whole(completion()))).url, quota=100 * FLAT)
    with installation.serving() as (process,):
        sent = send(process, account, "first", 3)
        until(lambda: user_of(installation, account).used_quota == 3 * FLAT, 3)
        with away(log_file):
            sent += send(process, account, "second", 7)
            until(lambda: user_of(installation, account).used_quota == 10 * FLAT, 3)
            process.kill()
            process.ended()
    with installation.serving() as (process,):
        until(lambda: len(on_file(log_file, rows_of)) == 10, 5)
        terminated([process])
    assert Counter(row.request_id for row in on_file(log_file, rows_of)) == dict.fromkeys(sent, 1)
    assert installation.audit(installation.folders[0])["clean"]


async def in_main(opened: DataDir) -> tuple[tuple[logs.LogRow, ...], int]:
    """Rows and hours in the main database."""
    return await rows_of(opened.store), (await hourly.totals(opened.store, HourFilter())).requests
