"""Everything that can be typed wrong ends in one sentence that names it, and never in a traceback."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Tollway

CHANNEL = ("channel", "create", "--name", "c", "--models", "m")
OPENAI = (*CHANNEL, "--type", "openai", "--key", "sk-1")
TOKEN = ("token", "create", "--user", "ann", "--name", "t")
NO_KEY = "argument --key-stdin: standard input held no key"

WRONG: dict[str, tuple[Any, ...]] = {
    "no command": ((), "a command is missing"),
    "an unknown command": (("frobnicate",), "'frobnicate' is no command"),
    "a command with a slip": (("chanel", "list"), "did you mean channel?"),
    "an action with a slip": (("user", "lsit"), "did you mean list?"),
    "a choice with a slip": (("user", "create", "--username", "bob", "--role", "admn"), "did you mean admin?"),
    "no key where keys come from standard input": ((*CHANNEL, "--type", "openai", "--key-stdin"), NO_KEY, ""),
    "no key there for a type that needs none": ((*CHANNEL, "--type", "echo", "--key-stdin"), NO_KEY, "\n , \n"),
    "a bad key from standard input": ((*CHANNEL, "--type", "openai", "--key-stdin"), "--key-stdin: must be", "s k"),
    "a data directory before the command, and no command": (("--data-dir", "x"), "a command is missing"),
    "a data directory that is not named": (("--data-dir",), "a command is missing"),
    "a group without its action": (("user",), "ACTION"),
    "an unknown flag": (("user", "list", "--colour"), "--colour"),
    "an abbreviated flag": (("user", "create", "--user", "bob"), "--username"),
    "a missing flag": (("user", "create"), "--username"),
    "an empty data directory": (("user", "list", "--data-dir", ""), "--data-dir"),
    "an unknown role": (("user", "create", "--username", "bob", "--role", "king"), "--role"),
    "a name with a line break": (("user", "create", "--username", "bo\nb"), "--username"),
    "a name with blanks around it": (("user", "create", "--username", " bob"), "--username"),
    "a name that is too long": (("user", "create", "--username", "b" * 65), "--username"),
    "a short password": (("user", "create", "--username", "bob", "--password-stdin"), "password must have 8 to 512"),
    "a quota that is no number": (("user", "create", "--username", "bob", "--quota", "1.5"), "--quota"),
    "a quota below zero": (("user", "create", "--username", "bob", "--quota", "-1"), "--quota"),
    "a quota in dollars": (("user", "create", "--username", "bob", "--quota", "$10"), "number of quota (500000 is a d"),
    "a top-up in dollars": (
        ("user", "quota", "ann", "--add", "1.50"),
        "number of quota (500000 is a dollar), not '1.50'",
    ),
    "a budget in dollars": (
        ("budget", "set", "--user", "ann", "--period", "daily", "--amount", "1.50"),
        "number of quota (500000 is a dollar), not '1.50'",
    ),
    "a quota beyond 64 bits": (("user", "create", "--username", "bob", "--quota", "9" * 20), "--quota"),
    "a balance beyond the bounds": (("user", "quota", "--username", "ann", "--add", 10**15), "--add"),
    "two budgets for one token": ((*TOKEN, "--quota", 1, "--unlimited"), "--unlimited"),
    "an address that is none": ((*TOKEN, "--allow-ips", "10.0.0.300"), "10.0.0.300"),
    "an expiry that is no time": ((*TOKEN, "--expires", "tomorrow"), "--expires"),
    "an expiry that has passed": ((*TOKEN, "--expires", "2001-01-01"), "--expires"),
    "a model list of nothing": ((*TOKEN, "--models", " , "), "--models"),
    "a model list that is no UTF-8": ((*TOKEN, "--models", "m\udcff"), "--models: must be UTF-8 text"),
    "a rate below zero": ((*TOKEN, "--requests-per-minute", "-1"), "--requests-per-minute"),
    "a channel of an unknown type": ((*CHANNEL, "--type", "nope"), "--type: must be one of"),
    "a channel of an unknown number": ((*CHANNEL, "--type", "28"), "--type: must be one of"),
    "a channel without a key it needs": ((*CHANNEL, "--type", "openai"), "--key: is required"),
    "a channel without a base URL it needs": ((*CHANNEL, "--type", "azure", "--key", "k"), "--base-url: is required"),
    "a channel without models": (("channel", "create", "--name", "c", "--type", "echo", "--models", ","), "--models"),
    "a base URL of another scheme": ((*OPENAI, "--base-url", "file:///etc"), "--base-url: must be a URL"),
    "a base URL without a host": ((*OPENAI, "--base-url", "https:///v1"), "--base-url: must be a URL"),
    "a base URL with a user": ((*OPENAI, "--base-url", "https://me@host"), "--base-url: must not hold a user"),
    "a base URL with a fragment": ((*OPENAI, "--base-url", "https://host/#a"), "--base-url: must not have a fragment"),
    "a base URL with a query": ((*OPENAI, "--base-url", "https://host/?a=b"), "--base-url: must not have a query"),
    "a base URL with the path": ((*OPENAI, "--base-url", "http://host/v1/embeddings/"), "end in /v1/embeddings, which"),
    "a base URL with a part of the path": (
        (*OPENAI, "--base-url", "http://host/a/chat/completions"),
        "must not end in",
    ),
    "a base URL with a port that is none": ((*OPENAI, "--base-url", "https://host:99999"), "--base-url: is no URL"),
    "a base URL with a blank": ((*OPENAI, "--base-url", "https://ho st"), "--base-url"),
    "a proxy of another scheme": ((*OPENAI, "--proxy", "ftp://host"), "--proxy"),
    "a key with a blank in it": ((*CHANNEL, "--type", "openai", "--key", "s k"), "--key"),
    "a weight below zero": ((*OPENAI, "--weight", "-1"), "--weight"),
    "a mapping that is no JSON": ((*OPENAI, "--model-mapping", "{a:b}"), "--model-mapping: must be a JSON object"),
    "a mapping that is no object": ((*OPENAI, "--model-mapping", "[]"), "--model-mapping: must be a JSON object"),
    "a mapping to a number": ((*OPENAI, "--model-mapping", '{"m": 1}'), "--model-mapping"),
    "a mapping in a circle": ((*OPENAI, "--model-mapping", '{"a": "b", "b": "c", "c": "a"}'), "goes round in a circle"),
    "a status that is none": ((*OPENAI, "--status-code-mapping", '{"404": 99}'), "--status-code-mapping"),
    "a success that becomes an error": ((*OPENAI, "--status-code-mapping", '{"200": 500}'), "--status-code-mapping"),
    "a status that is no number": ((*OPENAI, "--status-code-mapping", '{"x": 500}'), "--status-code-mapping"),
    "a header with a line break": ((*OPENAI, "--header-override", '{"X": "a\\r\\nY: b"}'), "--header-override"),
    "a header whose name is none": ((*OPENAI, "--header-override", '{"X Y": "a"}'), "--header-override"),
    "a header that frames the message": ((*OPENAI, "--header-override", '{"Content-Length": "1"}'), "Content-Length"),
    "a header beyond Latin-1": ((*OPENAI, "--header-override", '{"X": "\u20ac"}'), "--header-override"),
    "a parameter that is no UTF-8": ((*OPENAI, "--param-override", '{"x": "\\ud800"}'), "--param-override"),
    "a parameter nested too deeply": ((*OPENAI, "--param-override", '{"x":' + "[" * 400 + "]" * 400 + "}"), "--param"),
    "an organization with a line break": ((*OPENAI, "--organization", "a\nb"), "--organization"),
    "a key mode that is none": ((*OPENAI, "--key-mode", "best"), "--key-mode"),
    "a test of no channel and of all": (("channel", "test"), "--id"),
    "an operation that is none": (("explain", "--user", "ann", "--operation", "dance", "--model", "m"), "--operation"),
    "no caller to explain": (("explain", "--model", "m"), "--user"),
    "no model to explain": (("explain", "--user", "ann"), "--model"),
    "a body that is not there": (("explain", "--user", "ann", "--body", "/nowhere"), "--body: /nowhere cannot be read"),
    "a body that is no JSON": (("explain", "--user", "ann", "--body", "-"), "--body"),
    "a form to explain": (
        ("explain", "--user", "ann", "--model", "whisper-1", "--operation", "audio_translations", "--body", "-"),
        "takes a form",
    ),
    "logs since nonsense": (("logs", "--since", "yesterday"), "--since"),
    "logs without a limit": (("logs", "--limit", "0"), "--limit"),
    "an unknown option": (("option", "set", "nope", "1"), "'nope' is no option"),
    "an option that nothing would go by": (("option", "set", "AutoGroups", "[]"), "'AutoGroups' is no option"),
    "an option of the wrong type": (("option", "set", "retry_next", "many"), "retry_next must be a whole number"),
    "an option out of range": (("option", "set", "retry_next", "51"), "retry_next must lie between"),
    "an option below its bound": (
        ("option", "set", "requests_per_minute_address", "-1"),
        "requests_per_minute_address must be at least 0, not '-1'",
    ),
    "a group option that is no JSON": (("option", "set", "GroupRatio", "{"), "GroupRatio: not JSON"),
    "a price below zero": (("price", "set", "m", "--input", "-1"), "--input"),
    "a price that is no number": (("price", "set", "m", "--input", "cheap"), "--input"),
    "a price of nothing": (("price", "set", "m"), "nothing to set: say what, such as --input"),
    "a price of a pattern in the middle": (("price", "set", "a*b", "--input", "1", "--output", "1"), "MODEL"),
    "image prices without a default": (("price", "set", "m", "--per-image", "hd=1"), "--per-image"),
    "a ratio below zero": (("group", "set", "vip", "--ratio", "-1"), "--ratio"),
    "a ratio that is no number": (("group", "set", "vip", "--ratio", "NaN"), "--ratio"),
    "a port that is none": (("serve", "--port", "65536"), "--port"),
    "a flag of every command, misspelt": (("user", "list", "--jsn"), "did you mean --json?"),
    "a flag of the server, misspelt": (("serve", "--prot", "1"), "did you mean --port?"),
    "a flag of an action, misspelt": (("user", "create", "--username", "bob", "--qota", "5"), "did you mean --quota?"),
    "a flag before its action, misspelt": (("user", "--jsn", "list"), "did you mean --json?"),
    "no workers": (("serve", "--workers", "0"), "--workers"),
}

IMPOSSIBLE = {
    "a username that is taken": (("user", "create", "--username", "ann"), "the username 'ann' is taken"),
    "a balance of nobody": (("user", "quota", "--username", "bob", "--add", 1), "the user 'bob' does not exist"),
    "nobody to disable": (("user", "disable", "--username", "bob"), "the user 'bob' does not exist"),
    "a token of nobody": (("token", "create", "--user", "bob", "--name", "t"), "the user 'bob' does not exist"),
    "a token in a group that is not open": ((*TOKEN, "--group", "staff"), "the group 'staff' is not open"),
    "no token to disable": (("token", "disable", "--id", 9), "the token 9 does not exist"),
    "no token to delete": (("token", "delete", "--id", 9), "the token 9 does not exist"),
    "no channel to test": (("channel", "test", "--id", 9), "the channel 9 does not exist"),
    "no channel to change": (("channel", "update", "--id", 9, "--tag", "t"), "the channel 9 does not exist"),
    "no channel to enable": (("channel", "enable", "--id", 9), "the channel 9 does not exist"),
    "no channel to disable": (("channel", "disable", "--id", 9), "the channel 9 does not exist"),
    "no channel to delete": (("channel", "delete", "--id", 9), "the channel 9 does not exist"),
    "nobody to explain": (("explain", "--user", "bob", "--model", "m"), "the user 'bob' does not exist"),
    "no token to explain": (("explain", "--token", 9, "--model", "m"), "the token 9 does not exist"),
    "logs of nobody": (("logs", "--user", "bob"), "the user 'bob' does not exist"),
    "a price that was never set": (("price", "unset", "m"), "the model 'm' has no price of your own"),
    "a group that was never set": (("group", "delete", "vip"), "the group 'vip' was not set here"),
    "a data directory that is not there": (("user", "list", "--data-dir", "/nowhere"), "there is no database at"),
    "an address of another machine": (("serve", "--host", "192.0.2.1", "--port", 0), "HOST 192.0.2.1"),
}


@pytest.mark.parametrize(
    ("case", "status"),
    [(case, 2) for case in WRONG.values()] + [(case, 1) for case in IMPOSSIBLE.values()],
    ids=[*WRONG, *IMPOSSIBLE],
)
def test_it_is_refused_in_one_sentence(case: tuple[Any, ...], status: int, tollway: Tollway) -> None:
    argv, sentence, stdin = (*case, "1234567")[:3]
    tollway("user", "create", "--username", "ann", "--quota", 10)
    ended = tollway(*argv, stdin=stdin)
    assert sentence in ended.err
    assert ended.err.startswith("tollway")
    assert ended.err.count("\n") == 1
    assert (ended.status, ended.out) == (status, "")


def test_a_folder_that_may_not_be_looked_into_is_not_taken_for_an_empty_one(
    tollway: Tollway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's, such as the server's own user's: whoever reads that it holds no database looks for another."""

    stat = os.stat

    def guarded(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/private/"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", guarded)
    ended = tollway("user", "list", "--data-dir", "/private")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "tollway user: the database /private/tollway.db cannot be reached: Permission denied; "
        "run this as the user who runs the server\n"
    )


def test_of_several_settings_the_one_that_counts_is_named(tollway: Tollway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQL_DSN", "oracle://host/db")
    monkeypatch.setenv("DATABASE_URL", "garbage of another app")
    assert tollway("user", "list").err.startswith("tollway user: the database cannot be used: SQL_DSN: oracle://")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("WORKERS", "0", "WORKERS must be a number of processes, not '0': it must lie between 1 and 256"),
        ("PORT", "http", "PORT must be a port, not 'http': it is no whole number"),
        ("CRYPTO_SECRET", "short", "CRYPTO_SECRET must be a secret"),
        ("SQL_DSN", "oracle://host/db", "SQL_DSN: oracle:// is no database known here"),
        ("SQL_DSN", "postgres://me:hunter2@host/db?ssl=true", "the option ssl of a PostgreSQL URL is not understood"),
        ("SQL_DSN", "mysql://me:hunter2@host/db?nonsense=1", "nonsense"),
        ("SQL_DSN", "me:hunter2@tcp(host:3306)/db?nonsense=1", "nonsense"),
        ("SQL_DSN", "garbage", "a URL such as sqlite:///file.db"),
        ("DATABASE_URL", "garbage", "DATABASE_URL: a database is"),
        ("SQLITE_PATH", ":memory:", "SQLITE_PATH: the store needs a SQLite file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    variable: str, value: str, sentence: str, tollway: Tollway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for argv in (("user", "list"), ("user", "create", "--username", "ann"), ("db", "upgrade"), ("serve", "--port", 0)):
        ended = tollway(*argv)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert sentence in ended.err
        assert "hunter2" not in ended.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("variable", ["SQL_DSN", "DATABASE_URL", "SQLITE_PATH"])
def test_a_database_that_is_not_there_is_said_to_be_where_a_setting_has_it(
    variable: str, tollway: Tollway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/nowhere/t.db")
    ended = tollway("user", "list", "--data-dir", "d")
    assert ended.err == f"tollway user: there is no database at /nowhere/t.db, where {variable} names one\n"


def test_a_file_in_place_of_the_data_directory_is_named(tollway: Tollway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        ended = tollway("user", "create", "--username", "ann", "--data-dir", folder)
        assert (ended.status, ended.err.count("\n")) == (1, 1)
        assert f"DATA_DIR {folder} cannot be used as a folder" in ended.err


def test_a_file_that_is_no_database_is_named(tollway: Tollway, data_dir: Path) -> None:
    (data_dir / "tollway.db").write_bytes(b"not a database, but longer than a header would be " * 100)
    ended = tollway("user", "list")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "database" in ended.err


def test_a_journal_that_cannot_be_read_is_named(tollway: Tollway, data_dir: Path) -> None:
    (data_dir / "journal").mkdir()
    (data_dir / "journal" / "h.lock").symlink_to("elsewhere")
    ended = tollway("audit")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "h.lock cannot be used" in ended.err


def test_another_secret_than_the_one_used_is_named(
    tollway: Tollway, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tollway("user", "create", "--username", "ann")
    tollway("channel", "create", "--name", "e", "--type", "echo", "--models", "echo")
    monkeypatch.setenv("CRYPTO_SECRET", "another secret than before")
    ended = tollway("channel", "list")
    assert ended.status == 1
    assert "CRYPTO_SECRET is set and differs from the one in" in ended.err
    (data_dir / "crypto_secret").unlink()
    for argv in (("channel", "list"), TOKEN, ("channel", "test", "--all"), OPENAI):
        ended = tollway(*argv)
        assert ended.status == 1
        assert "CRYPTO_SECRET is not the one under which the database's keys are stored" in ended.err


def test_a_database_of_a_newer_tollway_is_named(tollway: Tollway, data_dir: Path) -> None:
    import sqlite3

    database = sqlite3.connect(data_dir / "tollway.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    for argv in (("user", "list"), ("db", "current"), ("db", "upgrade"), ("serve", "--port", "0")):
        ended = tollway(*argv)
        assert ended.status == 1
        assert "has schema 9999, this Tollway knows up to" in ended.err


def test_what_a_client_chose_cannot_move_the_cursor(tollway: Tollway) -> None:
    ended = tollway("explain", "--user", "ann\x1b[2J", "--model", "m")
    assert "\x1b" not in ended.err
