"""Users and the keys they own."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollway.gateway.data_dir import DataDir
from tollway.gateway.secrets_at_rest import verify_password
from tollway.gateway.store import changes, tokens, users

from .conftest import Tollway

Done = Callable[..., Any]
InStore = Callable[..., Any]


def test_a_user_is_created_with_a_password_that_opens(done: Done, in_store: InStore) -> None:
    argv = ("--username", "root", "--role", "root", "--quota", 50_000_000, "--password-stdin")
    assert done("user", "create", *argv, stdin="correct horse\n") == {"id": 1, "warnings": []}

    async def look(opened: DataDir) -> None:
        user = await users.by_name(opened.store, "root")
        assert user is not None
        assert user.quota == 50_000_000
        assert user.role == 100
        assert verify_password("correct horse", user.password_hash)

    in_store(look)


def test_a_password_is_replaced(done: Done, in_store: InStore) -> None:
    done("user", "create", "--username", "ann")
    done("user", "password", "--username", "ann", "--password-stdin", stdin="a new password")
    user = in_store(lambda opened: users.by_name(opened.store, "ann"))
    assert verify_password("a new password", user.password_hash)


def test_a_user_without_a_password_lets_nobody_in(done: Done, in_store: InStore) -> None:
    done("user", "create", "--username", "ann")
    user = in_store(lambda opened: users.by_name(opened.store, "ann"))
    assert not verify_password("", user.password_hash)


def test_a_balance_is_topped_up_and_taken_from(done: Done) -> None:
    done("user", "create", "--username", "ann", "--quota", 10)
    whole = {"id": 1, "warnings": []}
    assert done("user", "quota", "--username", "ann", "--add", 500_000) == whole | {"quota": 500_010}
    assert done("user", "quota", "--username", "ann", "--add", -500_010) == whole | {"quota": 0}


def test_a_balance_below_zero_is_warned_of(done: Done, tollway: Tollway) -> None:
    done("user", "create", "--username", "ann", "--quota", 10)
    ended = tollway("user", "quota", "ann", "--add", -250_010)
    assert (ended.status, ended.out) == (0, "ann has -$0.50 left.\n")
    assert ended.err == (
        "tollway: warning: ann owes $0.50: what costs anything is refused until more than that is added\n"
    )
    # Who adds too little learns it too.
    document = done("user", "quota", "ann", "--add", 1)
    assert document["quota"] == -249_999
    assert ["owes $0.499998" in warning for warning in document["warnings"]] == [True]


def test_users_are_listed_without_their_password(done: Done) -> None:
    done("user", "create", "--username", "ann", "--group", "vip", "--password-stdin", stdin="correct horse")
    (user,) = done("user", "list")
    assert {"username": "ann", "role": "user", "status": "enabled", "group": "vip", "quota": 0}.items() <= user.items()
    assert not [name for name in user if "password" in name]


def test_users_are_disabled_and_enabled(done: Done) -> None:
    done("user", "create", "--username", "ann")
    assert done("user", "disable", "--username", "ann") == {"id": 1, "status": "disabled"}
    assert done("user", "list")[0]["status"] == "disabled"
    assert done("user", "enable", "--username", "ann")["status"] == "enabled"


def test_a_key_is_shown_once_and_is_nowhere_in_the_data_directory(done: Done, tollway: Tollway, data_dir: Path) -> None:
    done("user", "create", "--username", "ann")
    made = done("token", "create", "--user", "ann", "--name", "laptop")
    assert made["id"] == 1
    key = made["key"].removeprefix("sk-")
    assert made["key"].startswith("sk-")
    assert len(key) == 48
    listed = done("token", "list")
    assert listed[0]["key"] == f"sk-{key[:4]}...{key[-4:]}"
    assert key not in tollway("token", "list").out
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert files
    assert not [path.name for path in files if key.encode() in path.read_bytes()]


def test_a_token_has_the_limits_it_was_given(done: Done, in_store: InStore) -> None:
    done("user", "create", "--username", "ann")
    argv: list[Any] = ["--user", "ann", "--name", "ci", "--quota", 500, "--models", "gpt-4o, echo", "--group", "vip"]
    argv += ["--allow-ips", "10.0.0.0/8,::1", "--expires", "2100-01-31T18:00:00+02:00", "--requests-per-minute", 7]
    done("token", "create", *argv, "--tokens-per-minute", 8, "--parallel-requests", 9)
    (token,) = in_store(lambda opened: tokens.all_kept(opened.store))
    assert (token.unlimited, token.remain_quota) == (False, 500)
    assert (token.models, token.allow_ips) == (("gpt-4o", "echo"), ("10.0.0.0/8", "::1"))
    assert (token.group, token.expires_at) == ("vip", datetime(2100, 1, 31, 16, tzinfo=UTC).timestamp() * 1000)
    assert (token.requests_per_minute, token.tokens_per_minute, token.parallel_requests) == (7, 8, 9)


def test_a_token_may_end_so_many_days_from_now(done: Done, in_store: InStore) -> None:
    done("user", "create", "--username", "ann")
    before = time.time() * 1000
    done("token", "create", "--user", "ann", "--name", "ci", "--expires", "30d")
    (token,) = in_store(lambda opened: tokens.all_kept(opened.store))
    assert before - 1 <= token.expires_at - 30 * 86_400_000 <= time.time() * 1000


def test_tokens_are_listed_for_one_user_and_switched_and_deleted(done: Done) -> None:
    for username in ("ann", "bob"):
        done("user", "create", "--username", username)
        done("token", "create", "--user", username, "--name", "laptop", "--unlimited")
    assert [token["user"] for token in done("token", "list")] == ["ann", "bob"]
    (token,) = done("token", "list", "--user", "bob")
    assert done("token", "disable", "--id", token["id"]) == {"id": 2, "status": "disabled"}
    assert done("token", "list", "--user", "bob")[0]["status"] == "disabled"
    assert done("token", "enable", "--id", token["id"])["status"] == "enabled"
    assert done("token", "delete", "--id", token["id"])["status"] == "deleted"
    assert done("token", "list", "--user", "bob") == []


def test_every_write_is_noted_for_a_server_that_runs(done: Done, in_store: InStore) -> None:
    done("user", "create", "--username", "ann")
    done("token", "create", "--user", "ann", "--name", "laptop")
    done("user", "quota", "--username", "ann", "--add", 1)
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "echo")
    done("option", "set", "retry_next", 5)
    done("price", "set", "echo", "--input", 1, "--output", 2)
    done("group", "set", "vip", "--ratio", "0.5")
    noted = in_store(lambda opened: changes.since(opened.store, 0))
    kinds = ["user", "token", "user", "channel", "option", "price", "group"]
    assert [change.kind for change in noted] == kinds


def test_people_read_text(tollway: Tollway) -> None:
    assert tollway("user", "list").out == "There are no users.\n"
    made = tollway("user", "create", "--username", "ann", "--quota", 500_000)
    assert made.out == "User ann has the id 1 and $1.00 to spend.\n", "who took quota for dollars sees it"
    heading, line = tollway("user", "list").out.splitlines()
    assert heading.split()[:6] == ["id", "username", "role", "status", "group", "balance"]
    assert line.split()[:6] == ["1", "ann", "user", "enabled", "default", "$1.00"]
    assert "The key is shown this once:\nsk-" in tollway("token", "create", "--user", "ann", "--name", "laptop").out
