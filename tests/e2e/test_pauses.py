"""Processes that stand still for so long that others take them for dead, and then go on: nothing is spent twice."""

import signal
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from .conftest import UpstreamOf
from .gateway import Account
from .load import BODY, FLAT, adds_up, charged, made, terminated, user_of
from .nodes import Installation
from .running import Process
from .scripted import Peer
from .waiting import until
from .wire import DONE, LAST_CHUNK, OpenRequest, ask, chunk, completion, delta, sse_head, usage_event, whole

SOON = " ".join(
    f"tollway.gateway.ledger.{setting}"
    for setting in (
        "upkeep:DEAD_AFTER_S=1.5",
        "upkeep:BEAT_EVERY_S=0.3",
        "upkeep:TIDY_EVERY_S=0.3",
        "upkeep:FLUSH_EVERY_S=30",
        "store_ledger:TRUST_S=1",
    )
)
"""Who stands still is soon taken for dead; and charges stay in the journal."""
GRANTED = 40


def status(process: Process, account: Account) -> int:
    return ask(process.address, "/v1/chat/completions", account.key, BODY).status


def pause(process: Process, installation: Installation) -> None:
    """Stop it, where it does not just have the lock of a database that is a file: that one would stand still too."""
    while True:
        process.popen.send_signal(signal.SIGSTOP)
        if not installation.url.startswith("sqlite"):
            return
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(installation.url[10:], timeout=0)) as database:
            database.execute("BEGIN IMMEDIATE")
            return
        process.popen.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("engine_name", ["sqlite", "postgresql", "mariadb-local"], indirect=True)
def test_who_was_taken_for_dead_spends_nothing_twice(database_url: str, tmp_path: Path, upstream: UpstreamOf) -> None:
    """What it had charged, and had open, when it was paused is charged once, on top of what others spent meanwhile."""
    go_on = threading.Event()

    async def script(peer: Peer) -> None:
        while b'"stream": true' not in (await peer.request()).body:
            await peer.send(whole(completion()))
        await peer.send(sse_head(), chunk(delta("before")))
        await peer.wait(go_on)
        await peer.send(chunk(usage_event()), chunk(DONE), LAST_CHUNK)

    installation = Installation(database_url, [tmp_path / "one", tmp_path / "other"]).bent(BENT_CONSTANTS=SOON)
    account = made(installation, upstream(script).url, quota=GRANTED * FLAT)
    with installation.serving() as (paused, other):
        with OpenRequest(paused.address, account.key, BODY | {"stream": True}) as stream:
            stream.read_until(b"before")
            assert status(paused, account) == 200
            pause(paused, installation)
            served = 0
            give_up = time.monotonic() + 15
            while served < GRANTED:
                assert time.monotonic() < give_up, served
                served += status(other, account) == 200
            until(lambda: status(other, account) == 402, 5)
            paused.popen.send_signal(signal.SIGCONT)
            assert {status(paused, account) for _ in range(10)} <= {402, 503}
            until(lambda: status(paused, account) == 402, 5)
            go_on.set()
            stream.read_until(DONE)
        assert installation.audit(tmp_path / "one")["clean"]
        terminated([paused, other])
    assert user_of(installation, account).quota == -2 * FLAT
    assert charged(installation).total() == GRANTED + 2
    adds_up(installation, account)


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb-local"], indirect=True)
def test_who_stands_still_within_a_transaction_keeps_no_other_waiting(database_url: str, tmp_path: Path) -> None:
    """As does who is cut off from the network: the server does not know that nothing will come."""
    still = tmp_path / "still"
    installation = Installation(database_url, [tmp_path / "one", tmp_path / "other"]).bent(
        BENT_CONSTANTS="tollway.gateway.store.postgresql:ABANDONED_S=1 tollway.gateway.store.mysql:ABANDONED_S=1",
        BENT_SIGNAL=f"tollway.gateway.store.charges_server:_write_logs {still} SIGSTOP",
    )
    account = made(installation, "", quota=10**9)
    with installation.serving() as (paused, other):
        still.touch()
        assert status(paused, account) == 200
        until(lambda: Path(f"/proc/{paused.popen.pid}/stat").read_text().split()[2] == "T", 5)
        still.unlink()
        until(lambda: status(other, account) == 200, 5)
        paused.popen.send_signal(signal.SIGCONT)
        until(lambda: status(paused, account) == 200, 5)
        terminated([paused, other])
    adds_up(installation, account)
