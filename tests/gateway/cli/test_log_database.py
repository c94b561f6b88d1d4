"""Logs in a database of their own, and hourly sums that are made again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from tollway.config.settings import Settings
from tollway.gateway.cli.output import iso
from tollway.gateway.data_dir import DataDir, open_stores
from tollway.gateway.store import Store, charges, leases, migrate
from tollway.gateway.store.charges import Batch
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.schema import hourly, logs

from .conftest import Tollway

HOUR = 3_600_000
THIS_HOUR = int(time.time() * 1000) // HOUR * HOUR

Done = Callable[..., Any]
Work = Callable[[Store], Awaitable[object]]
InLogs = Callable[[Work], object]


@pytest.fixture(params=["the main database", "a database of their own"])
def in_logs(
    request: pytest.FixtureRequest, in_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InLogs:
    """`in_logs(work)`: run `work` on the database that has the logs."""
    if request.param == "the main database":
        return lambda work: in_store(lambda opened: work(opened.store))
    url = f"sqlite:///{tmp_path}/logs.db"
    monkeypatch.setenv("LOG_SQL_DSN", url)

    async def in_log_store(opened: DataDir, work: Work) -> object:
        await migrate.upgrade(url)
        store = Store(url)
        await store.connect()
        try:
            return await work(store)
        finally:
            await store.close()

    return lambda work: in_store(lambda opened: in_log_store(opened, work))


@pytest.fixture
def served(in_logs: InLogs) -> None:
    """A charge in each of the last four hours, the oldest first."""
    records = tuple(
        ChargeRecord(
            THIS_HOUR - ago * HOUR + 60_000, 0, 10, model="m", channel_id=1, request_id=f"{ago} ago", input_tokens=7
        )
        for ago in (3, 2, 1, 0)
    )

    async def serve(store: Store) -> None:
        await leases.join(store, "h", host="", now_ms=0)
        await charges.flush(store, Batch("h", 0, 4, records), 0)

    in_logs(serve)


@pytest.fixture
def damaged(in_logs: InLogs, served: None) -> None:
    async def damage(store: Store) -> None:
        await store.change(update(hourly).where(hourly.c.hour == THIS_HOUR - HOUR).values(quota=99))
        await store.change(delete(hourly).where(hourly.c.hour == THIS_HOUR))

    in_logs(damage)


@pytest.mark.usefixtures("served")
def test_logs_are_read_where_they_are(tollway: Tollway) -> None:
    assert tollway("logs", "--json").out.count("ago") == 4


def differing(tollway: Tollway) -> list[str]:
    """The hours that the audit finds wrong."""
    found = tollway("audit", "--json").json["differences"]
    return [each["subject"].partition(",")[0] for each in found if each["promise"].startswith("hour")]


@pytest.mark.usefixtures("damaged")
def test_hours_are_made_again_and_the_audit_has_nothing_to_say(tollway: Tollway, done: Done) -> None:
    assert differing(tollway) == [f"hour {THIS_HOUR - HOUR}", f"hour {THIS_HOUR}"]
    made = done("logs", "rebuild-hours")
    assert (made["hours"], made["wrong_hours"], made["wrong_sums"]) == (4, 2, 2)
    assert differing(tollway) == []
    assert done("logs", "rebuild-hours")["wrong_sums"] == 0


FIRST_HOUR = THIS_HOUR - 3 * HOUR


@pytest.mark.usefixtures("served")
def test_the_hour_in_which_the_log_begins_is_made_again_too(in_logs: InLogs, tollway: Tollway, done: Done) -> None:
    async def damage(store: Store) -> None:
        await store.change(update(hourly).where(hourly.c.hour == FIRST_HOUR).values(quota=99))

    in_logs(damage)
    assert differing(tollway) == [f"hour {FIRST_HOUR}"]
    made = done("logs", "rebuild-hours")
    assert made["first_hour"] == iso(FIRST_HOUR)
    assert (made["hours"], made["wrong_sums"]) == (4, 1)
    assert differing(tollway) == []
    assert tollway("logs", "rebuild-hours").out == (
        "4 hours were compared with their rows; made right: 0 sums in 0 hours.\n"
    )


@pytest.mark.usefixtures("served")
def test_an_hour_that_retention_has_cut_stays(in_logs: InLogs, tollway: Tollway, done: Done) -> None:
    # So old that the first of them is the next to lose rows.
    older_by = 90 * 24 * HOUR - (THIS_HOUR - FIRST_HOUR) - HOUR

    async def age(store: Store) -> None:
        await store.change(update(logs).values(created_at=logs.c.created_at - older_by))
        await store.change(update(hourly).values(hour=hourly.c.hour - older_by, quota=hourly.c.quota + 1))

    in_logs(age)
    made = done("logs", "rebuild-hours")
    assert made["hours"] == made["wrong_sums"] == 3
    assert f" Hours before {made['first_hour']} stay" in tollway("logs", "rebuild-hours").out
    # Kept for ever, they have all their rows.
    done("option", "set", "log_retention_days", "0")
    assert done("logs", "rebuild-hours")["wrong_sums"] == 1


def moment(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds // 1000))


@pytest.mark.parametrize(
    ("flags", "hours", "wrong"),
    [
        pytest.param(("--since", moment(THIS_HOUR)), 1, 1, id="from an hour on"),
        pytest.param(("--since", moment(THIS_HOUR + 1_000)), 1, 1, id="from the middle of an hour on"),
        pytest.param(("--until", moment(THIS_HOUR)), 3, 1, id="without the end"),
        pytest.param(("--since", moment(THIS_HOUR - HOUR), "--until", moment(THIS_HOUR)), 1, 1, id="between two"),
        pytest.param(("--until", "100d"), 0, 0, id="before there were rows"),
    ],
)
@pytest.mark.usefixtures("damaged")
def test_only_the_hours_that_are_asked_for(flags: tuple[str, ...], hours: int, wrong: int, done: Done) -> None:
    made = done("logs", "rebuild-hours", *flags)
    assert (made["hours"], made["wrong_sums"]) == (hours, wrong)


@pytest.mark.usefixtures("damaged")
def test_people_are_told_what_was_wrong(tollway: Tollway) -> None:
    assert (
        "4 hours were compared with their rows; made right: 2 sums in 2 hours." in tollway("logs", "rebuild-hours").out
    )
    assert "made right: 0 sums in 0 hours." in tollway("logs", "rebuild-hours").out


def test_without_rows_there_is_nothing_to_make(tollway: Tollway, done: Done) -> None:
    assert done("logs", "rebuild-hours") == {"first_hour": None, "hours": 0, "wrong_hours": 0, "wrong_sums": 0}
    assert tollway("logs", "rebuild-hours").out == "There are no log rows: nothing was made again.\n"


def test_a_log_database_that_is_not_there_is_not_made(
    tollway: Tollway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_SQL_DSN", f"sqlite:///{tmp_path}/none.db")
    for command in (("logs",), ("logs", "rebuild-hours")):
        ended = tollway(*command)
        assert (ended.status, ended.err.count("LOG_SQL_DSN")) == (1, 1)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "command", [("logs",), ("logs", "rebuild-hours"), ("budget", "list"), ("audit",)], ids=" ".join
)
def test_a_log_database_that_is_none_is_named(
    command: tuple[str, ...], tollway: Tollway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_SQL_DSN", "oracle://host/logs")
    ended = tollway(*command)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ": LOG_SQL_DSN: oracle:// is no database known here" in ended.err


async def serve_once(settings: Settings) -> None:
    async with open_stores(settings):
        pass


READING = [("audit",), ("logs",), ("logs", "rebuild-hours"), ("budget", "list")]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_logs_that_are_elsewhere_are_not_looked_for_here(
    command: tuple[str, ...], tollway: Tollway, data_dir: Path, tmp_path: Path
) -> None:
    settings = Settings(data_dir=data_dir)
    asyncio.run(serve_once(replace(settings, log_database_url=f"sqlite:///{tmp_path}/logs.db")))
    ended = tollway(*command)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "set LOG_SQL_DSN as the server has it" in ended.err
    asyncio.run(serve_once(settings))
    assert tollway(*command).status == 0


@pytest.mark.parametrize(
    ("url", "status"),
    [("sqlite:////no/such/folder/logs.db", 1), ("postgresql://u:pw@127.0.0.1:1/logs", 1), ("what", 2)],
)
def test_a_server_names_the_log_database_that_it_cannot_open(
    url: str, status: int, tollway: Tollway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_SQL_DSN", url)
    ended = tollway("serve", "--port", "0")
    assert (ended.status, ended.out, ended.err.count("\n")) == (status, "", 1)
    assert "LOG_SQL_DSN: " in ended.err
    assert "pw" not in ended.err
