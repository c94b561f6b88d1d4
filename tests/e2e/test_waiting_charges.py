"""Charges that the database does not take: readiness says so, the journal keeps them, the next start writes them."""

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tollway.config.settings import Settings
from tollway.gateway import data_dir as data_dir_module
from tollway.gateway.app import Tollway, create_app
from tollway.gateway.data_dir import DataDirError, open_data_dir
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.store import StoreError, Unavailable, charges

from .gateway import Account, new_account, new_channel
from .running import Process, served, serving_process
from .test_process import charges_in, in_data_dir
from .wire import CHAT, ask

FULL = Unavailable("database or disk is full")
FLUSHED_S = 0.5


def in_journal(data_dir: Path) -> int:
    """Charges that only the journal has."""
    return in_data_dir(data_dir, lambda opened: audit(opened.store, None, journal_folder(data_dir))).waiting


def made(data_dir: Path) -> Account:
    async def work(opened: data_dir_module.DataDir) -> Account:
        account = await new_account(opened.store, opened.vault)
        await new_channel(opened.store, opened.vault, account.group)
        return account

    return in_data_dir(data_dir, work)


def chat(address: str, account: Account, times: int = 1) -> None:
    for _ in range(times):
        assert ask(address, "/v1/chat/completions", account.key, CHAT).status == 200


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """`full(True)`: from now on no charge can be written."""
    flush = charges.flush

    async def refuse(*arguments: object, **options: object) -> None:
        raise FULL

    return lambda now: monkeypatch.setattr(charges, "flush", refuse if now else flush)


def lifetime(app: Tollway, account: Account, requests: int) -> None:
    with served(app) as server:
        chat(server.address, account, requests)


def test_what_the_database_does_not_take_is_written_by_the_next_start(
    data_dir: Path, full: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    full(True)
    lifetime(app, account, 3)
    assert app.unwritten == 3 == in_journal(data_dir)
    assert charges_in(data_dir) == ()
    assert "3 charges are in the journal" in caplog.text
    full(False)
    lifetime(create_app(Settings(data_dir=data_dir, access_log=False)), account, 1)
    assert len({row.charge_id for row in charges_in(data_dir)}) == 4
    assert in_journal(data_dir) == 0
    assert not list(journal_folder(data_dir).glob("*.journal"))


def test_an_end_that_writes_everything_leaves_no_journal(data_dir: Path, full: Callable[[bool], None]) -> None:
    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    with served(app) as server:
        full(True)
        chat(server.address, account)
        full(False)
    assert app.unwritten == 0
    assert not list(journal_folder(data_dir).glob("*.journal"))
    assert len(charges_in(data_dir)) == 1


def test_a_defect_in_the_last_writing_loses_nothing_either(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    monkeypatch.setattr(charges, "flush", broken)
    lifetime(app, account, 1)
    assert app.unwritten == 1 == in_journal(data_dir)


def pending(address: str) -> float:
    metrics = ask(address, "/metrics").body.decode()
    return float(metrics.partition("\ntollway_charges_pending ")[2].partition("\n")[0])


def test_it_serves_on_while_charges_cannot_be_written_and_tells_how_many(
    data_dir: Path, full: Callable[[bool], None]
) -> None:
    account = made(data_dir)
    with served(create_app(Settings(data_dir=data_dir, access_log=False))) as server:
        full(True)
        chat(server.address, account, 2)
        time.sleep(FLUSHED_S)
        assert pending(server.address) == 2
        assert ask(server.address, "/readyz").status == 200
        full(False)
        time.sleep(FLUSHED_S)
        assert pending(server.address) == 0


def test_it_is_not_ready_when_no_further_charge_can_be_kept(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    with served(app) as server:
        assert app.ledger is not None
        monkeypatch.setattr(type(app.ledger.journal), "full", True)
        answer = ask(server.address, "/readyz")
        assert (answer.status, "no room for more" in answer.json["reason"]) == (503, True)
        assert ask(server.address, "/v1/chat/completions", account.key, CHAT).status == 503
        assert ask(server.address, "/healthz").status == 200
        monkeypatch.undo()
        assert ask(server.address, "/readyz").status == 200


@pytest.mark.parametrize("put", [False, True], ids=["gone", "another"])
def test_it_is_not_ready_over_another_file_than_the_one_it_has_open(put: bool, data_dir: Path) -> None:
    made(data_dir)
    path = data_dir / "tollway.db"
    with served(create_app(Settings(data_dir=data_dir, access_log=False))) as server:
        assert ask(server.address, "/readyz").status == 200
        path.rename(data_dir / "moved.db")
        if put:
            path.write_bytes((data_dir / "moved.db").read_bytes())
        answer = ask(server.address, "/readyz")
        assert (answer.status, answer.json["status"]) == (503, "not ready")
        assert "file" in answer.json["reason"]
        (data_dir / "moved.db").rename(path)
        assert ask(server.address, "/readyz").status == 200


@pytest.mark.parametrize("dsn", ["root:s3cretpw@dbhost/tollway", "root:s3c/re@tpw@dbhost/tollway"])
def test_what_was_meant_as_an_address_is_refused_without_its_password(dsn: str, data_dir: Path) -> None:
    async def work() -> None:
        await open_data_dir(Settings(data_dir=data_dir, database_url=dsn))

    with pytest.raises((DataDirError, StoreError)) as caught:
        asyncio.run(work())
    assert "root" not in str(caught.value)
    assert "s3c" not in str(caught.value)


SMALL = 8 * 1024
"""Bytes: a file that the charges of a few requests fit into, and a transaction of the database does not."""


def no_file_grows(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL, SMALL))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stopped(process: Process, account: Account, requests: int = 3) -> int:
    chat(process.address, account, requests)
    time.sleep(FLUSHED_S)
    assert pending(process.address) == requests
    process.terminate()
    return process.ended()


linux = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limits of another process are Linux's")


@linux
def test_a_server_that_could_not_write_its_charges_ends_with_a_status_that_says_so(data_dir: Path) -> None:
    account = made(data_dir)
    with serving_process(data_dir) as process:
        chat(process.address, account)
        time.sleep(FLUSHED_S)
        no_file_grows(process.popen.pid)
        assert stopped(process, account) == 1
    assert process.err.count("are in the journal") == 1
    with serving_process(data_dir):
        assert len(charges_in(data_dir)) == 4


@linux
@pytest.mark.parametrize("waits", [True, False])
def test_so_does_one_of_several_workers(waits: bool, data_dir: Path) -> None:
    account = made(data_dir)
    with serving_process(data_dir, "--workers", "2") as process:
        for _ in range(8):  # so that both workers hold a lease
            chat(process.address, account)
        time.sleep(FLUSHED_S)
        for pid in children(process.popen.pid) if waits else ():
            no_file_grows(pid)
        # A worker that has no lease, and can fetch none, refuses.
        answers = [ask(process.address, "/v1/chat/completions", account.key, CHAT).status for _ in range(8)]
        process.terminate()
        assert process.ended() == (1 if waits else 0), process.err
    done = answers.count(200)
    assert done
    assert (len(charges_in(data_dir)), in_journal(data_dir)) == ((8, done) if waits else (16, 0))
    with serving_process(data_dir):
        assert len(charges_in(data_dir)) == 8 + done
