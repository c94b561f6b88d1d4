"""One installation served by several processes: nodes with a data directory each, on one database."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import DataDir, open_data_dir

from .running import Process, serving_process

T = TypeVar("T")

BENT = Path(__file__).with_name("bent")
SECRET = "the secret of all nodes"


@dataclass
class Installation:
    """`folders`: a data directory for each node. `url`: the database they share."""

    url: str
    folders: list[Path]
    flags: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, work: Callable[[DataDir], Awaitable[T]]) -> T:
        """The result of `work` on the open stores."""

        async def on_loop() -> T:
            opened = await open_data_dir(self.settings(self.folders[0]))
            try:
                return await work(opened)
            finally:
                await opened.store.close()

        return asyncio.run(on_loop())

    def settings(self, folder: Path) -> Settings:
        return Settings(data_dir=folder, database_url=self.url, crypto_secret=Secret(SECRET))

    def variables(self) -> dict[str, str]:
        return {"SQL_DSN": self.url, "CRYPTO_SECRET": SECRET, **self.environ}

    def bent(self, **environ: str) -> "Installation":
        """The same, whose processes are bent as `bent/sitecustomize.py` says."""
        return replace(self, environ={**self.environ, "PYTHONPATH": str(BENT), **environ})

    def node(self, number: int) -> "Installation":
        """One node of it."""
        return replace(self, folders=[self.folders[number]])

    @contextmanager
    def serving(self, *, ready: bool = True) -> Iterator[list[Process]]:
        """Every node, until the block ends; those that still run are killed."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(serving_process(folder, *self.flags, ready=ready, **self.variables()))
                for folder in self.folders
            ]

    def command(self, *words: str) -> "subprocess.Popen[str]":
        """A command that runs by itself."""
        return subprocess.Popen(
            [sys.executable, "-m", "tollway.gateway", *words, "--data-dir", str(self.folders[0])],
            env={**os.environ, **self.variables()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def audit(self, folder: Path) -> dict[str, Any]:
        """What `tollway audit` says, run by hand beside what serves."""
        done = subprocess.run(
            [sys.executable, "-m", "tollway.gateway", "audit", "--json", "--data-dir", str(folder)],
            env={**os.environ, **self.variables()},
            stdout=subprocess.PIPE,
            check=False,
        )
        found = json.loads(done.stdout)
        assert done.returncode == (0 if found["clean"] else 1)
        return found
