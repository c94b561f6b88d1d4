"""`tollway price reprice`: what it shows, what it writes, and what `tollway logs` says of that."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import charges, leases, users
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.records import ChargeRecord

from .conftest import Tollway

Done = Callable[..., Any]
NOW = int(time.time() * 1000)


@pytest.fixture(autouse=True)
def charged(in_store: Callable[..., Any], done: Done) -> None:
    """Ada's call of an hour ago and Bob's of three days ago, at twice the price that the model has now."""

    async def work(opened: DataDir) -> None:
        records: list[ChargeRecord] = []
        for username, ago_ms in (("ada", 3_600_000), ("bob", 3 * 86_400_000)):
            user_id = await users.create(opened.store, username=username, quota=1000, now_ms=1)
            bill = {"group_ratio": "1", "input": [100, "4"]}
            records.append(
                ChargeRecord(
                    NOW - ago_ms,
                    user_id,
                    200,
                    username=username,
                    model="m",
                    input_tokens=100,
                    breakdown=bill,
                    request_id=f"of-{username}",
                )
            )
        await leases.join(opened.store, "h", host="", now_ms=1)
        assert await charges.flush(opened.store, Batch("h", 0, 2, tuple(records)), NOW)
        await leases.leave(opened.store, "h")

    in_store(work)
    done("price", "set", "m", "--input", 2, "--output", 0)


def left(done: Done) -> dict[str, int]:
    return {user["username"]: user["quota"] for user in done("user", "list")}


def test_without_yes_it_is_shown_and_nothing_is_written(tollway: Tollway, done: Done) -> None:
    ended = tollway("price", "reprice", "--model", "m")
    assert ended.status == 0
    assert [line.split() for line in ended.out.splitlines()[3:6]] == [
        ["ada", "1", "-$0.0002"],
        ["bob", "1", "-$0.0002"],
        ["in", "all", "2", "-$0.0004"],
    ]
    assert "Nothing is written yet" in ended.out
    assert left(done) == {"ada": 800, "bob": 800}


def test_with_yes_it_is_corrected_once(tollway: Tollway, done: Done) -> None:
    for charges_ in (2, 0):
        found = done("price", "reprice", "--model", "m", "--yes")
        assert (found["looked_at"], found["charges"], found["quota"]) == (2, charges_, -100 * charges_)
        assert left(done) == {"ada": 900, "bob": 900}
        assert done("audit")["clean"]
    assert "all agree" in tollway("price", "reprice", "--model", "m").out


@pytest.mark.parametrize(
    ("flags", "whose"),
    [
        pytest.param(("--user", "bob"), {"bob"}, id="of a user"),
        pytest.param(("--since", "2d"), {"ada"}, id="since"),
        pytest.param(("--until", "2d"), {"bob"}, id="until"),
        pytest.param(("--since", "2d", "--user", "bob"), set[str](), id="of nobody"),
    ],
)
def test_only_what_is_asked_for(flags: tuple[str, ...], whose: set[str], done: Done) -> None:
    found = done("price", "reprice", "--model", "m", "--yes", *flags)
    assert {user["username"] for user in found["users"]} == whose
    assert {name for name, quota in left(done).items() if quota == 900} == whose


def test_logs_say_what_is_corrected(tollway: Tollway, done: Done) -> None:
    done("price", "reprice", "--model", "m", "--user", "ada", "--yes")
    first = tollway("logs").out.splitlines()[1]
    assert "-$0.0002" in first
    assert first.endswith("corrects of-ada")
    event, charge = map(str.strip, tollway("logs", "--request", "of-ada", "--json").out.splitlines())
    assert '"type": "correction"' in event
    assert '"type": "consume"' in charge
    assert len(tollway("logs", "--request", "of-bob", "--json").out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        pytest.param((), 2, "--model", id="no model"),
        pytest.param(("--model", "nobody-knows-it"), 1, "has no price", id="a model without a price"),
        pytest.param(("--model", "m", "--user", "eve"), 1, "'eve' does not exist", id="an unknown user"),
        pytest.param(("--model", "m", "--since", "soon"), 2, "--since", id="no time"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: tuple[str, ...], status: int, named: str, tollway: Tollway) -> None:
    ended = tollway("price", "reprice", *words)
    assert (ended.status, ended.out, ended.err.count("\n")) == (status, "", 1)
    assert named in ended.err
