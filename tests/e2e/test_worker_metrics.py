"""`/metrics` of a server with several workers: one answer for all, also after one of them was killed."""

import os
import re
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from .conftest import UpstreamOf
from .running import Process, serving_process
from .scripted import Peer, always
from .test_process import made
from .waiting import until
from .wire import CHAT, DONE, HELLO, LAST_CHUNK, OpenRequest, ask, chunk, delta, sse_head, usage_event

WORKERS = 3
WRITTEN_WITHIN_S = 1.5


def totals(process: Process) -> dict[str, float]:
    """The sum of each metric's samples, by name, as one worker answers: each call is a connection of its own."""
    found: dict[str, float] = {}
    for line in ask(process.address, "/metrics").body.decode().splitlines():
        if sample := re.fullmatch(r"([a-z_]+)(?:\{.*\})? (\S+)", line):
            found[sample[1]] = found.get(sample[1], 0) + float(sample[2])
    return found


def workers_of(process: Process) -> list[int]:
    """The process ids of the workers: those of the server's children that listen."""
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_totals_are_those_of_all_workers_also_of_one_that_was_killed(data_dir: Path, upstream: UpstreamOf) -> None:
    account = made(data_dir, upstream(always(HELLO)).url)
    body = CHAT | {"stream": True}
    with serving_process(data_dir, "--workers", str(WORKERS)) as process:

        def send(times: int) -> None:
            for _ in range(times):
                assert ask(process.address, "/v1/chat/completions", account.key, body).status == 200

        def counted() -> dict[str, float]:
            page = totals(process)
            names = ("requests_total", "time_to_first_token_seconds_count", "tokens_total", "quota_total")
            return {name: page.get(f"tollway_{name}", 0) for name in names}

        def of(times: int) -> dict[str, float]:
            values = (times, times, 1500 * times, 225 * times)
            return dict(zip(counted(), values, strict=True))

        send(60)
        until(lambda: counted() == of(60), WRITTEN_WITHIN_S)
        until(lambda: totals(process)["tollway_resident_bytes"] > 2.5 * process.resident_bytes, WRITTEN_WITHIN_S)
        before = totals(process)

        os.kill(workers_of(process)[0], signal.SIGKILL)
        seen = [counted() for _ in range(20)]
        until(lambda: len(workers_of(process)) == WORKERS, 5)
        send(40)
        until(lambda: counted() == of(100), WRITTEN_WITHIN_S)
        assert [each for each in seen if each != of(60)] == []
        assert totals(process)["tollway_cpu_seconds"] > before["tollway_cpu_seconds"]
        process.terminate()
        assert process.ended() == 0, process.err
    assert list((data_dir / "run").iterdir()) == []


def test_open_streams_are_counted_on_whichever_worker(data_dir: Path, upstream: UpstreamOf) -> None:
    release = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head(), chunk(delta("first")))
        await peer.wait(release)
        await peer.send(chunk(usage_event()), chunk(DONE), LAST_CHUNK)

    account = made(data_dir, upstream(script).url)
    with serving_process(data_dir, "--workers", str(WORKERS)) as process, ExitStack() as streams:

        def streams_open() -> float:
            return totals(process)["tollway_streams_open"]

        for _ in range(9):
            request = streams.enter_context(OpenRequest(process.address, account.key, CHAT | {"stream": True}))
            request.read_until(b"first")
        until(lambda: streams_open() == 9, WRITTEN_WITHIN_S)
        release.set()
        until(lambda: streams_open() == 0, WRITTEN_WITHIN_S)


def test_a_single_process_writes_no_figures_down(data_dir: Path) -> None:
    with serving_process(data_dir) as process:
        assert ask(process.address, "/metrics").status == 200
        assert not (data_dir / "run").exists()
