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
        "'laptop' may be any of the tokens 1 (ann), 2 (1): in its place say --id 1 or --id 2",
    ),
    "a name of two channels": (
        ("channel", "delete", "e"),
        1,
        "'e' may be any of the channels 1, 3: in its place say --id 1 or --id 3",
    ),
    "a name that is an id": (
        ("user", "delete", "1"),
        1,
        "'1' may be any of the users 1, 2: in its place say --username 1",
    ),
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


FLAGS = {
    "logs of a key": ("logs", "--token", "ci"),
    "logs of a key that is gone": ("logs", "--token", "99"),
    "logs of a channel": ("logs", "--channel", "f"),
    "logs of a user by id": ("logs", "--user", "2"),
    "a key to explain": ("explain", "--token", "ci", "--model", "m"),
    "a user to explain": ("explain", "--user", "2", "--model", "m"),
    "keys of a user": ("token", "list", "--user", "2"),
    "a price to ask of a user's charges": ("price", "reprice", "--model", "gpt-4o", "--user", "2"),
}


@pytest.mark.parametrize("argv", FLAGS.values(), ids=FLAGS)
@pytest.mark.usefixtures("things")
def test_flags_take_names_and_ids_too(argv: tuple[str, ...], tollway: Tollway) -> None:
    assert tollway(*argv).status == 0


@pytest.mark.parametrize(("typed", "owner"), [("ann", "ann"), ("2", "1"), ("1", "1")])
@pytest.mark.usefixtures("things")
def test_a_key_is_made_for_a_name_or_else_an_id(typed: str, owner: str, done: Done) -> None:
    row_id = done("token", "create", "--user", typed, "--name", "new")["id"]
    assert {row["id"]: row["user"] for row in done("token", "list")}[row_id] == owner


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("logs", "--token", "laptop"), "argument --token: 'laptop' may be any of 1 (ann), 2 (1): give the id"),
        (("logs", "--channel", "nope"), "argument --channel: the channel 'nope' does not exist"),
        (
            ("explain", "--token", "laptop", "--model", "m"),
            "argument --token: 'laptop' may be any of 1 (ann), 2 (1)",
        ),
    ],
)
@pytest.mark.usefixtures("things")
def test_flags_that_are_not_clear_are_refused(argv: tuple[str, ...], said: str, tollway: Tollway) -> None:
    ended = tollway(*argv)
    assert (ended.status, said in ended.err) == (1, True)


@pytest.mark.usefixtures("things")
def test_a_second_key_of_a_name_is_wondered_at(tollway: Tollway, done: Done) -> None:
    assert "has another key of this name: 3" in tollway("token", "create", "--user", "ann", "--name", "ci").err
    assert len(done("token", "create", "--user", "ann", "--name", "ci")["warnings"]) == 1
    assert done("token", "create", "--user", "ann", "--name", "new")["warnings"] == []
