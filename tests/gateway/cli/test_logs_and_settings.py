"""What was served, and what an operator sets: options, prices, groups, the schema."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tollway.config.amounts import dollars
from tollway.config.groups import GroupRatios
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.gateway.cli.output import clean, iso, table
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import charges, leases, migrate, options, prices
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.records import ChargeRecord

from .conftest import Tollway

Done = Callable[..., Any]
InStore = Callable[..., Any]

NOW = int(time.time() * 1000)
HOUR = 3_600_000


@pytest.fixture
def served(done: Done, in_store: InStore) -> None:
    for username in ("ann", "bob"):
        done("user", "create", "--username", username)

    async def serve(opened: DataDir) -> None:
        records = (
            ChargeRecord(NOW - 3 * HOUR, 1, 1, username="ann", model="old", request_id="a"),
            ChargeRecord(NOW - HOUR, 2, 0, username="bob", model="m", token_id=7, request_id="b"),
            ChargeRecord(NOW, 1, 0, username="ann", model="m\x1b[2J", channel_id=3, request_id="c"),
        )
        await leases.join(opened.store, "h", host="", now_ms=NOW)
        await charges.flush(opened.store, Batch("h", 0, 3, records), NOW)

    in_store(serve)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ((), "cba"),
        (("--user", "ann"), "ca"),
        (("--token", 7), "b"),
        (("--channel", 3), "c"),
        (("--model", "old"), "a"),
        (("--since", "2h"), "cb"),
        (("--since", "1970-01-01"), "cba"),
        (("--until", "2h"), "a"),
        (("--since", "4h", "--until", "30m"), "ba"),
        (("--request", "b"), "b"),
        (("--before", 3), "ba"),
        (("--limit", 2), "cb"),
        (("--user", "bob", "--model", "old"), ""),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value,
)
@pytest.mark.usefixtures("served")
def test_logs_are_filtered_and_come_newest_first(filters: tuple[Any, ...], wanted: str, tollway: Tollway) -> None:
    ended = tollway("logs", *filters, "--json")
    assert ended.status == 0
    assert "".join(json.loads(line)["request_id"] for line in ended.out.splitlines()) == wanted


@pytest.fixture
def renamed(done: Done, in_store: InStore) -> None:
    """Channel 1 was `old`, then `middle`, and is `new`; channel 2 is `other`; one that was `gone` is deleted."""
    for name in ("new", "other"):
        done("channel", "create", "--name", name, "--type", "echo", "--models", "echo")

    async def serve(opened: DataDir) -> None:
        names = (("old", 1), ("middle", 1), ("gone", 9), ("new", 1), ("other", 2), ("2024", 9))
        records = tuple(
            ChargeRecord(NOW - HOUR, 1, 0, channel_id=id, channel_name=name, request_id=name) for name, id in names
        )
        await leases.join(opened.store, "h", host="", now_ms=NOW)
        await charges.flush(opened.store, Batch("h", 0, len(records), records), NOW)

    in_store(serve)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        pytest.param("new", {"old", "middle", "new"}, id="the name that it has"),
        pytest.param("1", {"old", "middle", "new"}, id="its id"),
        pytest.param("old", {"old"}, id="a name that it had"),
        pytest.param("gone", {"gone"}, id="the name of one that is deleted"),
        pytest.param("2024", {"2024"}, id="a name that looks like an id"),
        pytest.param("9", {"gone", "2024"}, id="the id of one that is deleted"),
    ],
)
@pytest.mark.usefixtures("renamed")
def test_logs_of_a_channel_are_found_by_the_names_that_it_had(typed: str, wanted: set[str], tollway: Tollway) -> None:
    ended = tollway("logs", "--channel", typed, "--json")
    assert (ended.status, ended.err) == (0, "")
    assert {json.loads(line)["request_id"] for line in ended.out.splitlines()} == wanted


@pytest.mark.usefixtures("renamed")
def test_logs_of_a_channel_that_nobody_knows(tollway: Tollway) -> None:
    ended = tollway("logs", "--channel", "Old")
    assert (ended.status, ended.out) == (1, "")
    assert "argument --channel: the channel 'Old' does not exist, and no log row names it" in ended.err
    other = tollway("logs", "--channel", "old", "--until", "2h")
    assert (other.status, other.out.startswith("There is nothing to show.")) == (0, True)


@pytest.mark.usefixtures("served")
def test_a_log_line_says_everything(tollway: Tollway) -> None:
    row = json.loads(tollway("logs", "--limit", 1, "--json").out)
    assert (row["type"], row["username"], row["created_at"]) == ("consume", "ann", iso(NOW))
    assert {"input_tokens", "output_tokens", "quota", "breakdown", "outcome", "request_id"} <= row.keys()


@pytest.mark.usefixtures("served")
def test_logs_for_people_are_a_table_that_cannot_move_the_cursor(tollway: Tollway) -> None:
    heading, *lines = tollway("logs").out.splitlines()
    assert heading.split() == [
        "time",
        "user",
        "token",
        "model",
        "channel",
        "status",
        "in",
        "out",
        "cost",
        "ms",
        "outcome",
    ]
    assert len(lines) == 3
    assert "m?[2J" in lines[0]


def test_every_option_is_listed_with_its_default_and_meaning(done: Done) -> None:
    listed = {each["name"]: each for each in done("option", "list")}
    assert listed.keys() == {*Options.__slots__, *GroupRatios().to_options()}
    assert listed["retry_next"]["value"] == listed["retry_next"]["default"] == 3
    assert all(each["meaning"] and not each["set"] for each in listed.values())


def test_an_option_is_set_and_unset_under_either_name(done: Done, in_store: InStore) -> None:
    done("option", "set", "RetryTimes", 7)
    before = in_store(lambda opened: options.list_all(opened.store))
    assert (before["retry_next"], "RetryTimes" in before) == ("7", False)
    listed = {each["name"]: each for each in done("option", "list")}
    assert (listed["retry_next"]["value"], listed["retry_next"]["set"]) == (7, True)
    assert done("option", "unset", "retry_next")["was_set"] is True
    assert "retry_next" not in in_store(lambda opened: options.list_all(opened.store))


def test_a_name_of_new_apis_that_is_stored_gives_way(done: Done, in_store: InStore) -> None:
    in_store(lambda opened: options.set_many(opened.store, {"RetryTimes": "9"}, now_ms=1))
    done("option", "set", "retry_next", 2)
    assert Options.parse(in_store(lambda opened: options.list_all(opened.store))).retry_next == 2


def test_group_options_are_options_too(done: Done) -> None:
    done("option", "set", "UserUsableGroups", '{"default": "Default", "staff": "Staff"}')
    done("user", "create", "--username", "ann")
    assert done("token", "create", "--user", "ann", "--name", "t", "--group", "staff")["id"] == 1


def test_a_price_is_stored_as_the_relay_reads_it(done: Done, in_store: InStore) -> None:
    argv = ("--input", "0.15", "--output", "0.60", "--cached-input", "0.075", "--per-image", "0.04", "--per-image")
    done("price", "set", 'odd "name" \u20ac', *argv, "1024x1024/hd=0.08", "--source", "the vendor")
    (row,) = in_store(lambda opened: prices.list_all(opened.store))
    price = PriceBook.load(row.price).prices['odd "name" \u20ac']
    assert (str(price.input), str(price.output), str(price.cached_input)) == ("0.15", "0.60", "0.075")
    assert {kind: str(usd) for kind, usd in price.per_image.items()} == {"default": "0.04", "1024x1024/hd": "0.08"}
    assert price.source == "the vendor"


def test_prices_are_listed_and_unset(done: Done) -> None:
    assert done("price", "list") == []
    done("price", "set", "embed-*", "--input", "0.1", "--output", "0")
    (listed,) = done("price", "list")
    assert (listed["model"], listed["input"], listed["output"]) == ("embed-*", "0.1", "0")
    everything = {each["model"]: each for each in done("price", "list", "--all")}
    assert everything["gpt-4o-mini"]["set_at"] is None
    assert everything["embed-*"]["set_at"]
    done("price", "unset", "embed-*")
    assert done("price", "list") == []


def test_groups_are_set_listed_and_deleted(done: Done) -> None:
    done("group", "set", "vip", "--ratio", "0.80", "--description", "old friends")
    vip = {"name": "vip", "ratio": "0.80", "description": "old friends", "source": "group set"}
    assert vip in done("group", "list")
    done("group", "delete", "vip")
    assert vip not in done("group", "list")


def test_groups_are_listed_with_where_their_ratio_comes_from(done: Done) -> None:
    def listed() -> dict[str, tuple[str, str]]:
        return {each["name"]: (each["ratio"], each["source"]) for each in done("group", "list")}

    assert listed() == dict.fromkeys(("default", "vip", "svip"), ("1", "default"))
    done("option", "set", "GroupRatio", '{"default": 1, "staff": 0.5}')
    done("group", "set", "staff", "--ratio", "0.25")
    assert listed() == {"default": ("1", "option GroupRatio"), "staff": ("0.25", "group set")}


def test_the_schema_is_shown_and_made(done: Done, tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path / "new")
    shown = done("db", "current", *where)
    assert (shown["revision"], shown["head"], shown["up_to_date"]) == (None, migrate.HEAD, False)
    assert not (tmp_path / "new").exists()
    assert done("db", "upgrade", *where)["before"] is None
    assert done("db", "upgrade", *where)["before"] == migrate.HEAD
    assert done("db", "current", *where)["up_to_date"] is True


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000002"),
        (500_000, "$1.00"),
        (525_000, "$1.05"),
        (-1, "-$0.000002"),
        (10**15, "$2000000000.00"),
    ],
)
def test_quota_is_shown_in_dollars_exactly(quota: int, text: str) -> None:
    assert dollars(quota) == text


def test_times_are_shown_in_utc_to_the_millisecond() -> None:
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert iso(None) is None


def test_a_table_puts_numbers_to_the_right_and_text_to_the_left() -> None:
    assert table(("n", "name"), [(1, "a"), (100, None)], empty="") == "  n  name\n  1  a\n100  -"
    assert table(("n",), [], empty="nothing") == "nothing"
    assert clean("a\u202eb\n") == "a?b?"


def test_every_limit_says_that_0_is_none(done: Done) -> None:
    """0 is the default of most: who reads "requests a user may make: 0" would take his gateway for closed."""
    limits = re.compile(r"(requests|tokens|parallel_requests)_.*(user|token|address)|model_request_(total|successes)")
    found = [each for each in done("option", "list") if limits.fullmatch(each["name"])]
    assert len(found) == 10
    assert [each["name"] for each in found if "; 0: no limit." not in each["meaning"]] == []
