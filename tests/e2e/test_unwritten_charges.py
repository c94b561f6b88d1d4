"""Charges that the database does not take: readiness says so, and an orderly end keeps them and says so too."""

import asyncio
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tollway.config.settings import Settings
from tollway.gateway import data_dir as data_dir_module
from tollway.gateway.app import Tollway, create_app
from tollway.gateway.data_dir import DataDirError, keep_charges, open_data_dir
from tollway.gateway.store import StoreError, Unavailable, charges
from tollway.gateway.store.records import ChargeRecord

from .gateway import Account, new_account, new_channel
from .running import START_WITHIN_S, Process, served, serving_process
from .test_process import charges_in, in_data_dir
from .wire import CHAT, ask

FULL = Unavailable("database or disk is full")
FLUSHED_S = 0.5
RECORDS = [
    ChargeRecord(charge_id="a1", created_at=1, user_id=7, username="ann\n", quota=30, breakdown={"input": 3}),
    ChargeRecord(charge_id="a2", created_at=2, user_id=8, quota=12),
]


@pytest.fixture
def files(data_dir: Path) -> Callable[[], list[Path]]:
    return lambda: sorted(data_dir.glob("unwritten-charges-*.jsonl"))


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

    async def refuse(*arguments: object) -> None:
        raise FULL

    return lambda now: monkeypatch.setattr(charges, "flush", refuse if now else flush)


def lifetime(app: Tollway, account: Account, requests: int) -> None:
    with served(app) as server:
        chat(server.address, account, requests)


def test_what_the_database_does_not_take_is_kept_in_a_file(
    data_dir: Path,
    full: Callable[[bool], None],
    files: Callable[[], list[Path]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    full(True)
    lifetime(app, account, 3)
    assert app.unwritten == 3
    (file,) = files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["charge_id"] for row in rows}) == 3
    assert {(row["user_id"], row["token_id"], row["model"]) for row in rows} == {
        (account.user_id, account.token_id, CHAT["model"])
    }
    total = sum(row["quota"] for row in rows)
    assert total > 0
    (line,) = (record.getMessage() for record in caplog.records if str(file) in record.getMessage())
    assert f"3 charges with a quota of {total} in all" in line


def test_an_end_that_loses_nothing_keeps_no_file(
    data_dir: Path, full: Callable[[bool], None], files: Callable[[], list[Path]]
) -> None:
    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    with served(app) as server:
        full(True)
        chat(server.address, account)
        full(False)
    assert app.unwritten == 0
    assert not files()
    assert len(charges_in(data_dir)) == 1


def test_a_defect_in_the_last_writing_loses_nothing_either(
    data_dir: Path, files: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    account = made(data_dir)
    app = create_app(Settings(data_dir=data_dir, access_log=False))
    monkeypatch.setattr(charges, "flush", broken)
    lifetime(app, account, 1)
    assert app.unwritten == 1
    assert len(files()) == 1


def test_it_is_not_ready_while_charges_cannot_be_written(data_dir: Path, full: Callable[[bool], None]) -> None:
    account = made(data_dir)
    with served(create_app(Settings(data_dir=data_dir, access_log=False))) as server:
        full(True)
        assert ask(server.address, "/readyz").status == 200
        chat(server.address, account)
        time.sleep(FLUSHED_S)
        answer = ask(server.address, "/readyz")
        assert (answer.status, answer.json["reason"]) == (503, "charges cannot be written to the database")
        assert ask(server.address, "/healthz").status == 200
        full(False)
        time.sleep(FLUSHED_S)
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


def test_charges_go_to_the_temporary_folder_where_their_own_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = keep_charges(tmp_path / "gone", RECORDS)
    assert path is not None
    assert path.parent == tmp_path
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["charge_id"], first["username"], first["breakdown"]) == ("a1", "ann\n", {"input": 3})
    assert (second["charge_id"], second["quota"]) == ("a2", 12)


def test_where_no_file_can_be_written_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    assert keep_charges(tmp_path, RECORDS) is None
    assert not list(tmp_path.iterdir())


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
    assert ask(process.address, "/readyz").status == 503
    process.terminate()
    return process.ended()


linux = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limits of another process are Linux's")


@linux
def test_a_server_that_could_not_write_its_charges_ends_with_a_status_that_says_so(
    data_dir: Path, files: Callable[[], list[Path]]
) -> None:
    account = made(data_dir)
    with serving_process(data_dir) as process:
        no_file_grows(process.popen.pid)
        assert stopped(process, account) == 1
    (file,) = files()
    assert len(file.read_text().splitlines()) == 3
    assert process.err.count(str(file)) == 1
    assert charges_in(data_dir) == ()


@linux
@pytest.mark.parametrize("loses", [True, False])
def test_so_does_one_of_several_workers(loses: bool, data_dir: Path, files: Callable[[], list[Path]]) -> None:
    account = made(data_dir)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = ["serve", "--workers", "2", "--port", str(port), "--data-dir", str(data_dir)]
    popen = subprocess.Popen(
        [sys.executable, "-m", "tollway.gateway", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        process = Process(f"http://127.0.0.1:{port}", popen)
        give_up = time.monotonic() + START_WITHIN_S
        while not is_ready(process.address):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        time.sleep(FLUSHED_S)
        for pid in children(popen.pid) if loses else ():
            no_file_grows(pid)
        chat(process.address, account, 3)
        popen.send_signal(signal.SIGTERM)
        assert process.ended() == (1 if loses else 0), process.err
    finally:
        popen.kill()
        popen.wait()
    kept = sum(len(file.read_text().splitlines()) for file in files())
    assert (kept, len(charges_in(data_dir))) == ((3, 0) if loses else (0, 3))


def is_ready(address: str) -> bool:
    try:
        return ask(address, "/readyz").status == 200
    except OSError:
        return False
