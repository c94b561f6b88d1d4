"""`tollway channel`: the upstream accounts that requests go to."""

import asyncio
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ...adapters.providers.provider import Provider, whole_url
from ...adapters.providers.registry import PROVIDERS
from ...config.amounts import dollars
from ...config.channel import Channel, ChannelStatus, ChannelType
from ...config.settings import Settings
from ..channel_test import ChannelTester, Verdict, save_test
from ..data_dir import DataDir
from ..store import channels
from ..store.records import ChannelState
from .arguments import Parser, command, group
from .channel_flags import add_flags, edited, edits
from .channel_warnings import namesakes, unpriced, without_path
from .failures import Usage
from .moments import now_ms
from .output import clean, iso, short, table, tell, tell_with_warnings
from .session import opened_data_dir, opened_store, settings_of
from .which import add_which, id_of, unknown

TESTS_AT_ONCE = 8


def parser() -> Parser:
    parser, commands = group("tollway channel", "Channels: the upstream accounts that requests go to.")
    add_flags(command(commands, "create", create, "add a channel"), create=True)
    command(commands, "list", list_channels, "list channels, without their keys")
    testing = command(commands, "test", test, "send one small real request; brings back what was disabled by itself")
    add_which(testing, "channel").add_argument(
        "--all", action="store_true", help="in place of CHANNEL: every one but those that an operator has disabled"
    )
    command(commands, "types", types, "list the types of channels, with their numbers and addresses")
    changing = command(commands, "update", update, "change what the flags name, and nothing else")
    add_which(changing, "channel")
    add_flags(changing, create=False)
    for action, work, summary in (
        ("enable", enable, "give a channel traffic"),
        ("disable", disable, "give a channel no traffic"),
        ("delete", delete, "remove a channel; its log rows stay"),
    ):
        add_which(command(commands, action, work, summary), "channel")
    return parser


async def create(arguments: Namespace) -> int:
    channel = edited(Channel(id=0, name="", type=ChannelType.ECHO, models=()), edits(arguments), arguments)
    async with opened_data_dir(arguments, create=True) as opened:
        # Keys of two secrets in one table would leave a server with half of its channels.
        await channels.list_all(opened.store, opened.vault)
        created = await channels.create(opened.store, opened.vault, channel, now_ms=now_ms())
        warnings = (
            await namesakes(opened.store, created) + without_path(created) + await unpriced(opened.store, created)
        )
    return tell_with_warnings(
        arguments, {"id": created.id}, warnings, f"Channel {created.name} has the id {created.id}."
    )


async def update(arguments: Namespace) -> int:
    changes = edits(arguments)
    if not changes:
        raise Usage("nothing to change: say what, such as --models")
    async with opened_data_dir(arguments) as opened:
        store, vault = opened.store, opened.vault
        channel_id = await id_of(store, "channel", arguments)
        changed = await channels.update(
            store, vault, channel_id, lambda channel: edited(channel, changes, arguments), now_ms=now_ms()
        )
        if changed is None:
            raise unknown("channel", channel_id)
        warnings = await namesakes(store, changed) if "name" in changes else []
        warnings += without_path(changed) if "base_url" in changes or "type" in changes else []
        warnings += await unpriced(store, changed) if "models" in changes else []
    return tell_with_warnings(
        arguments, {"id": changed.id}, warnings, f"Channel {changed.id} ({changed.name}) is changed."
    )


async def types(arguments: Namespace) -> int:
    documents = [
        {"type": int(type), "name": provider.name, "base_url": provider.base_url, "key_needed": provider.key_needed}
        for type, provider in sorted(PROVIDERS.items())
    ]
    rows = ((int(type), provider.name, _address(provider)) for type, provider in sorted(PROVIDERS.items()))
    return tell(arguments, documents, table(("type", "name", "base URL"), rows, empty=""))


def _address(provider: Provider) -> str:
    wanted = "must be given, as the whole URL of a request" if provider.address is whole_url else "must be given"
    return provider.base_url or wanted


async def list_channels(arguments: Namespace) -> int:
    async with opened_data_dir(arguments) as opened:
        found = await channels.list_all(opened.store, opened.vault)
        states = await channels.states(opened.store)
    # A channel may have been made between the two looks.
    rows = [(channel, states[channel.id]) for channel in found if channel.id in states]
    headings = ("id", "name", "type", "status", "groups", "priority", "weight", "keys", "used", "answer", "models")
    text = table(headings, (_line(*row) for row in rows), empty="There are no channels.")
    text = "\n".join([text, *(each for row in rows for each in _reasons(*row))])
    return tell(arguments, [_document(*row) for row in rows], text)


def _reasons(channel: Channel, state: ChannelState) -> Iterator[str]:
    """Why a channel, or one of its keys, was taken out of use."""
    if channel.status is not ChannelStatus.ENABLED and state.status_reason:
        yield f"channel {channel.id} is {_status(channel)} since {short(state.status_at)}: {clean(state.status_reason)}"
    for index, reason in sorted(state.disabled_keys.items()):
        if reason and reason != state.status_reason:
            yield f"channel {channel.id}, key {index} is disabled: {clean(reason)}"


def _status(channel: Channel) -> str:
    return channel.status.name.lower()


async def enable(arguments: Namespace) -> int:
    def edit(channel: Channel) -> Channel:
        # With no key left in use it would be enabled in name only.
        all_out = len(channel.disabled_keys) >= len(channel.keys)
        disabled_keys = frozenset[int]() if all_out else channel.disabled_keys
        return replace(channel, status=ChannelStatus.ENABLED, disabled_keys=disabled_keys)

    async with opened_data_dir(arguments) as opened:
        channel_id = await id_of(opened.store, "channel", arguments)
        if await channels.update(opened.store, opened.vault, channel_id, edit, now_ms=now_ms()) is None:
            raise unknown("channel", channel_id)
    return tell(arguments, {"id": channel_id, "status": "enabled"}, f"Channel {channel_id} is enabled.")


async def disable(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        channel_id = await id_of(store, "channel", arguments)
        changed = await channels.set_status(store, channel_id, ChannelStatus.DISABLED, now_ms=now_ms())
        if not changed and not await channels.states(store, [channel_id]):
            raise unknown("channel", channel_id)
    return tell(arguments, {"id": channel_id, "status": "disabled"}, f"Channel {channel_id} is disabled.")


async def delete(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        channel_id = await id_of(store, "channel", arguments)
        if not await channels.delete(store, channel_id, now_ms=now_ms()):
            raise unknown("channel", channel_id)
    return tell(arguments, {"id": channel_id, "status": "deleted"}, f"Channel {channel_id} is deleted.")


async def test(arguments: Namespace) -> int:
    """Exit status 1 if any channel failed."""
    settings = settings_of(arguments)
    async with opened_data_dir(arguments) as opened:
        if arguments.all:
            chosen = await channels.list_all(opened.store, opened.vault)
            wanted = [channel for channel in chosen if channel.status is not ChannelStatus.DISABLED]
        else:
            channel_id = await id_of(opened.store, "channel", arguments)
            channel = await channels.get(opened.store, opened.vault, channel_id)
            if channel is None:
                raise unknown("channel", channel_id)
            wanted = [channel]
        results = await _test(wanted, opened, settings)
    headings = ("id", "name", "model", "result", "status", "ms", "reason")
    text = table(headings, map(_result_line, results), empty="There is no channel to test.")
    documents = list(map(_result_document, results))
    tell(arguments, documents if arguments.all else documents[0], text)
    return 0 if all(result.passed for result in results) else 1


async def _test(wanted: list[Channel], opened: DataDir, settings: Settings) -> list[Verdict]:
    gate = asyncio.Semaphore(TESTS_AT_ONCE)
    async with ChannelTester.from_settings(settings) as tester:

        async def one(channel: Channel) -> Verdict:
            async with gate:
                return await save_test(opened.store, opened.vault, await tester.test(channel), now_ms=now_ms())

        return await asyncio.gather(*map(one, wanted))


def _result_document(result: Verdict) -> dict[str, Any]:
    return {
        "id": result.channel.id,
        "name": result.channel.name,
        "model": result.model,
        "result": "passed" if result.passed else "failed",
        "http_status": result.http_status,
        "response_ms": result.response_ms,
        "reason": result.reason,
        "enabled_again": result.enabled_again,
    }


def _result_line(result: Verdict) -> tuple[object, ...]:
    word = "failed" if not result.passed else "passed, enabled again" if result.enabled_again else "passed"
    status, ms = result.http_status, result.response_ms
    return result.channel.id, result.channel.name, result.model, word, status, ms, result.reason


def _document(channel: Channel, state: ChannelState) -> dict[str, Any]:
    """Without what may be a secret: of headers and fields the names are shown, of addresses all but user and query."""
    return {
        "id": channel.id,
        "name": channel.name,
        "type": int(channel.type),
        "provider": PROVIDERS[channel.type].name,
        "status": _status(channel),
        "status_reason": state.status_reason,
        "base_url": channel.base_url.partition("?")[0],
        "keys": len(channel.keys),
        "disabled_keys": {str(index): reason for index, reason in state.disabled_keys.items()},
        "key_mode": channel.key_mode,
        "models": channel.models,
        "groups": channel.groups,
        "priority": channel.priority,
        "weight": channel.weight,
        "model_mapping": dict(channel.model_mapping),
        "status_code_mapping": {str(status): answer for status, answer in channel.status_code_mapping.items()},
        "header_override": list(channel.header_override),
        "param_override": list(channel.param_override),
        "prompt_cache_ratio": channel.prompt_cache_ratio,
        "disconnect": channel.disconnect,
        "auto_ban": channel.auto_ban,
        "api_version": channel.api_version,
        "organization": channel.organization,
        "test_model": channel.test_model,
        "proxy": _without_user(channel.proxy),
        "tag": channel.tag,
        "used_quota": state.used_quota,
        "tested_at": iso(state.tested_at),
        "response_ms": state.response_ms,
        "created_at": iso(state.created_at),
    }


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _line(channel: Channel, state: ChannelState) -> tuple[object, ...]:
    answer = None if state.tested_at is None else "failed" if state.response_ms is None else f"{state.response_ms} ms"
    return (
        channel.id,
        channel.name,
        PROVIDERS[channel.type].name,
        _status(channel),
        ",".join(channel.groups),
        channel.priority,
        channel.weight,
        f"{len(channel.keys)} ({out} disabled)" if (out := len(channel.disabled_keys)) else len(channel.keys),
        dollars(state.used_quota),
        answer,
        ",".join(channel.models),
    )
