"""The manual page, the help of every command, and what they cost."""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
from tollway.config.settings import VARIABLES
from tollway.gateway.cli.commands import COMMANDS, Command

from .conftest import Tollway


def parsers() -> Iterator[ArgumentParser]:
    for command in COMMANDS:
        parser = command.parser()
        groups = [action for action in parser._actions if isinstance(action.choices, dict) and action.dest == "action"]
        yield from (each for group in groups for each in (group.choices or {}).values()) if groups else [parser]


def test_the_manual_names_every_command_and_every_section(tollway: Tollway) -> None:
    ended = tollway("--help")
    assert ended.status == 0
    for section in ("NAME", "SYNOPSIS", "COMMANDS", "ENVIRONMENT", "FILES", "EXAMPLES", "EXIT STATUS"):
        assert f"\n{section}\n" in f"\n{ended.out}"
    for command in COMMANDS:
        assert f"    {command.name} " in ended.out
    assert all(len(line) <= 120 for line in ended.out.splitlines())


def test_the_examples_of_prices_give_none_of_a_shipped_price_away(tollway: Tollway) -> None:
    lines = [line.split() for line in tollway("--help").out.splitlines() if "tollway price set " in line]
    assert lines
    for _, *argv in lines:
        ended = tollway(*argv)
        assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog)
def test_every_argument_of_every_command_is_documented(parser: ArgumentParser) -> None:
    assert not [action.dest for action in parser._actions if not action.help]
    assert {"--json", "--data-dir"} <= set(parser._option_string_actions)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_shows_its_help(command: Command, tollway: Tollway) -> None:
    ended = tollway(command.name, "--help")
    assert ended.status == 0
    assert ended.out.startswith(f"usage: tollway {command.name}")


def test_serve_explains_every_variable(tollway: Tollway) -> None:
    shown = tollway("serve", "--help").out
    assert all(f"  {each.name} " in shown and each.meaning in shown for each in VARIABLES)


def test_help_says_what_a_flag_means_for_this_command(tollway: Tollway) -> None:
    """A demonstration passes DATA_DIR over, and the log and the demonstration print JSON in ways of their own."""
    demo, logs, serve = (" ".join(tollway(name, "--help").out.split()) for name in ("demo", "logs", "serve"))
    assert "instead of DATA_DIR" not in demo
    assert "Default: demo-data" in demo
    assert "instead of DATA_DIR" in logs
    for shown in (demo, logs, serve):
        assert "--json print one JSON document instead of text" not in shown
    assert "one JSON document a line" in logs


def test_the_usage_of_logs_asks_for_no_action(tollway: Tollway) -> None:
    usage = tollway("logs", "--help").out.partition("\n\n")[0]
    assert usage.splitlines()[0].startswith("usage: tollway logs [FILTER ...]")
    assert "ACTION" not in usage
    assert tollway("logs", "rebuild-hours", "--help").out.startswith("usage: tollway logs rebuild-hours [-h]")


def test_the_words_help_and_version_are_understood(tollway: Tollway) -> None:
    assert tollway("help").out == tollway("--help").out == tollway("-h").out
    assert tollway("help", "user").out == tollway("user", "--help").out
    assert tollway("--version").out.startswith("tollway ")


def loaded_by(*argv: str) -> set[str]:
    """The top-level modules that a command has loaded when it is done, in a process of its own."""
    program = (
        f"import sys; from tollway.gateway.__main__ import main; main({list(argv)!r}); print('loaded', *sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in shown.stdout.splitlines()[-1].split()}


def test_help_loads_neither_the_store_nor_the_server_nor_an_event_loop() -> None:
    assert not loaded_by("--help") & {"sqlalchemy", "uvicorn", "starlette", "asyncio", "orjson", "msgspec"}


def test_other_commands_load_no_server(data_dir: Path) -> None:
    assert not loaded_by("user", "list") & {"uvicorn", "starlette", "httptools", "alembic", "prometheus_client"}
