"""What commands tell an operator unasked: warnings, reasons, and tables that fit the terminal."""

from collections.abc import Callable
from typing import Any

import pytest
from tollway.adapters.providers.registry import PROVIDERS
from tollway.config.channel import ChannelStatus
from tollway.config.options import Options
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import channels

from .conftest import Tollway

Done = Callable[..., Any]
InStore = Callable[..., Any]

ECHO = ("channel", "create", "--type", "echo")
ONE = "mystery has no price, so it is not served; see `tollway price set`"


def test_a_model_without_a_price_is_warned_of(tollway: Tollway) -> None:
    ended = tollway(*ECHO, "--name", "e", "--models", "gpt-4o-mini,mystery")
    assert (ended.status, ended.err) == (0, f"tollway: warning: {ONE}\n")
    ended = tollway("channel", "update", "e", "--models", "mystery,riddle")
    assert "mystery, riddle have no price, so they are not served" in ended.err
    assert tollway("channel", "update", "e", "--weight", 2).err == ""


def test_warnings_are_a_part_of_the_json(done: Done) -> None:
    assert done(*ECHO, "--name", "e", "--models", "gpt-4o-mini") == {"id": 1, "warnings": []}
    assert done("channel", "update", "e", "--models", "mystery") == {"id": 1, "warnings": [ONE]}


@pytest.mark.parametrize(
    "remedy",
    [
        ("price", "set", "mystery", "--input", 1, "--output", 1),
        ("price", "set", "mys*", "--per-call", 1),
        ("option", "set", "accept_unknown_models", "true"),
    ],
)
def test_a_model_that_is_served_is_not_warned_of(remedy: tuple[object, ...], done: Done) -> None:
    done(*remedy)
    assert done(*ECHO, "--name", "e", "--models", "mystery")["warnings"] == []


def test_a_price_with_a_suffix_in_the_models_name_is_found(done: Done) -> None:
    assert done(*ECHO, "--name", "e", "--models", "o3-mini-high")["warnings"] == []


def test_a_second_channel_of_a_name_is_warned_of(done: Done) -> None:
    argv = ("--models", "gpt-4o-mini", "--name", "e")
    assert done(*ECHO, *argv)["warnings"] == []
    assert done(*ECHO, *argv) == {"id": 2, "warnings": ["another channel has this name: 1"]}
    assert done("channel", "update", "--id", 2, "--name", "f")["warnings"] == []


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://host:8000", True),
        ("http://host:8000/", True),
        ("http://host:8000/v1", True),
        ("http://host:8000/v1/chat/completions", False),
        ("http://host:8000/?key=k", False),
    ],
)
def test_a_custom_channel_without_the_path_of_a_request_is_warned_of(url: str, warned: bool, done: Done) -> None:
    flags = ("--type", "custom", "--models", "gpt-4o-mini", "--base-url", url)
    warnings = done("channel", "create", "--name", "c", *flags)["warnings"]
    assert ["to its base URL as it stands" in each for each in warnings] == [True] * warned
    assert done("channel", "update", "c", "--base-url", url)["warnings"] == warnings
    assert done("channel", "update", "c", "--weight", 2)["warnings"] == []
    assert done(*ECHO, "--name", "e", "--models", "gpt-4o-mini", "--base-url", "http://host:8000")["warnings"] == []


def test_a_group_that_no_channel_serves_is_warned_of(done: Done) -> None:
    create = ("user", "create", "--username")
    assert done(*create, "ann")["warnings"] == []  # there is no channel at all: this is the beginning
    done(*ECHO, "--name", "e", "--models", "gpt-4o-mini", "--group", "vip,staff")
    assert done(*create, "bob")["warnings"] == ["no channel serves the group 'default'"]
    assert done("user", "update", "bob", "--group", "staff")["warnings"] == []
    assert done("user", "update", "bob", "--group", "stuff")["warnings"] == ["no channel serves the group 'stuff'"]
    assert done("user", "update", "bob", "--role", "admin")["warnings"] == []


def test_models_of_a_key_that_no_channel_lists_are_warned_of(done: Done) -> None:
    done("user", "create", "--username", "ann")
    create = ("token", "create", "--user", "ann", "--name")
    assert done(*create, "early", "--models", "gpt-4o")["warnings"] == []  # there is no channel yet
    done(*ECHO, "--name", "e", "--models", "gpt-4o-mini,o3-mini", "--group", "vip")
    assert done(*create, "all")["warnings"] == []
    assert done(*create, "good", "--models", "gpt-4o-mini,o3-mini-high")["warnings"] == []
    warnings = ["no channel lists gpt4o, gpt-4o"]
    assert done(*create, "bad", "--models", "gpt4o,gpt-4o-mini,gpt-4o")["warnings"] == warnings
    assert done("token", "update", "good", "--models", "gpt4o,gpt-4o")["warnings"] == warnings
    assert done("token", "update", "good", "--models", "")["warnings"] == []


@pytest.fixture
def disabled(done: Done, in_store: InStore) -> None:
    """Channel 1 with one key of two out of use, 2 with its only one, 3 as a whole; all with a reason."""
    for name, keys in (("some", "k-1,k-2"), ("all", "k-3"), ("whole", "k-4")):
        done("channel", "create", "--name", name, "--type", "openai", "--models", "gpt-4o", "--key", keys)

    async def disable(opened: DataDir) -> None:
        await channels.disable_key(opened.store, opened.vault, 1, 1, reason="revoked\x1b", now_ms=1)
        await channels.disable_key(opened.store, opened.vault, 2, 0, reason="no credit", now_ms=1)
        await channels.set_status(opened.store, 3, ChannelStatus.AUTO_DISABLED, reason="ill", now_ms=1)

    in_store(disable)


@pytest.mark.usefixtures("disabled")
def test_a_list_says_why_channels_and_keys_are_out_of_use(tollway: Tollway) -> None:
    heading, some, whole_key, whole, *reasons = tollway("channel", "list").out.splitlines()
    assert "keys" in heading
    assert "2 (1 disabled)" in some
    assert "1 (1 disabled)" in whole_key
    assert "disabled)" not in whole
    assert reasons == [
        "channel 1, key 1 is disabled: revoked?",
        "channel 2 is auto_disabled since 1970-01-01 00:00:00: no credit",
        "channel 3 is auto_disabled since 1970-01-01 00:00:00: ill",
    ]


@pytest.mark.usefixtures("disabled")
def test_an_explanation_says_why_channels_and_keys_are_out_of_use(done: Done, tollway: Tollway) -> None:
    done("user", "create", "--username", "ann", "--quota", 10_000_000)
    explain = ("explain", "--user", "ann", "--model", "gpt-4o")
    assert [(each["channel"], each["key"], each["reason"]) for each in done(*explain)["excluded"]] == [
        (1, 1, "key disabled: revoked\x1b"),
        (2, None, "disabled automatically: no credit"),
        (3, None, "disabled automatically: ill"),
    ]
    assert "key disabled: revoked?" in tollway(*explain).out


def test_the_types_of_channels_are_listed(done: Done, tollway: Tollway) -> None:
    listed = {each["name"]: each for each in done("channel", "types")}
    assert len(listed) == len(PROVIDERS)
    assert listed["OpenAI"] == {
        "type": 1,
        "name": "OpenAI",
        "base_url": "https://api.openai.com",
        "key_needed": True,
    }
    shown = tollway("channel", "types").out
    assert all(name in shown for name in listed)
    assert "Custom       must be given, as the whole URL of a request\n" in shown
    for each in listed.values():
        address = () if each["base_url"] else ("--base-url", "https://host")
        argv = ("--name", "c", "--type", each["type"], "--models", "m", *address)
        ended = tollway("channel", "create", *argv, *(("--key", "k") if each["key_needed"] else ()))
        assert ended.status == 0, ended.err


def test_a_price_is_shown_whether_shipped_or_own(done: Done, tollway: Tollway) -> None:
    shipped = done("price", "show", "gpt-4o-mini")
    assert (shipped["input"], shipped["output"], shipped["own"]) == ("0.15", "0.6", False)
    assert done("price", "show", "o3-mini-high")["priced_as"] == "o3-mini"
    done("price", "set", "gpt-4o-m*", "--input", 1, "--output", 0, "--source", "me")
    assert done("price", "show", "gpt-4o-mini") == shipped
    own = done("price", "show", "gpt-4o-mega")
    assert (own["priced_as"], own["input"], own["source"], own["own"]) == ("gpt-4o-m*", "1", "me", True)
    done("price", "set", "picture", "--per-image", "0.04", "--per-image", "hd=0.08")
    shown = tollway("price", "show", "picture").out
    assert "0.08  per image made, hd" in shown
    assert "Your own: set by an operator" in shown
    ended = tollway("price", "show", "mystery")
    assert (ended.status, "the model 'mystery' has no price" in ended.err) == (1, True)


@pytest.mark.parametrize(("columns", "widest"), [(60, 60), (90, 90), (500, 120)])
def test_options_fit_the_terminal(columns: int, widest: int, tollway: Tollway, monkeypatch: pytest.MonkeyPatch) -> None:
    tollway("option", "set", "GroupRatio", "{" + ", ".join(f'"group {n}": 0.{n}' for n in range(1, 40)) + "}")
    tollway("option", "set", "retry_next", 7)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = tollway("option", "list").out.splitlines()
    assert max(map(len, lines)) <= widest
    assert "retry_next = 7 (set; default: 3)" in lines
    assert "retry_same = 1 (default)" in lines
    assert all(any(line.startswith(f"{name} = ") for line in lines) for name in Options.__slots__)


def test_options_are_listed_by_name_and_pattern(done: Done, tollway: Tollway) -> None:
    assert [each["name"] for each in done("option", "list", "clamp*")] == ["clamp_max_tokens"]
    assert [each["name"] for each in done("option", "list", "RetryTimes")] == ["retry_next"]
    ended = tollway("option", "list", "clamp_max_token")
    assert (ended.status, "did you mean clamp_max_tokens?" in ended.err) == (2, True)


def test_an_option_is_set_in_one_word_too(done: Done, tollway: Tollway) -> None:
    assert done("option", "set", "retry_next=7") == {"name": "retry_next", "value": "7"}
    ended = tollway("option", "set", "retry_next")
    assert (ended.status, "argument VALUE: is missing" in ended.err) == (2, True)
