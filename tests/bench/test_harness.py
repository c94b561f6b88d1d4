"""Both harnesses, with seconds-long settings: they start, measure, and see whole answers only."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="costs are read from /proc"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load client"),
]


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, HERE / script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx to compare with")
def test_the_comparison_measures_every_target_under_every_load(tmp_path: Path) -> None:
    cells = tmp_path / "cells.jsonl"
    done = run("bench.py", "--rounds", "1", "--pace", "0.15", "--work", str(tmp_path), "--json", str(cells))
    seen = [json.loads(line) for line in cells.read_text().splitlines()]
    assert {cell["target"] for cell in seen} == {"nginx", "raw", "tollway"}
    assert len(seen) == 18
    assert all(cell["outcome"]["ok"] > 0 and cell["outcome"]["bad"] == 0 for cell in seen)
    assert "| CPU us per request, 2 KB |" in done.stdout


def test_steady_load_leaves_nothing_behind(tmp_path: Path) -> None:
    # Seconds are too few for the allocator to settle, so memory may grow more than in a real run.
    sizes = ["--minutes", "0.1", "--rate", "50", "--crowd", "64", "--memory-may-grow", "24"]
    done = run("steady.py", *sizes, "--work", str(tmp_path))
    assert done.stdout.endswith("\nsteady\n")
    assert "64 streams at once: 64 whole" in done.stdout


def test_more_workers_are_compared(tmp_path: Path) -> None:
    done = run("workers.py", "--workers", "1,2", "--seconds", "0.3", "--rounds", "1", "--work", str(tmp_path))
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:4]] == ["1", "2"]
