"""A stream that breaks after its first event: told inside the stream, charged in part, never tried again."""

import http.client
from collections.abc import Callable

import openai
import pytest

from .conftest import SILENCE_S, ClientOf, UpstreamOf
from .gateway import Account, Gateway
from .scripted import Script, always, ends, holds
from .wire import CHAT, DONE, HELLO, LAST_CHUNK, MODEL, chunk, delta, event, sse_head, stream, usage_event

WORDS = delta("One two three four five six seven eight nine ten.")
ERROR_EVENT = event({"error": {"message": "overloaded", "type": "server_error", "param": None, "code": "overloaded"}})
STREAM = CHAT | {"stream": True}

CUTS: dict[str, tuple[Script, str]] = {
    "the connection breaks": (ends(sse_head(), chunk(WORDS)), "upstream_truncated"),
    "the connection breaks inside an event": (ends(sse_head(), chunk(WORDS), chunk(WORDS[:30])), "upstream_truncated"),
    "the body ends without an end mark": (ends(stream(WORDS)), "upstream_truncated"),
    "a chunk is malformed": (ends(sse_head(), chunk(WORDS), b"zz\r\n"), "upstream_bad_response"),
    "it falls silent": (holds(sse_head(), chunk(WORDS)), "upstream_idle_timeout"),
}


@pytest.mark.parametrize("case", CUTS.values(), ids=CUTS)
def test_a_cut_is_told_in_the_stream_and_charged_in_part(
    case: tuple[Script, str], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    script, code = case
    second = upstream(always(HELLO))
    channel = gateway.channel(account, upstream(script).url, priority=10)
    gateway.channel(account, second.url)
    answer = gateway.chat(account, STREAM, timeout=SILENCE_S + 5)
    assert answer.status == 200
    assert answer.body.startswith(WORDS)
    told = answer.body.removeprefix(WORDS)
    assert told.startswith(b'data: {"error":{')
    assert told.endswith(b"\n\n")
    assert code.encode() in told
    assert answer.headers["x-request-id"].encode() in told
    assert b"[DONE]" not in answer.body
    assert second.requests == []
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.attempts) == ("truncated", True, 1)
    assert charge.channel_id == channel.id
    assert charge.input_tokens > 0
    assert 10 <= charge.output_tokens <= 20
    assert gateway.held(account) == (0, 0)


def test_a_cut_behind_the_usage_is_charged_by_it(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    gateway.channel(account, upstream(ends(sse_head(), chunk(WORDS), chunk(usage_event()))).url)
    assert b"[DONE]" not in gateway.chat(account, STREAM).body
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated) == ("truncated", False)
    assert (charge.input_tokens, charge.output_tokens) == (1000, 500)


def test_an_error_event_in_the_middle_is_passed_on(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    events = WORDS, ERROR_EVENT, DONE
    gateway.channel(account, upstream(always(stream(*events))).url)
    assert gateway.chat(account, STREAM).body == b"".join(events)
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated) == ("failed", True)


@pytest.mark.parametrize("apart", [True, False], ids=["behind the words", "in one write with them"])
def test_an_error_event_does_not_tell_the_channels_key(
    apart: bool, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    telling = event({"error": {"message": "the key sk-upstream is over its limit"}})
    pieces = [chunk(WORDS), chunk(telling)] if apart else [chunk(WORDS + telling)]
    gateway.channel(account, upstream(ends(sse_head(), *pieces, LAST_CHUNK)).url)
    assert gateway.chat(account, STREAM).body == WORDS + telling.replace(b"sk-upstream", b"********")


RAISING: dict[str, Callable[[], Script]] = {
    "a cut": lambda: ends(sse_head(), chunk(WORDS)),
    "an error event": lambda: ends(sse_head(), chunk(WORDS), chunk(ERROR_EVENT), LAST_CHUNK),
}


@pytest.mark.parametrize("script", RAISING.values(), ids=RAISING)
def test_the_sdk_raises(
    script: Callable[[], Script], gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(script()).url)
    answer = client_of(account.key).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    assert (next(answer).choices[0].delta.content or "").startswith("One two")
    with pytest.raises(openai.APIError) as caught:
        list(answer)
    assert not isinstance(caught.value, openai.APIConnectionError)


def test_streams_that_keep_breaking_take_the_channel_out(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    broken = upstream(ends(sse_head(), chunk(WORDS)))
    gateway.channel(account, broken.url, priority=10)
    gateway.channel(account, upstream(always(HELLO)).url)
    whole = [b"[DONE]" in gateway.chat(account, STREAM).body for _ in range(7)]
    assert whole == [False] * 5 + [True] * 2
    assert len(broken.requests) == 5


def test_sound_that_is_cut_is_seen_to_be_cut_and_charged(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """There is no telling it inside: the connection breaks, so that nobody takes a half for the whole."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 100000\r\n\r\n"
    gateway.channel(account, upstream(ends(head, b"ID3" * 1000)).url, models=("tts-1",))
    with pytest.raises(http.client.IncompleteRead):
        gateway.ask("/v1/audio/speech", account, {"model": "tts-1", "voice": "alloy", "input": "x" * 1000})
    charge = gateway.charge(account)
    assert (charge.outcome, charge.quota) == ("truncated", 7500)
    assert gateway.held(account) == (0, 0)
