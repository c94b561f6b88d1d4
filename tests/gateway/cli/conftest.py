"""A data directory with a schema, and `tollway`: one command run in this process."""

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tollway.config.settings import VARIABLES, Settings
from tollway.gateway.__main__ import main
from tollway.gateway.data_dir import DataDir, open_data_dir


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Tollway = Callable[..., Ended]


async def open_and_close(settings: Settings) -> None:
    opened = await open_data_dir(settings)
    await opened.store.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "data"
    asyncio.run(open_and_close(Settings(data_dir=folder)))
    return folder


@pytest.fixture
def data_dir(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that is DATA_DIR, in an environment that sets nothing else."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    folder = Path(shutil.copytree(made, tmp_path / "data"))
    monkeypatch.setenv("DATA_DIR", str(folder))
    return folder


@pytest.fixture
def tollway(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tollway:
    """`tollway("user", "list", stdin="...")`."""

    def run(*argv: object, stdin: str = "") -> Ended:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


@pytest.fixture
def done(tollway: Tollway) -> Callable[..., Any]:
    """`done("user", "list")`: the JSON document of a command that must succeed."""

    def run(*argv: object, stdin: str = "") -> Any:
        ended = tollway(*argv, "--json", stdin=stdin)
        assert ended.status == 0, ended.err
        assert ended.err == ""
        assert ended.out.count("\n") == 1
        return ended.json

    return run


@pytest.fixture
def in_store(data_dir: Path) -> Callable[..., Any]:
    """`in_store(work)`: the result of `await work(opened)` on the open data directory."""

    def run(work: Callable[[DataDir], Any]) -> Any:
        async def on_loop() -> Any:
            opened = await open_data_dir(Settings(data_dir=data_dir))
            try:
                return await work(opened)
            finally:
                await opened.store.close()

        return asyncio.run(on_loop())

    return run
