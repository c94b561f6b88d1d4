"""Starting what is measured on a core of its own, and reading what it costs from /proc (Linux)."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
TARGET_CORE, LOAD_CORE = CORES[0], CORES[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Process:
    """A started process and its children."""

    popen: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        cores: Collection[int],
        cwd: Path,
        environ: Mapping[str, str] | None = None,
        output: IO[bytes] | int = subprocess.DEVNULL,
    ) -> "Process":
        return cls(
            subprocess.Popen(
                [str(word) for word in command],
                env=dict(os.environ) | dict(environ or {}),
                cwd=cwd,
                stdout=output,
                stderr=None if output == subprocess.DEVNULL else output,
                start_new_session=True,
                # Before the program's first thread starts, so that all of them inherit it.
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        )

    def stop(self, within: float = 20.0, *, by: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, and after `within` seconds SIGKILL; the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(by)
        try:
            self.popen.wait(within)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def wait_until_ready(self, port: int, path: str, within: float = 30.0) -> None:
        """Return at the first 200 on `path`. Raises RuntimeError when the process ends, or never answers."""
        give_up = time.perf_counter() + within
        while time.perf_counter() < give_up:
            if self.popen.poll() is not None:
                raise RuntimeError(f"{self.popen.args} ended with status {self.popen.returncode}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in connection.recv(64):
                    return
            time.sleep(0.005)
        raise RuntimeError(f"nothing answered 200 on port {port}, {path}")

    def cpu_seconds(self) -> float:
        """User and system time of the process and its children so far."""
        ticks = 0
        for pid in self._tree():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def memory_mib(self) -> float:
        """Resident memory, pages that several processes share counted by their share."""
        kib = 0
        for pid in self._tree():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        kib += int(line.split()[1])
        return kib / 1024

    def open_files(self) -> tuple[int, int]:
        """Open descriptors, and how many of them are sockets."""
        links: list[str] = []
        for pid in self._tree():
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    links.append(os.readlink(entry))
        return len(links), sum(link.startswith("socket:") for link in links)

    def _tree(self) -> list[int]:
        found, todo = list[int](), [self.popen.pid]
        while todo:
            found.append(todo.pop())
            with suppress(OSError):
                for task in Path(f"/proc/{found[-1]}/task").iterdir():
                    todo += map(int, (task / "children").read_text().split())
        return found
