"""Tests of channels: one small real request, over the same adapters and the same upstreams as any caller's."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from ..adapters.answers.headers import header
from ..adapters.answers.refusals import error_object, refusal
from ..adapters.answers.watch import read_answer
from ..adapters.call import Call
from ..adapters.errors import GatewayError, UpstreamError, UpstreamGarbage, UpstreamStatus
from ..adapters.operations import OPERATIONS, Operation
from ..adapters.providers.registry import PROVIDERS
from ..adapters.requests.model_suffix import parse_model
from ..adapters.requests.output_limit import with_output_limit
from ..adapters.requests.upstream_request import UpstreamRequestBuilder
from ..config.channel import Channel, ChannelStatus
from ..config.settings import Settings
from .secrets_at_rest import Vault
from .store import Store, channels
from .upstream import Upstreams
from .upstream.port import Incoming, Timeouts, Upstream

LONGEST_WAIT = 60.0
MOST_BYTES = 16 * 1024 * 1024
LONGEST_REASON = 300

BY_NAME = {operation.name: operation for operation in OPERATIONS}
KINDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"embed|bge-|(?:^|[-/])(?:e5|m3e|gte)-", re.I), "embeddings"),
    (re.compile(r"moderation", re.I), "moderations"),
    (re.compile(r"(?:^|-)tts(?:-|$)", re.I), "audio_speech"),
    # These take a file, or make a picture that costs more than a test should.
    (re.compile(r"whisper|transcribe|dall-e|gpt-image|(?:^|-)(?:flux|imagen|sora)", re.I), ""),
    (re.compile(r"instruct$|davinci-002|babbage-002", re.I), "completions"),
)
"""What a model can be asked, by its name: providers do not tell. Whatever is not listed takes a chat."""
MOST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    How a channel did. `channel` is as it was tested. `http_status`: the upstream's own, None if it gave none.
    `response_ms`: from the request to the end of its answer, None when the test failed. `reason` says why it failed.
    `key_index`: the key that was tried last. `enabled_again`: the test has brought the channel back.
    """

    channel: Channel
    model: str
    passed: bool
    http_status: int | None = None
    response_ms: int | None = None
    reason: str = ""
    key_index: int = 0
    enabled_again: bool = False


class ChannelTester:
    """Tests channels over one set of upstream connections. Close it, or use it as a context."""

    def __init__(self, *, upstream: Upstream, requests: UpstreamRequestBuilder, timeouts: Timeouts) -> None:
        self.upstream = upstream
        self.requests = requests
        self.timeouts = timeouts

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """One with connections of its own. An answer is waited for as long as callers wait, but a minute at most."""
        return cls(
            upstream=Upstreams(allow_private=settings.allow_private_upstreams),
            requests=UpstreamRequestBuilder(api_version=settings.azure_api_version),
            timeouts=Timeouts(
                connect=settings.connect_timeout,
                first_byte=settings.first_byte_timeout,
                idle=settings.streaming_timeout,
                total=min(settings.relay_timeout or LONGEST_WAIT, LONGEST_WAIT),
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.upstream.close()

    async def test(self, channel: Channel) -> Verdict:
        """
        Ask the channel once. Never raises for what an upstream does.

        Of several keys the next is tried only when one is refused: one key that works is a channel that works.
        """
        call = smallest_call(channel)
        if call is None:
            reason = "none of its models can be tried with a small request: name one with --test-model"
            return Verdict(channel, channel.test_model, passed=False, reason=reason)
        result = Verdict(channel, call.model, passed=False)
        for index in _keys_to_try(channel):
            result, key_refused = await self._ask(channel, call, index)
            if not key_refused:
                break
        return result

    async def _ask(self, channel: Channel, call: Call, index: int) -> tuple[Verdict, bool]:
        """The result with one key, and whether it was the key that was refused."""
        began = time.perf_counter()
        status: int | None = None
        try:
            request = self.requests.build(call, channel, index)
            incoming = await self.upstream.send(request.outgoing, self.timeouts)
            try:
                status = incoming.status
                await _check(channel, call.operation, incoming)
            finally:
                incoming.close()
        except GatewayError as error:
            key_refused = isinstance(error, UpstreamError) and error.fault == "key"
            reason = _reason(error, channel)
            return Verdict(channel, call.model, False, status, None, reason, index), key_refused
        elapsed = max(1, round((time.perf_counter() - began) * 1000))
        return Verdict(channel, call.model, True, status, elapsed, "", index), False


async def save_test(store: Store, vault: Vault, result: Verdict, *, now_ms: int) -> Verdict:
    """
    Write the result down; a channel that was disabled by itself and passed takes traffic again, with the key that did.

    The result as it is then. A channel that an operator has disabled meanwhile stays disabled.
    """
    channel_id = result.channel.id
    await channels.record_test(store, channel_id, response_ms=result.response_ms, now_ms=now_ms)
    if not result.passed:
        return result
    enabled_again = False

    def edit(channel: Channel) -> Channel:
        nonlocal enabled_again
        if channel.keys != result.channel.keys:  # other keys were put in: this test says nothing of them
            return channel
        enabled_again = channel.status is ChannelStatus.AUTO_DISABLED
        status = ChannelStatus.ENABLED if enabled_again else channel.status
        return replace(channel, status=status, disabled_keys=channel.disabled_keys - {result.key_index})

    if result.channel.status is ChannelStatus.AUTO_DISABLED:
        await channels.update(store, vault, channel_id, edit, now_ms=now_ms)
    return replace(result, enabled_again=enabled_again)


def smallest_call(channel: Channel) -> Call | None:
    """A call that the channel should answer at next to no cost; None when none of its models takes one."""
    served = PROVIDERS[channel.type].operations
    for model in (channel.test_model,) if channel.test_model else channel.models:
        name = parse_model(model)
        kind = next((kind for pattern, kind in KINDS if pattern.search(name.base)), "chat_completions")
        if kind in served:
            document = _document(kind, name.base)
            call = Call(
                BY_NAME[kind],
                model,
                name.base,
                body=orjson.dumps(document),
                content_type=b"application/json",
                document=document,
                effort=name.effort,
            )
            return with_output_limit(call, MOST_TOKENS) if call.operation.generates else call
    return None


def _document(kind: str, model: str) -> dict[str, Any]:
    match kind:
        case "chat_completions":
            return {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        case "completions":
            return {"model": model, "prompt": "hi"}
        case "audio_speech":
            return {"model": model, "input": "hi", "voice": "alloy"}
        case _:
            return {"model": model, "input": "hi"}


def _keys_to_try(channel: Channel) -> Iterator[int]:
    """The keys in use; all of them when none is, for then one of them may have come back."""
    in_use = [index for index in range(len(channel.keys)) if index not in channel.disabled_keys]
    yield from in_use or range(max(1, len(channel.keys)))


async def _check(channel: Channel, operation: Operation, incoming: Incoming) -> None:
    """Read the answer to its end. Raises `UpstreamError` for one that no caller could use."""
    body = await _read(incoming)
    if incoming.status >= 300:
        raise refusal(channel, incoming.status, incoming.headers, body, now=time.time())
    is_json = header(incoming.headers, b"content-type").lower().startswith(b"application/json")
    if not operation.media or is_json:
        read_answer(body)
    elif not body:
        raise UpstreamGarbage("The upstream answered 200 with nothing.")


async def _read(incoming: Incoming) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await incoming.read():
        parts.append(data)
        size += len(data)
        if size > MOST_BYTES:
            raise UpstreamGarbage(f"The upstream's answer is larger than {MOST_BYTES} bytes.")
    return b"".join(parts)


def _reason(error: GatewayError, channel: Channel) -> str:
    """The failure, with the upstream's own words where it has some; without the keys that some of them repeat."""
    reason = error.message
    if isinstance(error, UpstreamStatus) and (told := error_object(error.answer_body)) is not None:
        reason = f"{reason} It says: {told.get('message')}"
    return channel.without_secrets(reason)[:LONGEST_REASON]
