"""`tollway` as an operator starts it on each engine: set up from the command line, serve, charge, end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import SERVERS, free_port

from .running import serving_process
from .wire import CHAT, MODEL, ask

CHARGED_WITHIN_S = 10


class Operator:
    """The command line in an environment that names the database and nothing else."""

    def __init__(self, data_dir: Path, database_url: str) -> None:
        self.data_dir = data_dir
        self.environ = {"SQL_DSN": database_url}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tollway.gateway", *arguments, "--data-dir", str(self.data_dir)]
        environ = {"PATH": os.environ["PATH"], **self.environ}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)

    def done(self, *arguments: str) -> list[Any]:
        """The JSON documents of a command that must succeed, one a line."""
        ended = self.run(*arguments, "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        return [json.loads(line) for line in ended.stdout.splitlines()]


def key_made(operator: Operator) -> str:
    """A user with a dollar, a key, and a channel that answers by itself."""
    operator.done("user", "create", "--username", "ann", "--quota", "500000")
    operator.done("channel", "create", "--name", "echo", "--type", "echo", "--models", MODEL)
    (token,) = operator.done("token", "create", "--user", "ann", "--name", "laptop", "--unlimited")
    return token["key"]


def charges(operator: Operator, count: int) -> list[Any]:
    """The log, once it has so many rows."""
    give_up = time.monotonic() + CHARGED_WITHIN_S
    while len(rows := operator.done("logs")) < count and time.monotonic() < give_up:
        time.sleep(0.1)
    return rows


def test_a_request_is_served_and_charged(empty_database_url: str, data_dir: Path) -> None:
    operator = Operator(data_dir, empty_database_url)
    key = key_made(operator)
    with serving_process(data_dir, **operator.environ) as server:
        answer = ask(server.address, "/v1/chat/completions", key, CHAT)
        assert answer.status == 200
        (row,) = charges(operator, 1)
        server.terminate()
        assert server.ended() == 0, server.err
    ((user,),) = operator.done("user", "list")
    assert (row["username"], row["model"]) == ("ann", MODEL)
    assert user["used_quota"] == row["quota"] > 0
    assert user["quota"] == 500_000 - row["quota"]


@pytest.mark.parametrize("engine_name", SERVERS, indirect=True)
def test_a_server_that_is_not_there_is_one_sentence_and_nothing_is_written(database_url: str, data_dir: Path) -> None:
    scheme, _, rest = database_url.partition("://")
    nobody = f"{scheme}://somebody:hunter2@127.0.0.1:{free_port()}/{rest.partition('/')[2]}"
    for command in (("user", "list"), ("serve", "--port", "0")):
        ended = Operator(data_dir, nobody).run(*command)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert ended.stderr.startswith("tollway")
        assert "the database cannot be used now: " in ended.stderr
        assert "hunter2" not in ended.stderr
    assert not data_dir.exists()
