"""The real command in processes of its own: the demonstration, its three commands, and changes beside a server."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOLLWAY = [sys.executable, "-m", "tollway.gateway"]
WITHIN_S = 20
TAKEN_OVER_S = 2


@contextmanager
def running(*argv: str, cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    environ = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    process = subprocess.Popen(
        [*TOLLWAY, *argv], cwd=cwd, env=environ | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
        assert process.returncode == 0, "SIGTERM ends a server in order"
    finally:
        process.kill()
        process.communicate()


def ask(url: str, key: str, body: Any = None) -> int:
    """The status of a request, once the server is there."""
    give_up = time.monotonic() + WITHIN_S
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < give_up, f"{url} did not answer"
            time.sleep(0.05)


def once(*argv: str, cwd: Path) -> Any:
    ended = subprocess.run([*TOLLWAY, *argv, "--json"], cwd=cwd, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return json.loads(ended.stdout)


CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


def test_the_demonstration_prints_three_commands_that_work_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    with running("demo", "--port", "0", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        assert ask(f"{printed['address']}/readyz", "") == 200
        outputs = [
            subprocess.run(["sh", "-c", command], cwd=elsewhere, capture_output=True, text=True, check=True).stdout
            for command in printed["commands"][:2]
        ]
        assert json.loads(outputs[0])["choices"][0]["message"]["content"]
        assert outputs[1].startswith("data: ")
        assert outputs[1].endswith("data: [DONE]\n\n")
        time.sleep(0.5)  # charges are written every 200 ms
        logs = subprocess.run(
            ["sh", "-c", printed["commands"][2]], cwd=elsewhere, capture_output=True, text=True, check=True
        )
        heading, *lines = logs.stdout.splitlines()
        assert heading.startswith("time")
        assert len(lines) == 2
    assert (tmp_path / "demo-data" / "tollway.db").is_file()


def test_each_demonstration_has_one_fresh_key_and_the_rest_once(tmp_path: Path) -> None:
    keys: list[str] = []
    for _ in range(2):
        with running("demo", "--port", "0", "--data-dir", "d", cwd=tmp_path) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(6)]
            address = lines[0].strip()
            assert lines[2] == "Paste these into another terminal:\n"
            keys.append(shlex.split(lines[5])[1].removeprefix("Authorization: Bearer "))
            assert ask(f"{address}/v1/chat/completions", keys[-1], CHAT) == 200
            assert len(keys) == 1 or ask(f"{address}/v1/chat/completions", keys[0], CHAT) == 403
    tokens = once("token", "list", "--data-dir", "d", cwd=tmp_path)
    assert [(token["user"], token["name"], token["status"]) for token in tokens] == [
        ("root", "demo", "disabled"),
        ("root", "demo", "enabled"),
    ]
    (user,) = once("user", "list", "--data-dir", "d", cwd=tmp_path)
    assert (user["username"], user["role"], user["quota"] + user["used_quota"]) == ("root", "root", 50_000_000)
    (channel,) = once("channel", "list", "--data-dir", "d", cwd=tmp_path)
    assert channel["type"] == 1000
    assert len(channel["models"]) == 7


def test_a_demonstration_is_led_to_no_other_gateways_data(tmp_path: Path) -> None:
    elsewhere = {
        "SQL_DSN": "root:pw@host/x",
        "LOG_SQL_DSN": "root:pw@host/logs",
        "SQLITE_PATH": "other.db",
        "DATA_DIR": "other",
        "CRYPTO_SECRET": "short",
        "CRYPTO_SECRET_FORMER": "short",
    }
    with running("demo", "--port", "0", "--json", cwd=tmp_path, **elsewhere) as process:
        assert process.stdout is not None
        assert ask(f"{json.loads(process.stdout.readline())['address']}/readyz", "") == 200
    assert [path.name for path in tmp_path.iterdir()] == ["demo-data"]


def test_commands_work_beside_a_server_and_it_takes_them_over(tmp_path: Path, unused_port: int) -> None:
    where = ("--data-dir", str(tmp_path / "data"))
    once("user", "create", "--username", "ann", "--quota", "500000", *where, cwd=tmp_path)
    address = f"http://127.0.0.1:{unused_port}"
    with running("serve", "--port", str(unused_port), *where, cwd=tmp_path):
        assert ask(f"{address}/readyz", "") == 200
        once("channel", "create", "--name", "e", "--type", "echo", "--models", "echo", *where, cwd=tmp_path)
        made = once("token", "create", "--user", "ann", "--name", "t", *where, cwd=tmp_path)
        assert ask(f"{address}/v1/chat/completions", made["key"], CHAT) == 200, (
            "it looks for a key that it does not know"
        )
        once("token", "disable", "--id", str(made["id"]), *where, cwd=tmp_path)
        give_up = time.monotonic() + TAKEN_OVER_S
        while (status := ask(f"{address}/v1/chat/completions", made["key"], CHAT)) == 200:
            assert time.monotonic() < give_up, "a change is not taken over"
            time.sleep(0.02)
        assert status == 403
        taken = subprocess.run(
            [*TOLLWAY, "serve", "--port", str(unused_port), *where], cwd=tmp_path, capture_output=True, text=True
        )
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert f"PORT {unused_port} cannot be listened on: Address already in use; try PORT=" in taken.stderr
        assert taken.stderr.endswith(f"={unused_port + 1}\n"), "the next one, not one that it may have been moved from"


def test_a_second_server_on_one_data_directory_says_that_there_is_another(tmp_path: Path) -> None:
    argv = ("serve", "--port", "0", "--data-dir", "d")
    with running(*argv, cwd=tmp_path) as first:
        assert first.stderr is not None
        new = f"tollway: {tmp_path / 'd' / 'tollway.db'} is a new database; "
        assert first.stderr.readline().startswith(new), "a server in the wrong folder would serve nobody"
        assert " listens on " in first.stderr.readline(), "it is alone, and says nothing else"
        with running(*argv, cwd=tmp_path) as second:
            assert second.stderr is not None
            assert second.stderr.readline().startswith("tollway: warning: another server runs on DATA_DIR d: ")
            assert " listens on " in second.stderr.readline()


def test_workers_are_a_setting_too(tmp_path: Path, unused_port: int) -> None:
    with running("serve", "--port", str(unused_port), "--data-dir", "d", cwd=tmp_path, WORKERS="2") as process:
        assert ask(f"http://127.0.0.1:{unused_port}/readyz", "") == 200
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
        assert sum("spawn_main" in command for command in commands) == 2


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_reader_that_leaves_early_is_no_failure(tmp_path: Path) -> None:
    once("user", "create", "--username", "ann", "--data-dir", "d", cwd=tmp_path)
    command = shlex.join([*TOLLWAY, "option", "list", "--data-dir", "d"])
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_at_a_prompt_is_taken_at_once(tmp_path: Path) -> None:
    # Also where the tests themselves run with the signal ignored, as shells start what runs in the background.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from tollway.gateway.__main__ import main; sys.exit(main(sys.argv[1:]))"
    argv = ("user", "create", "--username", "ann", "--password-stdin", "--data-dir", "d")
    terminal, given = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=tmp_path,
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        said = b""
        while b"Password: " not in said:
            said += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, out, b"Traceback" in err) == (130, b"", False)
    finally:
        process.kill()
        process.communicate()
        os.close(terminal)
        os.close(given)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_output_that_finds_no_space_is_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        once("db", "upgrade", cwd=tmp_path)
        ended = subprocess.run(
            [*TOLLWAY, "price", "export"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (1, "tollway price: there is no space left to write to\n")
