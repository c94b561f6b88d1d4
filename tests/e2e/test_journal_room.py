"""The journal's disk is full while the server runs: new work is refused, nothing is lost, and it goes on by itself."""

import resource
import threading
from pathlib import Path

import pytest

from .conftest import UpstreamOf
from .load import BODY, adds_up, charged, made, terminated
from .nodes import Installation
from .running import Process
from .scripted import Peer
from .waiting import until
from .wire import DONE, LAST_CHUNK, OpenRequest, ask, chunk, completion, delta, sse_head, usage_event, whole

pytestmark = [
    pytest.mark.parametrize("engine_name", ["sqlite", "postgresql", "mariadb-local"], indirect=True),
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limits of another process are Linux's"),
]

ROOM = 4096
"""Bytes a file may have: those of a journal are larger from their beginning, so that some writes end half way."""


def limit_files(process: Process, most: int) -> None:
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_new_work_and_loses_nothing(
    database_url: str, tmp_path: Path, upstream: UpstreamOf
) -> None:
    go_on = threading.Event()

    async def script(peer: Peer) -> None:
        while b'"stream": true' not in (await peer.request()).body:
            await peer.send(whole(completion()))
        await peer.send(sse_head(), chunk(delta("before")))
        await peer.wait(go_on)
        await peer.send(chunk(usage_event()), chunk(DONE), LAST_CHUNK)

    installation = Installation(database_url, [tmp_path / "node"])
    account = made(installation, upstream(script).url, quota=10**9)
    ended: list[str] = []

    def status(process: Process) -> int:
        headers = {"x-request-id": f"request-{len(ended)}"}
        answer = ask(process.address, "/v1/chat/completions", account.key, BODY, headers=headers)
        if answer.status == 200:
            ended.append(headers["x-request-id"])
        return answer.status

    with installation.serving() as (process,):
        assert [status(process) for _ in range(5)] == [200] * 5
        with OpenRequest(process.address, account.key, BODY | {"stream": True}, request_id="stream") as stream:
            stream.read_until(b"before")
            limit_files(process, ROOM)
            until(lambda: status(process) == 503, 10)
            assert ask(process.address, "/readyz").status == 503
            go_on.set()
            stream.read_until(DONE)
            ended.append("stream")
        assert status(process) == 503
        limit_files(process, resource.RLIM_INFINITY)
        until(lambda: status(process) == 200, 5)
        terminated([process])
    assert charged(installation).total() == len(ended)
    adds_up(installation, account, ended)
