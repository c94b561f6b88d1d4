"""Upstreams that speak OpenAI's dialect in ways of their own: understood, and charged for what they did."""

import base64
import json
from typing import Any

import pytest
from tollway.config.channel import ChannelType

from .conftest import ClientOf, UpstreamOf
from .gateway import Account, Gateway
from .scripted import always, ends, holds
from .wire import (
    CHAT,
    DONE,
    HELLO,
    LAST_CHUNK,
    MODEL,
    QUOTA,
    SSE,
    chunk,
    completion,
    delta,
    event,
    sse_head,
    stream,
    usage_event,
    whole,
)

STREAM = CHAT | {"stream": True}
TEXT = "One two three four five six seven eight nine ten. " * 10
HELLO_EVENTS = delta("Hel") + delta("lo!") + usage_event() + DONE
WORDS = 110
"""Tokens of `TEXT`, about."""


def said(**fields: Any) -> bytes:
    return event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def finish(**more: Any) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", **more}
    return event({"object": "chat.completion.chunk", "choices": [choice]})


WRITTEN: dict[str, dict[str, Any]] = {
    "a function": {"function_call": {"name": "f", "arguments": TEXT}},
    "a custom tool": {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "f", "input": TEXT}}]},
    "Mistral's thinking": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": TEXT}]}]},
    "a transcript of sound": {"audio": {"id": "a", "transcript": TEXT}},
}


@pytest.mark.parametrize("fields", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "whole"])
def test_nothing_that_is_written_is_for_nothing(
    fields: dict[str, Any], streaming: bool, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}
    answer = stream(said(**fields), finish(), DONE) if streaming else whole(json.dumps({"choices": [choice]}).encode())
    gateway.channel(account, upstream(always(answer)).url)
    assert gateway.chat(account, CHAT | {"stream": streaming}).status == 200
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated) == ("completed", True)
    assert WORDS <= charge.output_tokens <= WORDS + 20


def test_who_leaves_while_he_hears_an_answer_pays_for_what_he_heard(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    second = base64.b64encode(b"\0" * 48_000).decode()
    speaking = upstream(holds(sse_head(), *[chunk(said(audio={"id": "a", "data": second}))] * 10))
    gateway.channel(account, speaking.url)
    asked = STREAM | {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    with gateway.open_chat(account, asked) as client:
        while client.seen.count(second.encode()) < 10:
            client.seen += client.socket.recv(1 << 20)
        client.hang_up()
        assert speaking.left.wait(5)
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.output_tokens) == ("cancelled", True, 200)


REPORTS = {
    "far too little": ("One two three four five six seven eight nine ten. " * 10, 8, 12_000),
    "few tokens, for each has many blanks": (" " * 400, 400, 400),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "whole"])
def test_a_report_is_believed_if_it_can_be_true(
    streaming: bool, report: tuple[str, int, int], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    text, reported, charged = report
    usage = used(reported, reported + 9)
    events = *[delta(text)] * 100, finish(), event({"choices": [], "usage": usage}), DONE
    answer = stream(*events) if streaming else whole(completion(text * 100, usage))
    gateway.channel(account, upstream(always(answer)).url)
    assert gateway.chat(account, CHAT | {"stream": streaming, "max_tokens": 20_000}).status == 200
    charge = gateway.charge(account)
    assert abs(charge.output_tokens - charged) <= charged / 10
    assert charge.estimated is (reported != charged)


def used(completion_tokens: int, total: int, prompt: int = 9) -> dict[str, int]:
    return {"completion_tokens": completion_tokens, "prompt_tokens": prompt, "total_tokens": total}


def test_thinking_that_only_the_total_tells_of_is_charged(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """Google's endpoint: a usage in each event, whose total holds what `completion_tokens` leaves out."""
    document = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "1"}}]}
    events = [event(document | {"usage": used(count, 102 + count)}) for count in (1, 3)]
    gateway.channel(account, upstream(always(stream(*events, finish(), DONE))).url)
    assert gateway.chat(account, STREAM).body.endswith(DONE)
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens, charge.estimated) == (9, 96, False)


def test_a_usage_among_the_choices_is_read(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """Moonshot's."""
    last = finish(usage=used(500, 1500, 1000) | {"cached_tokens": 800})
    gateway.channel(account, upstream(always(stream(delta("Hi"), last, DONE))).url)
    gateway.chat(account, STREAM)
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.cached_tokens, charge.output_tokens) == (1000, 800, 500)
    assert not charge.estimated


TOLD = b'{"code":"Throttled","message":"The key sk-upstream is over its limit"}'
ERRORS = {
    "by its name": b"event: error\ndata: " + TOLD + b"\n\n",
    "by its name, without a blank": b"id:1\nevent:error\n:HTTP_STATUS/429\ndata:" + TOLD + b"\n\n",
    "by its name, with carriage returns": b"event: error\r\ndata: " + TOLD + b"\r\n\r\n",
    "in a field of that name": b"error: " + TOLD + b"\n\n",
    "by a status of MiniMax's": event(
        {"base_resp": {"status_code": 1002, "status_msg": "The key sk-upstream is over its limit"}, "choices": None}
    ),
}
MINIMAX = {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_stream_that_begins_with_an_error_is_tried_elsewhere(
    error: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(stream(b": ping\n\n", error, DONE))).url, priority=10)
    well = gateway.channel(account, upstream(always(HELLO)).url)
    assert b"lo!" in gateway.chat(account, STREAM).body
    charge = gateway.charge(account)
    assert (charge.channel_id, charge.attempts, charge.outcome) == (well.id, 2, "completed")


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("apart", [True, False], ids=["apart", "in one write"])
def test_an_error_in_the_middle_is_told_in_openais_way_and_without_the_key(
    apart: bool, error: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    pieces = [delta("Hi"), error, DONE] if apart else [delta("Hi") + error + DONE]
    gateway.channel(account, upstream(ends(sse_head(), *map(chunk, pieces), LAST_CHUNK)).url)
    body = gateway.chat(account, STREAM).body
    masked = delta("Hi") + error.replace(b"sk-upstream", b"********")
    assert body.startswith(masked)
    told = body.removeprefix(masked)
    assert told.startswith(b'data: {"error":{')
    assert told.count(b"\n\n") == 1
    charge = gateway.charge(account)
    assert (charge.outcome, charge.output_tokens) == ("failed", 1)


NO_ANSWERS: dict[str, Any] = {
    "MiniMax's refusal": MINIMAX | {"usage": {"total_tokens": 0}},
    "an error in fields of their own": {"code": 500, "msg": "404 NOT_FOUND", "success": False},
    "an empty object": {},
}


@pytest.mark.parametrize("document", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_success_without_an_answer_is_tried_elsewhere(
    document: dict[str, Any], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(whole(json.dumps(document).encode()))).url, priority=10)
    well = gateway.channel(account, upstream(always(whole(completion()))).url)
    assert gateway.chat(account, CHAT).json["choices"][0]["message"]["content"] == "Hello!"
    assert gateway.charge(account).channel_id == well.id


NOT_QUITE_JSON = {"NaN": (b"null}]", b"NaN}]"), "no UTF-8": (b"Hello!", b"Hell\xf0\x9f")}


@pytest.mark.parametrize("reports", [True, False], ids=["with its usage", "without"])
@pytest.mark.parametrize("odd", NOT_QUITE_JSON.values(), ids=NOT_QUITE_JSON)
def test_an_answer_that_is_not_quite_json_is_passed_on_and_charged(
    odd: tuple[bytes, bytes], reports: bool, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    plain = completion() if reports else completion(usage=None)
    answer = plain.replace(*odd)
    assert answer != plain
    asked = upstream(always(whole(answer)))
    gateway.channel(account, asked.url)
    assert (gateway.chat(account, CHAT).body, len(asked.requests)) == (answer, 1)
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated) == ("completed", not reports)
    assert charge.quota > 0


def test_a_whole_stream_may_lack_its_end_mark(
    gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    """Perplexity's: each choice says why it ended, and then the body ends."""
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": used(2, 11)})
    answer = stream(delta("Hel"), delta("lo!"), last)
    channel = upstream(always(answer))
    gateway.channel(account, channel.url, type=ChannelType.PERPLEXITY)
    for _ in range(5):  # as many as would take the channel out
        assert gateway.chat(account, STREAM).body == delta("Hel") + delta("lo!") + last + DONE
    chunks = list(
        client_of(account.key).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
        )
    )
    assert chunks[-1].choices[0].finish_reason == "stop"
    charges = gateway.charges(account)
    assert [(each.outcome, each.output_tokens, each.estimated) for each in charges] == [("completed", 2, False)] * 6


@pytest.mark.parametrize("named", [b"content-type: text/plain; charset=utf-8\r\n", b""], ids=["plain text", "nothing"])
def test_a_stream_may_be_called_something_else(
    named: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    answer = HELLO.replace(b"content-type: " + SSE + b"\r\n", named)
    gateway.channel(account, upstream(always(answer)).url)
    got = gateway.chat(account, STREAM)
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
    assert got.body == delta("Hel") + delta("lo!") + DONE
    assert gateway.charge(account).quota == QUOTA


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["line feeds", "carriage returns"])
def test_events_may_be_parted_by_one_line_end(
    end: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    answer = HELLO_EVENTS.replace(b"\n\n", end)
    gateway.channel(account, upstream(always(stream(answer))).url)
    assert gateway.chat(account, STREAM).body == delta("Hel") + delta("lo!") + DONE
    charge = gateway.charge(account)
    assert (charge.quota, charge.outcome, charge.estimated) == (QUOTA, "completed", False)


HALVES = {
    "no choice is finished": [delta("Hel"), delta("lo!")],
    "one choice of two is finished": [delta("Hel"), finish()],
    "an event behind the end is cut": [delta("Hel"), finish(), finish()[:30]],
}


@pytest.mark.parametrize("events", HALVES.values(), ids=HALVES)
def test_a_half_stream_gets_no_end_mark(
    events: list[bytes], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(stream(*events))).url)
    body = gateway.chat(account, STREAM | {"n": 2 if events[1] == finish() and len(events) == 2 else 1}).body
    assert DONE not in body
    assert b'data: {"error":{' in body
    assert gateway.charge(account).outcome == "truncated"


@pytest.mark.parametrize("field", ["models", "fallbacks"])
@pytest.mark.parametrize("override", [{}, {"models": ["m"], "fallbacks": ["m"]}], ids=["none", "the channel's own"])
def test_no_other_model_than_the_one_that_is_charged_is_asked(
    override: dict[str, Any], field: str, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url, type=ChannelType.OPENROUTER, param_override=override)
    assert gateway.chat(account, CHAT | {field: ["anthropic/claude-opus-4"]}).status == 200
    sent = json.loads(seen.requests[-1].body)
    assert sent.get(field) == override.get(field)
    assert sent["messages"] == CHAT["messages"]
