"""What deploy/README.md promises: its commands exist, its numbers are the program's, and its backup is whole."""

import asyncio
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tollway.config.options import Options
from tollway.config.settings import VARIABLES, Settings
from tollway.gateway import snapshot
from tollway.gateway.cli.commands import COMMANDS
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.ledger import store_ledger, upkeep
from tollway.gateway.redis import client
from tollway.gateway.store import server_address

from tests.e2e.gateway import new_account

SETTINGS = Settings()
# `NAME` in the text that is neither a variable of Tollway's nor one of its own files'.
OF_OTHERS = {"TOLLWAY_VERSION", "PUBLISH", "NAME", "POST", "SIGTERM"}


@pytest.fixture(scope="module")
def text(deploy: Path) -> str:
    return (deploy / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(text: str) -> dict[str, str]:
    """The last table: what happens -> the rest of its row."""
    table = text.rpartition("\n## ")[2]
    found = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {cells[0]: " | ".join(cells[1:]) for cells in found[2:]}


def test_every_failure_has_its_row(rows: dict[str, str]) -> None:
    assert list(rows) == [
        "The database is stopped",
        "The database is paused for 30 s",
        "Redis is killed",
        "Redis is flushed",
        "A node's disk is full",
        "The database's disk is full",
        "A node's process is killed",
        "A node's process stands still, or is cut off from the database",
        "A node's machine loses power",
        "A node's disk is lost",
        "A node's clock is stepped",
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("The database is stopped", f"go on for {store_ledger.TRUST_S:.0f} s"),
        ("The database is stopped", f"503 after {store_ledger.ANSWER_S:.0f} s"),
        ("The database is stopped", f"`JOURNAL_MAX_MB` ({SETTINGS.journal_max_bytes // 1024**2})"),
        ("The database is paused for 30 s", f"{store_ledger.TRUST_S:.0f} s are not reached"),
        ("A node's process is killed", f"out of reach for {upkeep.DEAD_AFTER_S:.0f} s at most"),
        ("A node's machine loses power", f"last {SETTINGS.journal_fsync_ms} ms"),
        ("A node's disk is lost", f"{upkeep.FLUSH_EVERY_S * 1000:.0f} ms of them"),
        ("A node's disk is lost", f"after {upkeep.DEAD_AFTER_S:.0f} s"),
    ],
)
def test_the_numbers_of_the_table_are_the_programs(row: str, says: str, rows: dict[str, str]) -> None:
    assert says in rows[row]


def test_changes_are_polled_for_as_often_as_it_says(rows: dict[str, str]) -> None:
    assert "by polling, within 1 s" in rows["Redis is killed"]
    assert snapshot.POLL_EVERY <= 0.5


def test_the_numbers_of_the_sizing_are_the_programs(text: str) -> None:
    assert f"Up to {server_address.POOL_SIZE} to the database" in text
    assert f"{client.MOST_CONNECTIONS} to Redis" in text
    assert f"`JOURNAL_MAX_MB` ({SETTINGS.journal_max_bytes // 1024**2})" in text


def test_variables_and_options_exist(text: str) -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})`", text)) - OF_OTHERS
    assert named <= {variable.name for variable in VARIABLES}
    for option in ("limits_without_redis", "charge_interrupted"):
        assert option in text
        assert hasattr(Options(), option)


def test_the_image_is_tagged_as_this_version(deploy: Path, release: str) -> None:
    for file in ("README.md", "compose.yaml"):
        tags = re.findall(r"-t tollway:(\S+)", (deploy / file).read_text(encoding="utf-8"))
        assert set(tags) == {release}


def test_commands_of_the_blocks_are_taken_as_they_stand(text: str) -> None:
    blocks = "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:^|\| |-- |bin/|docker exec tollway )tollway ([a-z].*)$", blocks, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        assert status(shlex.split(line)) == 0, line


def test_commands_that_texts_name_exist(deploy: Path) -> None:
    for file in ("README.md", "prometheus/rules.yml"):
        lines = re.findall(r"`tollway\s+([^`]+)`", (deploy / file).read_text(encoding="utf-8"))
        assert lines
        for line in lines:
            assert status([*line.split(), "--help"]) == 0, line


def status(argv: list[str]) -> int:
    """What the command line says to these arguments; nothing is done."""
    (command,) = [each for each in COMMANDS if each.name == argv[0]]
    try:
        command.parser().parse_args(argv[1:])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_links_lead_somewhere(text: str, deploy: Path) -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    for path in re.findall(r"`((?:kubernetes|nginx|prometheus|grafana|systemd)/[\w./-]+)`", text):
        assert (deploy / path).exists(), path


def test_titles_that_other_files_name_are_there(text: str, deploy: Path) -> None:
    titles = set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    for file in deploy.rglob("*"):
        if file.is_file() and file.suffix != ".md":
            assert set(re.findall(r'README\.md, "([^"]+)"', file.read_text(encoding="utf-8"))) <= titles, file


def test_the_backup_of_a_database_in_use_is_whole(text: str, tmp_path: Path) -> None:
    (line,) = re.findall(r"^(python3 -c .*? /backup/tollway\.db)$", text, re.MULTILINE | re.DOTALL)
    _, *arguments = shlex.split(line.replace("\\\n", " "))
    moved = {"/var/lib/tollway/tollway.db": f"{tmp_path}/tollway.db", "/backup/tollway.db": f"{tmp_path}/backup.db"}

    async def back_up_while_open() -> None:
        opened = await open_data_dir(Settings(data_dir=tmp_path))
        try:
            await new_account(opened.store, opened.vault)
            command = [sys.executable, *(moved.get(each, each) for each in arguments)]
            await asyncio.to_thread(subprocess.run, command, check=True)
        finally:
            await opened.store.close()

    asyncio.run(back_up_while_open())
    copy = sqlite3.connect(tmp_path / "backup.db")
    try:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM users").fetchone() == (1,)
    finally:
        copy.close()


def test_the_alerts_become_a_rule_of_the_operator(text: str, checkout: Path) -> None:
    (command,) = re.findall(r"^(\{ printf .*?; \}) \| kubectl", text, re.MULTILINE | re.DOTALL)
    made = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True, cwd=checkout)
    document = yaml.safe_load(made.stdout)
    assert document["kind"] == "PrometheusRule"
    assert document["spec"] == yaml.safe_load((checkout / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
