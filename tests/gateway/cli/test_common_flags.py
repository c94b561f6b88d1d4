"""The flags that every command has, in every place where somebody may type them."""

from pathlib import Path

import pytest

from .conftest import Tollway

COMMANDS = [("user", "list"), ("db", "current"), ("logs",)]


@pytest.fixture
def elsewhere(tollway: Tollway, tmp_path: Path) -> Path:
    """A data directory that is not DATA_DIR, and that alone has a user."""
    folder = tmp_path / "elsewhere"
    assert tollway("user", "create", "--username", "ann", "--data-dir", folder).status == 0
    return folder


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("together", [True, False])
def test_the_data_directory_may_stand_anywhere(place: int, together: bool, tollway: Tollway, elsewhere: Path) -> None:
    argv: list[object] = ["user", "list"]
    argv[place:place] = [f"--data-dir={elsewhere}"] if together else ["--data-dir", elsewhere]
    assert "ann" in tollway(*argv).out
    assert "ann" not in tollway("user", "list").out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_may_stand_anywhere(command: tuple[str, ...], tollway: Tollway) -> None:
    wanted = tollway(*command, "--json")
    assert wanted.status == 0
    for place in range(len(command)):
        argv = [*command[:place], "--json", *command[place:]]
        assert tollway(*argv) == wanted


def test_the_last_data_directory_counts(tollway: Tollway, elsewhere: Path, tmp_path: Path) -> None:
    nowhere = ("--data-dir", tmp_path / "nowhere")
    assert "ann" in tollway(*nowhere, "user", *nowhere, "list", "--data-dir", elsewhere).out
    assert tollway("--data-dir", elsewhere, "user", "list", *nowhere).status == 1


def test_an_empty_data_directory_is_refused_anywhere(tollway: Tollway) -> None:
    for argv in (("--data-dir", "", "user", "list"), ("user", "--data-dir=", "list")):
        ended = tollway(*argv)
        assert (ended.status, "--data-dir: must name a folder" in ended.err) == (2, True)


def test_the_version_is_shown_in_every_spelling(tollway: Tollway) -> None:
    assert len({tollway(word).out for word in ("--version", "-V", "version")}) == 1


MAKING = [
    ("user", "create", "--username", "ann"),
    ("channel", "create", "--name", "e", "--type", "echo", "--models", "gpt-4o"),
    ("option", "set", "retry_next", "2"),
    ("price", "set", "m", "--per-call", "1"),
    ("db", "upgrade"),
]


@pytest.mark.parametrize("command", MAKING, ids=" ".join)
def test_a_command_that_makes_a_database_says_where(
    command: tuple[str, ...], tollway: Tollway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in the wrong folder it does what it says, and no server ever sees it."""
    monkeypatch.delenv("DATA_DIR")
    monkeypatch.chdir(tmp_path / "data")
    path = tmp_path / "data" / "data" / "tollway.db"
    told = f"tollway: {path} is a new database; --data-dir or DATA_DIR names the folder of another\n"
    assert tollway(*command).err == told
    assert tollway("option", "set", "retry_same", "1").err == ""
    assert tollway("user", "create", "--username", "bob", "--data-dir", "json", "--json").err == ""
    monkeypatch.setenv("SQLITE_PATH", "other.db")
    assert tollway("db", "upgrade").err == f"tollway: {tmp_path}/data/other.db is a new database\n"
