"""Channels: created, shown without their keys, changed, switched, tested."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tollway.config.channel import ChannelStatus, ChannelType
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import channels

from .conftest import Tollway

Done = Callable[..., Any]
InStore = Callable[..., Any]

KEYS = ("sk-first-0123456789", "sk-second-0123456789")
OPENAI = ("--name", "openai", "--type", "openai", "--models", "gpt-4o-mini,gpt-4o")


def stored(in_store: InStore, channel_id: int = 1) -> Any:
    return in_store(lambda opened: channels.get(opened.store, opened.vault, channel_id))


def test_every_flag_reaches_the_channel(done: Done, in_store: InStore) -> None:
    flags: dict[str, Any] = {
        "--name": "all of it",
        "--type": "Azure",
        "--base-url": "https://me.openai.azure.com",
        "--models": "a, b\nc,a",
        "--group": "default,vip",
        "--priority": -5,
        "--weight": 0,
        "--model-mapping": json.dumps({"a": "b", "b": "b"}),
        "--status-code-mapping": json.dumps({"404": 503, "400": "500"}),
        "--header-override": json.dumps({"X-Key": "Bearer {api_key}"}),
        "--param-override": json.dumps({"temperature": 0, "nested": {"list": [1]}}),
        "--key-mode": "polling",
        "--api-version": "2025-04-01-preview",
        "--organization": "org-1",
        "--test-model": "b",
        "--proxy": "socks5://user:password@proxy:1080",
        "--tag": "east",
        "--disconnect": "drain",
        "--auto-ban": "false",
    }
    argv = [part for flag in flags.items() for part in flag]
    assert done("channel", "create", *argv, "--key", KEYS[0], "--key", f"{KEYS[1]},{KEYS[0]}")["id"] == 1
    channel = stored(in_store)
    assert channel.type is ChannelType.AZURE
    assert [key.reveal() for key in channel.keys] == list(KEYS)
    assert (channel.models, channel.groups) == (("a", "b", "c"), ("default", "vip"))
    assert (channel.priority, channel.weight, channel.auto_ban) == (-5, 0, False)
    assert channel.status_code_mapping == {404: 503, 400: 500}
    assert channel.param_override == {"temperature": 0, "nested": {"list": [1]}}
    same = ("base_url", "key_mode", "api_version", "organization", "test_model", "proxy", "tag", "disconnect")
    assert {name: getattr(channel, name) for name in same} == {
        name: flags[f"--{name.replace('_', '-')}"] for name in same
    }


@pytest.mark.parametrize("text", ["1", "openai", "OpenAI", "OPENAI"])
def test_a_type_is_a_number_or_a_name_in_any_case(text: str, done: Done, in_store: InStore) -> None:
    done("channel", "create", "--name", "o", "--type", text, "--models", "gpt-4o", "--key", KEYS[0])
    assert stored(in_store).type is ChannelType.OPENAI


def test_keys_come_from_standard_input(done: Done, in_store: InStore) -> None:
    done("channel", "create", *OPENAI, "--key-stdin", stdin=f"{KEYS[0]}\n{KEYS[1]},\n")
    assert [key.reveal() for key in stored(in_store).keys] == list(KEYS)


def test_a_list_never_shows_what_may_be_a_secret(done: Done, tollway: Tollway) -> None:
    argv = [
        "--header-override",
        json.dumps({"X-Auth": "header-secret"}),
        "--param-override",
        '{"user": "param-secret"}',
    ]
    argv += ["--proxy", "http://me:proxy-secret@proxy:3128"]
    done("channel", "create", *OPENAI, "--key", ",".join(KEYS), *argv)
    custom = ("--name", "c", "--type", "custom", "--models", "m", "--base-url", "https://host/ask?key=url-secret")
    done("channel", "create", *custom)
    listed = done("channel", "list")
    assert [channel["keys"] for channel in listed] == [2, 0]
    assert listed[0]["header_override"] == ["X-Auth"]
    assert listed[0]["proxy"] == "http://proxy:3128"
    shown = json.dumps(listed) + tollway("channel", "list").out
    assert not [secret for secret in (*KEYS, "header-", "param-", "proxy-", "url-") if f"{secret}secret" in shown]
    assert not [key for key in KEYS if key in shown]


def test_keys_are_nowhere_in_the_data_directory(done: Done, data_dir: Path) -> None:
    done("channel", "create", *OPENAI, "--key", KEYS[0])
    assert not [path.name for path in data_dir.iterdir() if KEYS[0].encode() in path.read_bytes()]


def test_an_update_changes_what_it_names_and_nothing_else(done: Done, in_store: InStore) -> None:
    done("channel", "create", *OPENAI, "--key", ",".join(KEYS), "--tag", "east", "--weight", 3)
    before = stored(in_store)
    done("channel", "update", "--id", 1, "--models", "gpt-4o", "--model-mapping", '{"gpt-4o": "x"}', "--tag", "")
    after = stored(in_store)
    assert (after.models, dict(after.model_mapping), after.tag) == (("gpt-4o",), {"gpt-4o": "x"}, "")
    assert (after.keys, after.weight, after.name) == (before.keys, 3, "openai")


def test_new_keys_are_all_in_use(done: Done, in_store: InStore) -> None:
    done("channel", "create", *OPENAI, "--key", ",".join(KEYS))

    async def disable(opened: DataDir) -> None:
        await channels.disable_key(opened.store, opened.vault, 1, 1, reason="dead", now_ms=1)

    in_store(disable)
    assert done("channel", "list")[0]["disabled_keys"] == {"1": "dead"}
    done("channel", "update", "--id", 1, "--key", "sk-new-1,sk-new-2")
    assert stored(in_store).disabled_keys == frozenset()


def test_an_update_that_would_break_the_channel_changes_nothing(
    done: Done, tollway: Tollway, in_store: InStore
) -> None:
    done("channel", "create", *OPENAI, "--key", KEYS[0])
    before = stored(in_store)
    ended = tollway("channel", "update", "--id", 1, "--key", "", "--tag", "west")
    assert (ended.status, ended.err) == (
        2,
        "tollway channel: argument --key: is required: OpenAI serves nobody without one\n",
    )
    assert stored(in_store) == before


def test_channels_are_switched_and_deleted(done: Done) -> None:
    done("channel", "create", "--name", "e", "--type", 1000, "--models", "echo")
    assert done("channel", "disable", "--id", 1) == {"id": 1, "status": "disabled"}
    assert done("channel", "disable", "--id", 1) == {"id": 1, "status": "disabled"}
    assert done("channel", "list")[0]["status"] == "disabled"
    assert done("channel", "enable", "--id", 1) == {"id": 1, "status": "enabled"}
    assert done("channel", "delete", "--id", 1) == {"id": 1, "status": "deleted"}
    assert done("channel", "list") == []


def test_enabling_a_channel_without_a_key_in_use_puts_its_keys_back(done: Done, in_store: InStore) -> None:
    done("channel", "create", *OPENAI, "--key", KEYS[0])

    async def disable(opened: DataDir) -> None:
        await channels.disable_key(opened.store, opened.vault, 1, 0, reason="dead", now_ms=1)

    in_store(disable)
    assert stored(in_store).status is ChannelStatus.AUTO_DISABLED
    done("channel", "enable", "--id", 1)
    assert (stored(in_store).status, stored(in_store).disabled_keys) == (ChannelStatus.ENABLED, frozenset())


def test_a_passing_test_brings_a_channel_back_and_is_written_down(done: Done, in_store: InStore) -> None:
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "gpt-4o-mini")

    async def disable(opened: DataDir) -> None:
        await channels.set_status(opened.store, 1, ChannelStatus.AUTO_DISABLED, reason="ill", now_ms=1)

    in_store(disable)
    result = done("channel", "test", "--id", 1)
    assert {"result": "passed", "http_status": 200, "reason": "", "enabled_again": True}.items() <= result.items()
    (listed,) = done("channel", "list")
    assert listed["status"] == "enabled"
    assert listed["response_ms"] >= 1
    assert listed["tested_at"]


def test_all_channels_are_tested_but_those_an_operator_has_disabled(done: Done, tollway: Tollway) -> None:
    for name in ("a", "b", "c"):
        done("channel", "create", "--name", name, "--type", "echo", "--models", "echo")
    done("channel", "disable", "--id", 2)
    done("channel", "create", *OPENAI, "--key", KEYS[0], "--base-url", "http://127.0.0.1:1")
    ended = tollway("channel", "test", "--all", "--json")
    assert ended.status == 1
    assert [(each["id"], each["result"]) for each in ended.json] == [(1, "passed"), (3, "passed"), (4, "failed")]
    assert ended.json[2]["reason"] == "127.0.0.1:1 cannot be reached."
    assert "failed" in tollway("channel", "test", "--all").out
    assert done("channel", "list")[3]["response_ms"] is None
