"""A process that opens and leaves the database beside a server takes nothing from under it."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tollway.gateway.store.sqlite_wal import POOL_SIZE, WalPool, create_private

WITHIN_S = 20
PRESENT_S = 2.0
"""A change made beside the server is in force within this time."""
VISIT = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM sqlite_master'); c.close()"
CHAT = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]}).encode()
SERVERS = {
    "tollway serve": ["tollway.gateway", "serve", "--port"],
    "uvicorn": ["uvicorn", "--factory", "tollway.gateway.app:from_environ", "--log-level", "warning", "--port"],
}


def visit(path: Path) -> None:
    """Open the database in another process, read, and close it: the last one to close takes the log away."""
    subprocess.run([sys.executable, "-c", VISIT, str(path)], check=True, timeout=WITHIN_S)


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def rows_seen_by_others(path: Path) -> int:
    script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT COUNT(*) FROM t').fetchone()[0])"
    seen = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=True, timeout=WITHIN_S, capture_output=True, text=True
    )
    return int(seen.stdout)


def test_asking_for_a_file_that_is_there_drops_no_lock_on_it(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    create_private(str(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        log = log_of(path).stat().st_ino
        create_private(str(path))
        visit(path)
        assert log_of(path).stat().st_ino == log
        connection.execute("INSERT INTO t VALUES (1)")
        assert rows_seen_by_others(path) == 1


@pytest.mark.anyio
async def test_every_further_connection_of_the_pool_leaves_the_locks_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    pool = WalPool(str(path), 1000)
    first = await pool.acquire()
    connections = [first]
    try:
        await first.execute("CREATE TABLE t (x)")
        log = log_of(path).stat().st_ino
        for number in range(1, POOL_SIZE):
            connections.append(await pool.acquire())
            visit(path)
            assert log_of(path).stat().st_ino == log
            await first.execute("INSERT INTO t VALUES (1)")
            assert rows_seen_by_others(path) == number
    finally:
        for connection in connections:
            await pool.release(connection)
        await pool.close()


def environ_of(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    return kept | {"DATA_DIR": str(data_dir)}


def done(data_dir: Path, *argv: str, stdin: str = "") -> Any:
    """What a command says, run as a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "tollway.gateway", *argv, "--json"],
        env=environ_of(data_dir),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def ask(address: str, path: str, key: str = "") -> int:
    """The status of a request; with a key it is a conversation."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} if key else {}
    request = urllib.request.Request(f"{address}{path}", CHAT if key else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def chat(address: str, key: str) -> int:
    return ask(address, "/v1/chat/completions", key)


@contextmanager
def serving(server: list[str], data_dir: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", *server, str(port)],
        env=environ_of(data_dir),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + WITHIN_S
        while not is_ready(address):
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < give_up, "the server did not start in time"
            time.sleep(0.03)
        yield address, process
    finally:
        process.kill()
        process.wait()


def is_ready(address: str) -> bool:
    try:
        return ask(address, "/readyz") == 200
    except urllib.error.URLError:
        return False


def open_files(pid: int) -> list[str]:
    """What the process holds open in its data directory, where the system tells."""
    found: list[str] = []
    for file in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.append(os.readlink(file))
        except FileNotFoundError:
            continue  # closed meanwhile
    return [name for name in found if "tollway.db" in name]


def use_every_connection(address: str, key: str) -> int:
    """Requests at once, so that the pool opens all it may. How many conversations were answered."""
    with ThreadPoolExecutor(24) as pool:
        pages = [pool.submit(ask, address, "/readyz") for _ in range(48)]
        chats = [pool.submit(chat, address, key) for _ in range(12)]
        assert {page.result() for page in pages} == {200}
        assert {each.result() for each in chats} == {200}
        return len(chats)


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_commands_beside_a_server_lose_nothing(server: list[str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    alice = ["user", "create", "--username", "alice", "--password-stdin", "--quota", "5000000"]
    done(data_dir, *alice, stdin="a-good-password")
    done(data_dir, *["channel", "create", "--name", "echo", "--type", "echo", "--models", "gpt-4o-mini"])
    key = done(data_dir, *["token", "create", "--user", "alice", "--name", "first", "--unlimited"])["key"]
    with serving(server, data_dir) as (address, process):
        answered = use_every_connection(address, key)
        done(data_dir, "user", "list")
        second = done(data_dir, *["token", "create", "--user", "alice", "--name", "second", "--unlimited"])["key"]
        give_up = time.monotonic() + PRESENT_S
        while (status := chat(address, second)) == 401 and time.monotonic() < give_up:
            time.sleep(0.05)
        assert status == 200, "a key made beside the server is not known to it"
        answered += 1 + use_every_connection(address, key)
        done(data_dir, "user", "list")
        if sys.platform == "linux":
            files = open_files(process.pid)
            assert any(name.endswith("tollway.db") for name in files)
            assert [name for name in files if name.endswith("(deleted)")] == []
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN_S)
    assert_whole(data_dir / "tollway.db", answered)


def assert_whole(path: Path, answered: int) -> None:
    """Nothing is lost: the user, both tokens, a charge for each answer, and a database that is in order."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT COUNT(*) FROM tokens").fetchone() == (2,)
        assert database.execute("SELECT COUNT(*) FROM logs").fetchone() == (answered,)
        ((used, requests),) = database.execute("SELECT used_quota, request_count FROM users").fetchall()
        assert (used,) == database.execute("SELECT SUM(quota) FROM logs").fetchone()
        assert requests == answered
