"""Watching streams: the same however they are cut, passed on in whole events, and read without an accident."""

import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.answers.content import answer_text, event_text, sound_bytes
from tollway.adapters.answers.sse import has_event, split_events
from tollway.adapters.answers.watch import COUNT_AFTER, LONGEST_EVENT, AnswerWatch, StreamWatch, has_error, read_answer
from tollway.adapters.errors import UpstreamGarbage
from tollway.config.pricing import Usage

steady = settings(derandomize=True, deadline=None, max_examples=200)


def chunk(content: str) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": content}}], "usage": None}


def event(document: object, end: bytes = b"\n") -> bytes:
    return b"data: " + orjson.dumps(document) + end + end


def events(*documents: object, end: bytes = b"\n") -> bytes:
    return b"".join(event(document, end) for document in documents)


DONE = b"data: [DONE]\n\n"
USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}
USED = Usage(input_tokens=9, output_tokens=4)
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 7, 10**9], ids=["1", "2", "3", "7", "whole"])

LF = b": hello\n\n" + events(chunk("Hel"), chunk("lo\n\nworld"), USAGE) + DONE
CRLF = LF.replace(b"\n", b"\r\n")
MIXED = b": ping\n\n" + event(chunk("a"), b"\r\n") + event(chunk("b")) + event(USAGE, b"\r\n") + b": x\n\n" + DONE
ODD = b"data: 1\n\r\n" + event(chunk("a")) + b"data: 2\r\n\n" + event(USAGE) + DONE


def watched(wire: bytes, size: int, watch: StreamWatch) -> bytes:
    """What is passed on of a stream that comes in pieces. Every piece that is passed on ends with an event."""
    passed = b""
    for at in range(0, len(wire), size):
        piece = watch.feed(wire[at : at + size])
        assert not piece or piece.endswith((b"\n\n", b"\n\r\n"))
        passed += piece
    return passed + watch.finish()


@SIZES
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(LF, id="line feeds"),
        pytest.param(CRLF, id="carriage returns and line feeds"),
        pytest.param(MIXED, id="both, in turn"),
        pytest.param(ODD, id="both, in one event"),
    ],
)
def test_a_stream_is_the_same_however_it_is_cut(wire: bytes, size: int) -> None:
    watch = StreamWatch()
    assert watched(wire, size, watch) == wire
    assert watch.ended
    assert not watch.failed
    assert watch.usage == USED


@SIZES
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["line feeds", "carriage returns"])
def test_the_usage_chunk_is_taken_out_and_nothing_else(end: bytes, size: int) -> None:
    last = chunk("!")
    last["usage"] = USAGE["usage"]
    prompt_filter = {"choices": [], "prompt_filter_results": [], "usage": None}
    talk = chunk('"usage"')
    before = b": ping" + end + end + events(prompt_filter, chunk("a"), talk, end=end)
    usage = b"event: chunk" + end + b"id: 7" + end + event(USAGE, end)
    after = events(last, {"choices": []}, end=end) + b"data: [DONE]" + end + end
    watch = StreamWatch(strip_usage=True)
    assert watched(before + usage + after, size, watch) == before + after
    assert watch.usage == USED


@pytest.mark.parametrize(
    "usage",
    [pytest.param({"prompt_tokens": "9"}, id="counts that are none"), pytest.param({"x": 1}, id="no counts at all")],
)
def test_a_usage_chunk_that_says_nothing_is_taken_out_all_the_same(usage: dict[str, Any]) -> None:
    watch = StreamWatch(strip_usage=True)
    assert watch.feed(event({"choices": [], "usage": usage})) == b""
    assert watch.usage is None


@pytest.mark.parametrize("document", [{"choices": None}, {}], ids=["null", "none"])
def test_a_usage_chunk_may_have_no_choices(document: dict[str, Any]) -> None:
    watch = StreamWatch(strip_usage=True)
    assert watch.feed(event(document | {"usage": USAGE["usage"]})) == b""
    assert watch.usage == USED


def test_a_client_that_asked_for_usage_gets_it() -> None:
    assert StreamWatch().feed(event(USAGE)) == event(USAGE)


def test_the_last_usage_counts() -> None:
    watch = StreamWatch()
    watch.feed(events({"choices": [], "usage": {"prompt_tokens": 1}}, USAGE, chunk("more")))
    assert watch.usage == USED


@SIZES
@pytest.mark.parametrize(
    ("wire", "ends", "ended"),
    [
        pytest.param(b"data: [DONE]\n\n", (), True, id="the end mark"),
        pytest.param(b"data:[DONE]\r\n\r\n", (), True, id="without a blank"),
        pytest.param(b"event: done\ndata: [DONE]\n\n", (), True, id="with a name"),
        pytest.param(b"data: [DONE]", (), True, id="without a line's end"),
        pytest.param(b"data: [DONE]\n", (), True, id="without a blank line"),
        pytest.param(event(chunk("data: [DONE]\n\ndata: [DONE]")), (), False, id="written by the model"),
        pytest.param(event(chunk("\ndata: [DONE]\n")), (), False, id="written by the model, in a line of its own"),
        pytest.param(b": data: [DONE]\n\n" + b"id: data: [DONE]\n\n", (), False, id="in a comment and in a field"),
        pytest.param(b"data: [DON\n\n", (), False, id="half an end mark"),
        pytest.param(event({"type": "speech.audio.done"}), ("speech.audio.done",), True, id="a type that ends"),
        pytest.param(event({"type": "speech.audio.delta"}), ("speech.audio.done",), False, id="a type that does not"),
        pytest.param(
            event({"type": "x", "text": '"speech.audio.done"'}), ("speech.audio.done",), False, id="a type in a text"
        ),
        pytest.param(
            event({"type": ["speech.audio.done"]}), ("speech.audio.done",), False, id="a type that is no word"
        ),
        pytest.param(event({"type": "speech.audio.done"}), (), False, id="another operation's type"),
    ],
)
def test_end_marks(wire: bytes, ends: tuple[str, ...], ended: bool, size: int) -> None:
    watch = StreamWatch(ends)
    watched(event(chunk("a")) + wire, size, watch)
    assert watch.ended is ended


ERRORS = [
    pytest.param({"error": {"message": "overloaded"}}, True, id="OpenAI's error"),
    pytest.param({"error": "overloaded"}, True, id="a word"),
    pytest.param({"type": "error", "error": {"type": "server_error"}}, True, id="an event of type error"),
    pytest.param({"type": "error", "message": "overloaded"}, True, id="an event of type error without an object"),
    pytest.param({"error": None, "choices": []}, False, id="a null error"),
    pytest.param({"error": {"message": ""}, "choices": [{}]}, False, id="an empty error in an answer"),
    pytest.param({"error": {}, "choices": [{}]}, False, id="an error without words in an answer"),
    pytest.param(
        {"error": {"message": "gone"}, "choices": [{"finish_reason": "error"}]},
        True,
        id="an error beside choices, as OpenRouter",
    ),
    pytest.param(chunk('{"error": {"message": "a model may write this"}}'), False, id="an error in a text"),
    pytest.param({"type": "chunk", "error": None}, False, id="null alone"),
]


@pytest.mark.parametrize(("document", "failed"), ERRORS)
@pytest.mark.parametrize("size", [1, 10**9], ids=["in pieces", "whole"])
@pytest.mark.parametrize("before", [b"", event(chunk("a")) * 3], ids=["first", "later"])
def test_errors_in_a_stream(document: dict[str, Any], failed: bool, size: int, before: bytes) -> None:
    watch = StreamWatch()
    wire = before + event(document)
    assert watched(wire, size, watch) == wire
    assert watch.failed is failed
    assert has_error(document) is failed


NAMED = event({"message": "overloaded"}).replace(b"data:", b"event: error\ndata:", 1)


@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_nothing_passes_behind_an_error_that_is_one_by_name(size: int) -> None:
    before = event(chunk("event: error\nerror: a model may write this"))
    watch = StreamWatch()
    assert watched(before, size, watch) == before
    assert (watch.failed, watch.broken) == (False, False)
    assert watch.feed(NAMED + DONE) == NAMED
    assert (watch.failed, watch.broken, watch.ended) == (True, True, False)


@pytest.mark.parametrize(
    ("document", "broken"),
    [
        pytest.param({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, True, id="alone"),
        pytest.param({"base_resp": {"status_code": 1002}, "choices": None}, True, id="with null choices"),
        pytest.param({"base_resp": {"status_code": 1002}, "choices": []}, True, id="with no choices"),
        pytest.param({"base_resp": {"status_code": 0, "status_msg": ""}, "choices": []}, False, id="a status of 0"),
        pytest.param(chunk("a") | {"base_resp": {"status_code": 1002}}, False, id="beside an answer"),
        pytest.param(chunk('{"base_resp": {"status_code": 1002}}'), False, id="in a text"),
        pytest.param(chunk("a") | {"base_resp": None}, False, id="null"),
    ],
)
@pytest.mark.parametrize("before", [b"", event(chunk("a")) * 3], ids=["first", "later"])
def test_a_status_of_minimax_that_is_an_error(document: dict[str, Any], broken: bool, before: bytes) -> None:
    wire = before + event(document)
    for spelled in (wire, wire.replace(b'": ', b'":')):
        watch = StreamWatch()
        assert watch.feed(spelled + DONE) == (spelled if broken else spelled + DONE)
        assert (watch.failed, watch.broken, watch.ended) == (broken, broken, not broken)


def test_an_error_of_openais_form_may_have_the_name_too() -> None:
    wire = b"event: error\n" + event({"error": {"message": "overloaded"}}) + DONE
    watch = StreamWatch()
    assert watch.feed(wire) == wire
    assert (watch.failed, watch.broken, watch.ended) == (True, False, True)


def test_sound_is_counted_by_its_bytes() -> None:
    watch = StreamWatch()
    watch.feed(events(*[{"choices": [{"delta": {"audio": {"data": "A" * 64_000}}}]}] * 3))
    assert watch.delivered_sound() == 3 * 48_000


def test_a_document_over_several_lines_is_one() -> None:
    lines = [
        b"event: x",
        b'data: {"choices": [],',
        b'data:  "usage": {"prompt_tokens": 9,',
        b'data:"completion_tokens": 4}}',
    ]
    wire = b"\n".join([*lines, b"id: 1", b"", b""])
    watch = StreamWatch(strip_usage=True)
    assert watch.feed(wire) == b""
    assert watch.usage == USED


@pytest.mark.parametrize(
    ("rest", "passed"),
    [
        pytest.param(event(chunk("b"))[:-1], event(chunk("b")), id="one line end is missing"),
        pytest.param(event(chunk("b"))[:-2], event(chunk("b")), id="both are missing"),
        pytest.param(
            event(chunk("b"), b"\r\n")[:-2], event(chunk("b")), id="a carriage return and a line feed are missing"
        ),
        pytest.param(event(chunk("b"))[:-5], b"", id="half an event"),
        pytest.param(b": bye", b"", id="a comment"),
        pytest.param(b"\r", b"", id="half a blank line"),
        pytest.param(b"data: [DO", b"", id="half an end mark"),
    ],
)
def test_what_is_left_when_the_upstream_closes(rest: bytes, passed: bytes) -> None:
    watch = StreamWatch()
    assert watch.feed(event(chunk("a")) + rest) == event(chunk("a"))
    assert watch.finish() == passed
    assert watch.finish() == b""


def test_a_usage_in_the_last_event_counts_though_its_blank_line_is_missing() -> None:
    watch = StreamWatch(strip_usage=True)
    assert watch.feed(event(USAGE)[:-1]) == b""
    assert watch.finish() == b""
    assert watch.usage == USED


def test_an_event_of_32_mib_passes_and_a_longer_one_does_not() -> None:
    watch = StreamWatch()
    assert watch.feed(b"data: " + b"x" * (LONGEST_EVENT - 6)) == b""
    assert len(watch.feed(b"\n\n")) == LONGEST_EVENT + 2
    assert watch.feed(b"y" * LONGEST_EVENT) == b""
    with pytest.raises(UpstreamGarbage, match="32 MiB"):
        watch.feed(b"y")


def test_a_large_event_in_small_pieces_costs_what_its_bytes_cost() -> None:
    """A picture of 8 MiB that comes in pieces of a network packet's size."""
    watch = StreamWatch()
    piece = b"x" * 1400
    began = time.perf_counter()
    for _ in range(6000):
        watch.feed(piece)
    assert time.perf_counter() - began < 0.5
    assert len(watch.feed(b"\n\n")) == 6000 * 1400 + 2


def tokens(*documents: dict[str, Any], size: int = 10**9) -> int:
    watch = StreamWatch()
    watched(events(*documents), size, watch)
    return watch.delivered_tokens()


@pytest.mark.parametrize(
    ("documents", "count"),
    [
        pytest.param([chunk("1234567")], 2, id="content"),
        pytest.param([chunk("a"), chunk(""), chunk("b")], 2, id="a token at least for each piece of text"),
        pytest.param([{"choices": [{"delta": {"reasoning_content": "1234567"}}]}], 2, id="reasoning"),
        pytest.param([{"choices": [{"delta": {"refusal": "1234567"}}]}], 2, id="a refusal"),
        pytest.param([{"choices": [{"text": "1234567"}]}], 2, id="a completion's text"),
        pytest.param(
            [{"choices": [{"delta": {"tool_calls": [{"function": {"name": "abc", "arguments": "1234"}}]}}]}],
            2,
            id="a tool call",
        ),
        pytest.param(
            [{"choices": [{"delta": {"content": "1234567"}}, {"delta": {"content": "1234567"}}]}], 4, id="two choices"
        ),
        pytest.param([{"type": "transcript.text.delta", "delta": "1234567"}], 2, id="a transcript"),
        pytest.param([{"choices": [{"delta": {"function_call": {"arguments": "1234567"}}}]}], 2, id="a function"),
        pytest.param(
            [{"choices": [{"delta": {"tool_calls": [{"custom": {"name": "abc", "input": "1234"}}]}}]}],
            2,
            id="a custom tool",
        ),
        pytest.param(
            [{"choices": [{"delta": {"content": [{"type": "text", "text": "1234567"}]}}]}], 2, id="content in parts"
        ),
        pytest.param(
            [{"choices": [{"delta": {"reasoning": "1234567", "reasoning_content": "1234567"}}]}],
            2,
            id="reasoning under both of its names",
        ),
        pytest.param(
            [{"choices": [{"delta": {"audio": {"transcript": "1234567", "data": "A" * 9999}}}]}], 2, id="speech"
        ),
        pytest.param([{"type": "image_generation.partial_image", "b64_json": "A" * 9999}], 0, id="a picture"),
        pytest.param([USAGE], 0, id="a usage"),
    ],
)
def test_delivered_tokens(documents: list[dict[str, Any]], count: int) -> None:
    assert tokens(*documents) == count


@pytest.mark.parametrize("size", [1000, 10**9], ids=["in pieces", "whole"])
def test_delivered_tokens_are_the_same_in_batches(size: int) -> None:
    assert tokens(*[chunk("1234567")] * 3000, size=size) == 6000


@pytest.mark.parametrize("count", [3, 400])
def test_what_passed_is_kept_whole_and_in_order_when_it_is_counted(count: int) -> None:
    kept: list[bytes] = []
    watch = StreamWatch(keep=kept.append)
    passed = b"".join(watch.feed(event(chunk(f"word {number} " * 20))) for number in range(count))
    assert watch.delivered_tokens() > 0
    assert b"".join(kept) == passed
    assert len(kept) <= 1 + len(passed) // COUNT_AFTER  # few large pieces, not one for each event


def test_delivered_tokens_can_be_asked_for_at_any_time() -> None:
    watch = StreamWatch()
    watch.feed(event(chunk("1234567")))
    assert [watch.delivered_tokens(), watch.delivered_tokens()] == [2, 2]
    watch.feed(event(chunk("1234567")))
    assert watch.delivered_tokens() == 4


NAMES = [
    "choices",
    "delta",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "function_call",
    "custom",
    "audio",
    "data",
    "text",
    "message",
    "error",
    "usage",
    "response",
    "type",
]
HOSTILE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text("ab\n", max_size=3),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=15,
)
DOCUMENTS = st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=5)


@steady
@given(DOCUMENTS)
def test_no_shape_is_an_accident(document: dict[str, Any]) -> None:
    assert isinstance(event_text(document), str)
    assert isinstance(answer_text(document), str)
    assert sound_bytes(document) >= 0
    watch = StreamWatch(("x",), strip_usage=True)
    watch.feed(event(document))
    assert watch.delivered_tokens() >= 0
    answer = AnswerWatch(b"application/json", ())
    answer.feed(orjson.dumps(document))
    answer.finish()


@steady
@given(
    st.lists(
        st.sampled_from([b"data: ", b"\n", b"\n\n", b"\r\n", b"\r", b": x", b'{"a":1}', b"[DONE]", b"id: 1"]),
        max_size=12,
    ),
    st.data(),
)
def test_whatever_comes_passes_in_order_and_whole(pieces: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(pieces)
    watch, passed, at = StreamWatch(), b"", 0
    while at < len(wire):
        step = data.draw(st.integers(1, 9))
        passed += watch.feed(wire[at : at + step])
        at += step
    assert wire.startswith(passed)
    whole = StreamWatch()
    # More blank lines than one may pass sooner or later; they mean nothing.
    assert whole.feed(wire).rstrip(b"\r\n") == passed.rstrip(b"\r\n")
    assert (whole.ended, whole.failed, whole.finish()) == (watch.ended, watch.failed, watch.finish())
    assert b"".join(split_events(wire)) == wire


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"data: x", True),
        (b": c\n\ndata: x", True),
        (b"event: x\ndata:", True),
        (b": data: x\n\n", False),
        (b"", False),
    ],
)
def test_comments_are_no_events(data: bytes, found: bool) -> None:
    assert has_event(data) is found


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html></html>", id="a web page"),
        pytest.param(b'{"choices": [', id="half a document"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"error": {"message": "overloaded"}}', id="an error"),
        pytest.param(b'{"a":' * 2000 + b"1" + b"}" * 2000, id="a document deeper than any"),
    ],
)
def test_a_success_that_is_none(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        read_answer(body)


def test_an_answer_may_begin_with_a_byte_order_mark() -> None:
    assert read_answer(b'\xef\xbb\xbf{"choices": []}', "choices") == {"choices": []}


ANSWER = {
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"role": "assistant", "content": "1234567"}}, {"message": None, "text": "1234567"}],
    "usage": USAGE["usage"],
}


class TestAnswerWatch:
    @SIZES
    def test_a_json_answer(self, size: int) -> None:
        body = orjson.dumps(ANSWER)
        watch = AnswerWatch(b"Application/JSON; charset=utf-8", ())
        for at in range(0, len(body), size):
            watch.feed(body[at : at + size])
        assert watch.finish() == (USED, 4, True)
        assert watch.model == "gpt-4o-2024-08-06"

    @SIZES
    def test_a_stream(self, size: int) -> None:
        body = events({**chunk("1234567"), "model": "m"}, USAGE) + DONE
        watch = AnswerWatch(b"Text/Event-Stream", ())
        for at in range(0, len(body), size):
            watch.feed(body[at : at + size])
        assert watch.finish() == (USED, 2, True)
        assert watch.model == "m"

    def test_a_stream_that_breaks_off(self) -> None:
        watch = AnswerWatch(b"text/event-stream", ())
        watch.feed(events(chunk("1234567")))
        assert watch.finish() == (None, 2, False)

    def test_a_stream_that_fails(self) -> None:
        watch = AnswerWatch(b"text/event-stream", ())
        watch.feed(events(chunk("a"), {"error": {"message": "gone"}}) + DONE)
        assert watch.finish() == (None, 1, False)

    @pytest.mark.parametrize("body", [b"{", b"", b'{"error": {"message": "no"}}'])
    def test_an_answer_that_is_none(self, body: bytes) -> None:
        watch = AnswerWatch(b"application/json", ())
        watch.feed(body)
        assert watch.finish() == (None, 0, False)

    def test_anything_else_is_passed_over(self) -> None:
        watch = AnswerWatch(b"audio/mpeg", ())
        watch.feed(b"\xff\xfb")
        assert watch.finish() == (None, 0, True)

    def test_an_answer_of_more_than_16_mib_is_passed_over(self) -> None:
        watch = AnswerWatch(b"application/json", ())
        for _ in range(17):
            watch.feed(b" " * (1 << 20))
        assert watch.finish() == (None, 0, True)

    def test_an_endless_event_disturbs_nobody(self) -> None:
        watch = AnswerWatch(b"text/event-stream", ())
        watch.feed(event(USAGE))
        for _ in range(34):
            watch.feed(b"x" * (1 << 20))
        watch.feed(b"\n\n" + DONE)
        assert watch.finish() == (USED, 0, False)
