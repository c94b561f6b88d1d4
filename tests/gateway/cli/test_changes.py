"""What is changed of users and tokens after they were made, and what deleting them takes along."""

from collections.abc import Callable
from typing import Any

import pytest
from tollway.gateway.data_dir import DataDir
from tollway.gateway.secrets_at_rest import verify_password
from tollway.gateway.store import changes, tokens, users
from tollway.gateway.store.records import TokenRow, TokenStatus

from .conftest import Tollway

Done = Callable[..., Any]
InStore = Callable[..., Any]


@pytest.fixture
def token(done: Done, in_store: InStore) -> Callable[[], TokenRow]:
    """ann's token, restricted in every way, as it is when this is called."""
    done("user", "create", "--username", "ann", "--password-stdin", stdin="correct horse")
    argv: list[Any] = ["--user", "ann", "--name", "ci", "--quota", 5, "--models", "echo", "--group", "vip"]
    argv += ["--allow-ips", "10.0.0.0/8", "--expires", "2100-01-31", "--requests-per-minute", 7]
    done("token", "create", *argv, "--tokens-per-minute", 8, "--parallel-requests", 9)
    return lambda: in_store(lambda opened: tokens.by_ids(opened.store, [1]))[0]


CHANGES: dict[str, tuple[tuple[object, ...], dict[str, object]]] = {
    "the name": (("--name", "laptop"), {"name": "laptop"}),
    "the quota": (("--quota", 9), {"remain_quota": 9, "unlimited": False}),
    "no quota": (("--quota", 0), {"remain_quota": 0, "unlimited": False}),
    "no budget": (("--unlimited",), {"remain_quota": 5, "unlimited": True}),
    "the models": (("--models", "a,b"), {"models": ("a", "b")}),
    "all models": (("--models", ""), {"models": None}),
    "the networks": (("--allow-ips", "::1"), {"allow_ips": ("::1",)}),
    "all networks": (("--allow-ips", ""), {"allow_ips": None}),
    "the group": (("--group", "default"), {"group": "default"}),
    "the user's group": (("--group", ""), {"group": ""}),
    "the expiry": (("--expires", "2101-01-01"), {"expires_at": 4_133_980_800_000}),
    "no expiry": (("--expires", ""), {"expires_at": None}),
    "the requests": (("--requests-per-minute", 1), {"requests_per_minute": 1}),
    "the tokens": (("--tokens-per-minute", 0), {"tokens_per_minute": 0}),
    "the parallel requests": (("--parallel-requests", 2), {"parallel_requests": 2}),
    "two at once": (("--name", "x", "--quota", 1), {"name": "x", "remain_quota": 1, "unlimited": False}),
}


@pytest.mark.parametrize(("flags", "changed"), CHANGES.values(), ids=CHANGES)
def test_a_token_is_changed_in_what_the_flags_name_and_in_nothing_else(
    flags: tuple[object, ...], changed: dict[str, object], done: Done, token: Callable[[], TokenRow]
) -> None:
    before = {name: getattr(token(), name) for name in TokenRow.__slots__}
    assert done("token", "update", "ci", *flags) == {"id": 1, "warnings": []}
    assert {name: getattr(token(), name) for name in TokenRow.__slots__} == before | changed


@pytest.mark.parametrize(
    ("status", "flags"),
    [(TokenStatus.EXHAUSTED, ("--quota", 9)), (TokenStatus.EXPIRED, ("--expires", "2101-01-01"))],
)
def test_a_new_limit_brings_back_what_the_old_one_had_stopped(
    status: TokenStatus, flags: tuple[object, ...], done: Done, in_store: InStore, token: Callable[[], TokenRow]
) -> None:
    in_store(lambda opened: tokens.set_status(opened.store, 1, status, now_ms=1))
    done("token", "update", "ci", "--name", "ci")
    assert token().status is status
    done("token", "update", "ci", *flags)
    assert token().status is TokenStatus.ENABLED


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        ((), 2, "nothing to change"),
        (("--group", "staff"), 1, "the group 'staff' is not open"),
        (("--expires", "2001-01-01"), 2, "--expires: 2001-01-01T00:00:00.000Z has passed"),
        (("--quota", 1, "--unlimited"), 2, "--unlimited"),
    ],
)
def test_a_token_is_left_as_it_was(
    flags: tuple[object, ...], status: int, sentence: str, tollway: Tollway, token: Callable[[], TokenRow]
) -> None:
    before = token()
    ended = tollway("token", "update", "ci", *flags)
    assert (ended.status, ended.out) == (status, "")
    assert sentence in ended.err
    assert token() == before


@pytest.mark.usefixtures("token")
def test_a_user_is_changed_in_what_the_flags_name(done: Done, tollway: Tollway, in_store: InStore) -> None:
    def user() -> Any:
        return in_store(lambda opened: users.by_name(opened.store, "ann"))

    done("user", "update", "ann", "--group", "vip")
    assert (user().group, user().role.name) == ("vip", "USER")
    assert verify_password("correct horse", user().password_hash)
    done("user", "update", "ann", "--role", "admin", "--password-stdin", stdin="another horse")
    assert (user().group, user().role.name) == ("vip", "ADMIN")
    assert verify_password("another horse", user().password_hash)
    ended = tollway("user", "update", "ann")
    assert (ended.status, "nothing to change" in ended.err) == (2, True)


def test_a_channel_is_not_changed_by_nothing(done: Done, tollway: Tollway) -> None:
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "echo")
    ended = tollway("channel", "update", "--id", 1)
    assert (ended.status, "nothing to change" in ended.err) == (2, True)


@pytest.mark.usefixtures("token")
def test_a_deleted_user_takes_the_keys_along_and_keeps_the_name(done: Done, tollway: Tollway) -> None:
    assert done("user", "delete", "ann") == {"id": 1, "status": "deleted"}
    assert (done("user", "list"), done("token", "list")) == ([], [])
    again = tollway("user", "create", "--username", "ann").err
    assert again == "tollway user: the username 'ann' is taken by a user who was deleted\n", "no list shows that one"


@pytest.mark.usefixtures("token")
def test_every_change_is_noted_for_a_server_that_runs(done: Done, in_store: InStore) -> None:
    async def noted(opened: DataDir) -> list[tuple[str, int]]:
        return [(change.kind, change.ref) for change in await changes.since(opened.store, 0)]

    before = len(in_store(noted))
    done("token", "update", "ci", "--quota", 1)
    done("user", "update", "ann", "--group", "vip")
    done("user", "delete", "ann")
    assert in_store(noted)[before:] == [("token", 1), ("user", 1), ("user", 1)]


@pytest.mark.parametrize("username", ["ann", "a", "1", "ann.b-c_d@example.org", "b" * 64, "j\u00f6rg"])
def test_a_username_may_be_an_address(username: str, done: Done) -> None:
    done("user", "create", "--username", username)
    assert done("user", "list")[0]["username"] == username


@pytest.mark.parametrize("username", ["", "an n", "ann,bob", "ann/bob", "<ann>", "ann;", "'ann'", "b" * 65])
def test_a_username_that_would_be_mistaken_for_something_else_is_refused(username: str, tollway: Tollway) -> None:
    ended = tollway("user", "create", "--username", username)
    assert (ended.status, "--username" in ended.err) == (2, True)
