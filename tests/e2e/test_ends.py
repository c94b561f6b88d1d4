"""SIGTERM under load: nobody's answer is cut, all are charged once, and nothing is left behind."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import UpstreamOf
from .load import adds_up, asking, made, terminated
from .nodes import Installation
from .scripted import Peer
from .wire import DONE, LAST_CHUNK, chunk, completion, delta, sse_head, usage_event, whole

pytestmark = pytest.mark.parametrize("engine_name", ["sqlite", "postgresql", "mariadb-local"], indirect=True)

WORDS = 20
PAUSE_S = 0.03


async def slowly(peer: Peer) -> None:
    """Every stream takes more than half a second."""
    while True:
        request = await peer.request()
        if b'"stream": true' not in request.body:
            await peer.send(whole(completion()))
            continue
        await peer.send(sse_head())
        for word in range(WORDS):
            await peer.send(chunk(delta(f"{word} ")))
            await asyncio.sleep(PAUSE_S)
        await peer.send(chunk(usage_event()) + chunk(DONE) + LAST_CHUNK)


@pytest.mark.parametrize("flags", [(), ("--workers", "4")], ids=["one process", "4 workers"])
def test_sigterm_under_load_cuts_nobody(
    flags: tuple[str, ...], database_url: str, tmp_path: Path, upstream: UpstreamOf
) -> None:
    installation = Installation(database_url, [tmp_path / "node"], flags)
    account = made(installation, upstream(slowly).url, quota=10**9)
    with installation.serving() as (process,), asking([process], account, clients=16) as client:
        time.sleep(1.5)
        process.terminate()
        assert process.ended() == 0, process.err
    print(client.failed)
    assert client.failed == []
    adds_up(installation, account, client.ended)


def test_nodes_that_restart_in_turn_fail_nobody(database_url: str, tmp_path: Path, upstream: UpstreamOf) -> None:
    installation = Installation(database_url, [tmp_path / "one", tmp_path / "other"])
    account = made(installation, upstream(slowly).url, quota=10**9)
    with ExitStack() as stack:
        processes = stack.enter_context(installation.serving())
        with asking(processes, account, clients=12) as client:
            for number in range(2):
                time.sleep(0.7)
                processes[number].terminate()
                assert processes[number].ended() == 0, processes[number].err
                processes[number : number + 1] = stack.enter_context(installation.node(number).serving())
                client.addresses[number] = processes[number].address
            time.sleep(0.7)
        assert client.failed == []
        assert client.refused
        assert installation.audit(tmp_path / "one")["clean"]
        terminated(processes)
    adds_up(installation, account, client.ended)
