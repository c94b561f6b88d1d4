"""Servers for tests: an ASGI app under uvicorn in a thread, and `tollway serve` as a process of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
import uvloop
from starlette.types import ASGIApp
from tollway.gateway.http_protocol import HttpProtocol

T = TypeVar("T")

START_WITHIN_S = 20


class LoopThread:
    """An event loop in a thread; the tests themselves are plain functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 10) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@dataclass
class Served:
    """An app that is being served. `loop` is the one it runs on."""

    address: str
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 10) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)


@contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[Served]:
    """`app` under uvicorn with the options of `tollway serve`, on a free port of 127.0.0.1, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        **{
            "http": HttpProtocol,
            "access_log": False,
            "log_level": "warning",
            "server_header": False,
            "proxy_headers": False,
            "lifespan": "on",
            "timeout_graceful_shutdown": 5,
            **options,
        },
    )
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    def serve() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loops.append(runner.get_loop())
            runner.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        give_up = time.monotonic() + START_WITHIN_S
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < give_up, "the server did not start in time"
            time.sleep(0.005)
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", loops[0])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@dataclass
class Process:
    """`tollway serve` in its own process, with what it has printed once it is over."""

    address: str
    popen: "subprocess.Popen[str]"
    out: str = ""
    err: str = ""

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def press_ctrl_c(self) -> None:
        """As a terminal does: the workers get it too."""
        os.killpg(self.popen.pid, signal.SIGINT)

    def kill(self) -> None:
        """At once, with the workers."""
        os.killpg(self.popen.pid, signal.SIGKILL)

    def ended(self, timeout: float = 20) -> int:
        """Wait for the end; the exit status."""
        self.out, self.err = self.popen.communicate(timeout=timeout)
        return self.popen.returncode


@contextmanager
def serving_process(data_dir: Path, *flags: str, ready: bool = True, **environ: str) -> Iterator[Process]:
    """
    `tollway serve` with these flags, in an environment that sets nothing but `environ`. It is killed if it is left
    running. `ready`: only once it is.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    popen = subprocess.Popen(
        [sys.executable, "-m", "tollway.gateway", "serve", "--port", str(port), "--data-dir", str(data_dir), *flags],
        env={**kept, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = Process(f"http://127.0.0.1:{port}", popen)
    try:
        give_up = time.monotonic() + START_WITHIN_S
        while ready and not _is_ready(process.address):
            assert popen.poll() is None, "the server did not start"
            assert time.monotonic() < give_up, "the server did not start in time"
            time.sleep(0.03)
        yield process
    finally:
        if popen.poll() is None:
            process.kill()
            process.ended()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
