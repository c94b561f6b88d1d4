"""The nginx of `deploy/`, really run: its files with the addresses and folders of a test, before two nodes."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_data_dir

from tests.e2e.gateway import DOLLAR, Account, new_account, new_channel
from tests.e2e.running import Process, serving_process

SECRET = "one for both nodes, as it must be"
NODES = ("tollway-1", "tollway-2")
QUOTA = 100 * DOLLAR  # big bodies cost as much as they look
START_WITHIN_S = 10


@dataclass
class Front:
    """nginx on `address`, before `nodes`; a channel at the test's upstream serves `account`."""

    address: str
    nodes: list[Process]
    account: Account
    log: Path
    make_account: Any
    """`make_account(**fields of its token)`: one more, in a group without a channel."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def busy_node(self) -> Process:
        """The node that is serving a request now."""
        give_up = time.monotonic() + START_WITHIN_S
        while time.monotonic() < give_up:
            for node in self.nodes:
                if "tollway_streams_open 1.0" in httpx.get(f"{node.address}/metrics", trust_env=False).text:
                    return node
            time.sleep(0.02)
        raise AssertionError("no node serves a request")

    def logged(self, request_id: str) -> dict[str, Any]:
        """nginx's line of this request, which it writes behind the answer's end."""
        give_up = time.monotonic() + START_WITHIN_S
        while time.monotonic() < give_up:
            text = self.log.read_text(encoding="utf-8")
            for line in text[: text.rfind("\n") + 1].splitlines():
                if (found := json.loads(line))["request_id"] == request_id:
                    return found
            time.sleep(0.02)
        raise AssertionError(f"nginx has not logged {request_id}")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def configured(deploy: Path, folder: Path, *, listen: int, nodes: list[int]) -> Path:
    """The files of `deploy/nginx` in `folder`, changed in nothing but addresses and folders; the main one."""
    changes = {"/tmp/": f"{folder}/", "/dev/stdout": f"{folder}/access.log", "/dev/stderr": f"{folder}/error.log"}
    changes |= {"listen 8080;": f"listen 127.0.0.1:{listen};"}
    changes |= {f"{name}:3000": f"127.0.0.1:{port}" for name, port in zip(NODES, nodes, strict=True)}
    missing = set(changes)
    for name in ("nginx.conf", "tollway.conf"):
        text = (deploy / "nginx" / name).read_text(encoding="utf-8")
        for old, new in changes.items():
            if old in text:
                missing.discard(old)
                text = text.replace(old, new)
        (folder / name).write_text(text)
    assert not missing
    return folder / "nginx.conf"


@contextmanager
def running_nginx(binary: str, config: Path, port: int) -> Iterator[None]:
    # A worker may not be root's here: nginx gives up its rights, and pytest's folder is closed to others.
    nginx = subprocess.Popen([binary, "-p", str(config.parent), "-c", str(config), "-g", "daemon off; user root;"])
    try:
        give_up = time.monotonic() + START_WITHIN_S
        while True:
            assert nginx.poll() is None, "nginx did not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < give_up, "nginx did not start in time"
            time.sleep(0.02)
        yield
    finally:
        nginx.send_signal(signal.SIGTERM)
        nginx.wait()


@contextmanager
def front(binary: str, deploy: Path, folder: Path, upstream: str) -> Iterator[Front]:
    """Two nodes on one database, in processes of their own, and nginx before them."""
    url = f"sqlite:///{folder}/shared.db"
    environ = {"SQL_DSN": url, "CRYPTO_SECRET": SECRET, "TRUSTED_PROXIES": "127.0.0.1/32"}
    settings = Settings(data_dir=folder / "node-0", database_url=url, crypto_secret=Secret(SECRET))

    async def account(channel: bool, **token: Any) -> Account:
        opened = await open_data_dir(settings)
        try:
            made = await new_account(opened.store, opened.vault, **token)
            if channel:
                await new_channel(opened.store, opened.vault, made.group, upstream)
            return made
        finally:
            await opened.store.close()

    caller = asyncio.run(account(True, quota=QUOTA))
    with ExitStack() as stack:
        nodes = [stack.enter_context(serving_process(folder / f"node-{number}", **environ)) for number in (0, 1)]
        (port,) = free_ports(1)
        config = configured(deploy, folder, listen=port, nodes=[port_of(node) for node in nodes])
        stack.enter_context(running_nginx(binary, config, port))

        def more(**token: Any) -> Account:
            return asyncio.run(account(False, **token))

        yield Front(f"http://127.0.0.1:{port}", nodes, caller, folder / "access.log", more)


def port_of(node: Process) -> int:
    return int(node.address.rpartition(":")[2])


def seconds(text: str, directive: str) -> float:
    """What a directive of an nginx file says, in seconds. It stands there once."""
    (found,) = re.findall(rf"^\s*{directive} (\d+)s;", text, flags=re.MULTILINE)
    return float(found)
