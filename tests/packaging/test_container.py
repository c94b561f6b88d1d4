"""The Dockerfile, replayed without Docker: its install steps in an empty folder, its command, its health check."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.timeout(300)

Instruction = tuple[str, str]
Serving = Callable[[list[str], dict[str, str]], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def stages(checkout: Path) -> list[list[Instruction]]:
    """The instructions of each stage, continued lines joined; FROM opens a stage."""
    text = (checkout / "deploy/Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    stages: list[list[Instruction]] = []
    for line in filter(None, lines):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


@pytest.fixture(scope="module")
def final(stages: list[list[Instruction]]) -> dict[str, str]:
    return dict(stages[-1])


@pytest.fixture(scope="module")
def image(stages: list[list[Instruction]], clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for `/` of the build stage, after its COPY and RUN lines."""
    root = tmp_path_factory.mktemp("image")
    workdir = root
    for word, rest in stages[0]:
        if word == "WORKDIR":
            workdir = root / rest.lstrip("/")
            workdir.mkdir(parents=True)
        elif word == "COPY":
            copy(rest.split(), clean_copy, workdir)
        elif word == "RUN":
            # The image's Python is ours, and its absolute paths are below `root`.
            command = re.sub(r"(?<=\s)/opt/|^/opt/", f"{root}/opt/", rest)
            command = re.sub(r"^python\b", sys.executable, command)
            subprocess.run(["sh", "-ec", command], check=True, cwd=workdir)
    return root


def copy(words: list[str], context: Path, workdir: Path) -> None:
    *sources, target = words
    for source in sources:
        if (context / source).is_dir():
            shutil.copytree(context / source, workdir / target, dirs_exist_ok=True)
        else:
            shutil.copy(context / source, workdir / target)


def test_what_the_image_installs_starts_and_is_healthy(
    image: Path, final: dict[str, str], tmp_path: Path, free_port: int, serving: Serving
) -> None:
    program, *arguments = json.loads(final["CMD"])
    check_program, *check = json.loads(final["HEALTHCHECK"].partition("CMD ")[2])
    folder = image / "opt/tollway/bin"
    assert f"PORT={final['EXPOSE']}" in final["ENV"].split()
    environ = {"PORT": str(free_port), "DATA_DIR": str(tmp_path)}
    with serving([str(folder / program), *arguments], environ):
        subprocess.run([folder / check_program, *check], check=True, timeout=5, env=environ)


def test_what_the_image_installs_makes_the_schema_before_a_node_starts(
    image: Path, deploy: Path, tmp_path: Path
) -> None:
    """As the one-shot service of the compose file and the Job of Kubernetes do."""
    command = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))["services"]["migrate"]["command"]
    program, *arguments = command
    environ = {"DATA_DIR": str(tmp_path), "CRYPTO_SECRET": "one for all nodes of it"}
    migrate = [image / "opt/tollway/bin" / program, *arguments, "--json"]

    def made() -> dict[str, str | None]:
        done = subprocess.run(migrate, check=True, capture_output=True, text=True, cwd=tmp_path, env=environ)
        return json.loads(done.stdout)

    first, again = made(), made()
    assert (first["before"], again["before"]) == (None, first["revision"])
    assert not (tmp_path / "crypto_secret").exists()


def test_the_image_runs_as_a_user_of_its_own_and_keeps_its_data_in_a_volume(final: dict[str, str]) -> None:
    assert final["USER"] not in ("", "root", "0")
    assert "DATA_DIR=/data" in final["ENV"].split()
    assert final["VOLUME"] == "/data"


def test_the_build_context_lets_through_what_is_copied(stages: list[list[Instruction]], checkout: Path) -> None:
    let_through = {
        line.removeprefix("!")
        for line in (checkout / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {source for word, rest in stages[0] if word == "COPY" for source in rest.split()[:-1]}
    assert copied == let_through
