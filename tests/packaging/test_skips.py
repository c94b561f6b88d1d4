"""`--fail-on-skip`: in continuous integration a test that did not run did not pass."""

import subprocess
import sys
from pathlib import Path

import pytest

SKIPS_ONE = """
import pytest

def test_runs():
    pass

@pytest.mark.skip(reason="no such server here")
def test_does_not():
    pass
"""
SKIPS_ALL = """
import pytest

pytest.skip("no such library here", allow_module_level=True)
"""


def run(folder: Path, checkout: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "tests").mkdir()
    for source_file, copy in (("conftest.py", "conftest.py"), ("servers.py", "tests/servers.py")):
        (folder / copy).write_text((checkout / "tests" / source_file).read_text(encoding="utf-8"))
    (folder / "test_sample.py").write_text("def test_something_runs():\n    pass\n")
    (folder / "test_skipping.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, folder]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("source", [SKIPS_ONE, SKIPS_ALL], ids=["one test", "a whole module"])
def test_a_skip_passes_on_a_laptop(source: str, tmp_path: Path, checkout: Path) -> None:
    assert run(tmp_path, checkout, source).returncode == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [(SKIPS_ONE, "no such server here"), (SKIPS_ALL, "no such library here")],
    ids=["one test", "a whole module"],
)
def test_a_skip_fails_the_build_and_says_why(source: str, reason: str, tmp_path: Path, checkout: Path) -> None:
    done = run(tmp_path, checkout, source, "--fail-on-skip")
    assert done.returncode == 1
    assert "skipping is a failure here" in done.stdout
    assert reason in done.stdout.partition("skipping is a failure here")[2]
