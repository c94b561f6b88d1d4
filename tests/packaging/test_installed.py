"""The built wheel, in an empty environment far from the checkout: it shows its help and serves."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

Serving = Callable[[list[str], dict[str, str]], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel and what the wheel asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "--quiet", "--disable-pip-version-check", "install", wheel], check=True)
    return folder


def test_what_the_wheel_asks_for_fits_together(environment: Path) -> None:
    subprocess.run([environment / "bin/pip", "--disable-pip-version-check", "check"], check=True)


def test_every_module_of_the_wheel_can_be_imported(wheel: Path, environment: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = [Path(name) for name in archive.namelist() if name.endswith(".py")]
    # Alembic executes its env.py and the revisions, whose names start with a digit.
    modules = [".".join(file.with_suffix("").parts) for file in files if "migrations" not in file.parts]
    command = [environment / "bin/python", "-c", f"import {', '.join(modules)}"]
    subprocess.run(command, check=True, cwd=tmp_path, env={})


@pytest.mark.parametrize(
    "program", [["bin/tollway"], ["bin/python", "-m", "tollway.gateway"]], ids=["as a command", "as a module"]
)
def test_it_shows_its_help(program: list[str], environment: Path, tmp_path: Path) -> None:
    command = [environment / program[0], *program[1:], "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env={})
    assert "serve" in shown.stdout


def test_it_serves(environment: Path, tmp_path: Path, free_port: int, serving: Serving) -> None:
    with serving([str(environment / "bin/tollway"), "serve"], {"PORT": str(free_port), "DATA_DIR": str(tmp_path)}):
        pass
