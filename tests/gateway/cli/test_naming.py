"""Users, tokens and channels are named by name or by id, and nothing is changed where that could mean two."""

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Tollway

Done = Callable[..., Any]


@pytest.fixture
def things(done: Done) -> None:
    """ann (1) and the user 1 (2), each with a token laptop; ann has ci too; channels e (1), f (2), e (3)."""
    for username in ("ann", "1"):
        done("user", "create", "--username", username)
        done("token", "create", "--user", username, "--name", "laptop")
    done("token", "create", "--user", "ann", "--name", "ci")
    for name in ("e", "f", "e"):
        done("channel", "create", "--name", name, "--type", "echo", "--models", "echo")


NAMED = {
    "a user by name": (("user", "disable", "ann"), 1),
    "a user by id": (("user", "disable", "2"), 2),
    "a user by the flag": (("user", "disable", "--username", "1"), 2),
    "a user before the flags": (("user", "quota", "ann", "--add", 5), 1),
    "a user behind the flags": (("user", "quota", "--add", 5, "ann"), 1),
    "a user with a password": (("user", "password", "ann", "--password-stdin"), 1),
    "a user to change": (("user", "update", "--group", "vip", "ann"), 1),
    "a user to delete": (("user", "delete", "ann"), 1),
    "a token by name": (("token", "disable", "ci"), 3),
    "a token by id": (("token", "delete", "2"), 2),
    "a token by the flag": (("token", "enable", "--id", 2), 2),
    "a token behind the flags": (("token", "update", "--quota", 5, "ci"), 3),
    "a channel by name": (("channel", "disable", "f"), 2),
    "a channel by id": (("channel", "delete", "3"), 3),
    "a channel behind the flags": (("channel", "update", "--weight", 2, "f"), 2),
    "a channel to enable": (("channel", "enable", "f"), 2),
    "a channel to test": (("channel", "test", "f"), 2),
}


@pytest.mark.parametrize(("argv", "row_id"), NAMED.values(), ids=NAMED)
@pytest.mark.usefixtures("things")
def test_it_is_found(argv: tuple[object, ...], row_id: int, done: Done) -> None:
    assert done(*argv, stdin="correct horse")["id"] == row_id


REFUSED = {
    "a name of two tokens": (
        ("token", "delete", "laptop"),
        1,
        "'laptop' may be any of the tokens 1, 2: say which with",
    ),
    "a name of two channels": (
        ("channel", "delete", "e"),
        1,
        "'e' may be any of the channels 1, 3: say which with --id",
    ),
    "a name that is an id": (("user", "delete", "1"), 1, "'1' may be any of the users 1, 2: say which with --username"),
    "nobody's name": (("user", "delete", "bob"), 1, "the user 'bob' does not exist"),
    "nobody's id": (("token", "delete", "9"), 1, "the token 9 does not exist"),
    "an id beyond 64 bits": (("token", "delete", "9" * 5000), 1, "does not exist"),
    "digits of another script": (("channel", "delete", "\u0661"), 1, "does not exist"),
    "both ways at once": (("token", "delete", "ci", "--id", 3), 2, "--id"),
    "neither way": (("token", "delete"), 2, "TOKEN --id"),
}


@pytest.mark.parametrize(("argv", "status", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("things")
def test_what_is_not_clear_is_refused(
    argv: tuple[object, ...], status: int, sentence: str, tollway: Tollway, done: Done
) -> None:
    listed = [("user", "list"), ("token", "list"), ("channel", "list")]
    before = [done(*each) for each in listed]
    ended = tollway(*argv)
    assert (ended.status, ended.err.count("\n")) == (status, 1)
    assert sentence in ended.err
    assert [done(*each) for each in listed] == before


@pytest.mark.usefixtures("things")
def test_what_was_deleted_has_no_name_any_more(done: Done, tollway: Tollway) -> None:
    done("token", "delete", "--id", 1)
    assert done("token", "disable", "laptop")["id"] == 2
    done("user", "delete", "ann")
    assert tollway("user", "delete", "ann").status == 1
