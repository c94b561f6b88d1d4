"""What the packaging tests share: the checkout, a clean copy of it, the wheel, and a started server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

FOLDERS = ("config", "adapters", "middleware", "gateway")
READY_WITHIN_S = 20


@pytest.fixture(scope="session")
def checkout() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def deploy(checkout: Path) -> Path:
    return checkout / "deploy"


@pytest.fixture(scope="session")
def release(checkout: Path) -> str:
    """The version of this checkout, which is the tag of its image."""
    return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="session")
def tool() -> Callable[[str, str], str]:
    """`tool(name, package)`: where a program of the machine is; skips where it is not installed."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            pytest.skip(f"no {name} here: it is in Debian's package {package}")
        return found

    return find


@pytest.fixture(scope="session")
def clean_copy(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds of the things that are packaged: no build folder, no bytecode, no virtual environment."""
    copy = tmp_path_factory.mktemp("clone")
    for folder in FOLDERS:
        shutil.copytree(checkout / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def wheel(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", out, clean_copy], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def serving() -> Callable[[list[str], dict[str, str]], AbstractContextManager[None]]:
    """`with serving(command, environment)`: the command answers /healthz on PORT inside, and ends cleanly after."""
    return answering


@contextmanager
def answering(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    address = f"http://127.0.0.1:{environment['PORT']}/healthz"
    # PYTHONPATH and the working directory must not lend the installed copy anything from the checkout.
    inherited = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    server = subprocess.Popen(command, env=inherited | environment, cwd=environment["DATA_DIR"], start_new_session=True)
    try:
        wait_until_ready(server, address)
        yield
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=15) == 0, "SIGTERM ends a server without open streams, and with status 0"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], address: str) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while True:
        assert server.poll() is None, f"the server ended with status {server.returncode} before it answered"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < give_up, f"{address} did not answer within {READY_WITHIN_S} s"
            time.sleep(0.05)
