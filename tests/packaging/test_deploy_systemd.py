"""The systemd unit: systemd understands all of it, it is shut in, and its end waits for Tollway's."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tollway.config.settings import Settings

Tool = Callable[[str, str], str]

PROGRAM = "/opt/tollway/bin/tollway"
MOST_EXPOSED = 2.0
"""Of 10, by systemd's own count; a unit without any protection has 9.6."""
LAST_CHARGES_S = 25


@pytest.fixture(scope="module")
def unit(deploy: Path) -> str:
    return (deploy / "systemd/tollway.service").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def values(unit: str) -> dict[str, str]:
    """The last value of each setting."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def analyze(tool: Tool) -> str:
    return tool("systemd-analyze", "systemd")


@pytest.fixture
def installed(unit: str, tmp_path: Path) -> Path:
    """The unit, with a program that is there: systemd looks."""
    assert unit.count(PROGRAM) == 1
    file = tmp_path / "tollway.service"
    file.write_text(unit.replace(PROGRAM, "/bin/sh").replace("file:///opt/tollway", "file:///etc"))
    return file


def test_systemd_understands_every_line(analyze: str, installed: Path) -> None:
    done = subprocess.run([analyze, "verify", "--man=no", installed], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_systemd_does_not_understand_would_be_found(analyze: str, installed: Path) -> None:
    installed.write_text(installed.read_text().replace("ProtectHome=", "ProtectHouse="))
    done = subprocess.run([analyze, "verify", "--man=no", installed], capture_output=True, text=True)
    assert "ProtectHouse" in done.stderr


def test_it_is_shut_in(analyze: str, installed: Path) -> None:
    bound = [f"--threshold={int(MOST_EXPOSED * 10)}", "--offline=true"]
    done = subprocess.run([analyze, "security", "--no-pager", *bound, installed], capture_output=True, text=True)
    (exposed,) = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposed) <= MOST_EXPOSED, done.stdout


def test_it_serves_as_a_user_of_its_own_from_a_folder_that_outlives_it(values: dict[str, str]) -> None:
    assert values["ExecStart"] == f"{PROGRAM} serve"
    assert values["User"] not in ("", "root")
    assert values["StateDirectory"] == "tollway"
    assert values["StateDirectoryMode"] == "0700"
    assert "DATA_DIR=%S/tollway" in values["Environment"].split()
    assert values["EnvironmentFile"] == "-/etc/tollway/tollway.env"


def test_its_end_leaves_time_for_open_streams_and_the_last_charges(values: dict[str, str]) -> None:
    assert values["KillSignal"] == "SIGTERM"
    assert values["KillMode"] == "mixed"
    assert int(values["TimeoutStopSec"]) >= Settings().shutdown_timeout + LAST_CHARGES_S


def test_a_wrong_setting_is_not_tried_again_and_a_crash_is(values: dict[str, str]) -> None:
    assert values["Restart"] == "on-failure"
    assert values["RestartPreventExitStatus"] == "2"


def test_there_are_files_enough_for_many_streams(values: dict[str, str]) -> None:
    assert int(values["LimitNOFILE"]) >= 65536
