"""Answers that are not quite JSON: they are read for what they say, and garbage stays garbage."""

import time
from typing import Any

import pytest
from tollway.adapters.answers.content import answer_text
from tollway.adapters.answers.lenient_json import MOST_BYTES, read_json
from tollway.adapters.answers.watch import StreamWatch, read_answer
from tollway.adapters.errors import UpstreamGarbage
from tollway.adapters.usage.reported import read_usage
from tollway.config.pricing import Usage

ANSWER = (
    b'{"choices":[{"message":{"content":"Hi%b"},"logprobs":{"content":[{"logprob":%b}]}}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}'
)
ODD = {
    "NaN": (b"", b"NaN", "Hi"),
    "Infinity": (b"", b"Infinity", "Hi"),
    "-Infinity": (b"", b"-Infinity", "Hi"),
    "a number beyond floats": (b"", b"1e999", "Hi"),
    "no UTF-8": (b"\xe2\x82", b"0", "Hi\ufffd"),
    "a single high surrogate": (b"\\ud83d", b"0", "Hi?"),
    "a single low surrogate, and NaN": (b"\\uDE00", b"NaN", "Hi?"),
    "a whole pair, and NaN": (b"\\ud83d\\ude00", b"NaN", "Hi\U0001f600"),
    "a tab in a text": (b"\t", b"0", "Hi\t"),
}


@pytest.mark.parametrize(("text", "number", "shown"), ODD.values(), ids=ODD)
def test_an_answer_that_is_not_quite_json_is_read(text: bytes, number: bytes, shown: str) -> None:
    answer = read_answer(ANSWER % (text, number), "choices")
    assert answer_text(answer).strip() == shown.strip()
    assert read_usage(answer) == Usage(9, 4)
    answer_text(answer).encode()  # whoever counts tokens may


@pytest.mark.parametrize(("text", "number", "shown"), ODD.values(), ids=ODD)
def test_the_usage_of_such_an_event_is_read(text: bytes, number: bytes, shown: str) -> None:
    event = b"data: " + ANSWER % (text, number) + b"\n\n"
    watch = StreamWatch()
    assert watch.feed(event + b"data: [DONE]\n\n") == event + b"data: [DONE]\n\n"
    assert (watch.usage, watch.ended, watch.failed) == (Usage(9, 4), True, False)


def test_an_error_in_such_an_event_is_seen() -> None:
    watch = StreamWatch()
    watch.feed(b'data: {"error":{"message":"over","wait":NaN}}\n\n')
    assert watch.failed


@pytest.mark.parametrize(
    "number", ["NaN", "1e999", "-Infinity"], ids=["NaN", "a number beyond floats", "less than nothing"]
)
def test_a_usage_that_is_no_number_is_none(number: str) -> None:
    answer: Any = read_json(b'{"choices":[],"usage":{"prompt_tokens":%b}}' % number.encode())
    assert read_usage(answer) is None


@pytest.mark.parametrize(
    "body",
    [
        b"<html>NaN</html>",
        b'{"choices":[NaN',
        b'{"choices":[]} NaN',
        b'{"a":nan}',
        b"{'a':1}",
        b"NaN",
        b"[NaN]",
        b'{"a":' * 100_000,
        b'{"a":' * 5_000 + b"NaN" + b"}" * 5_000,
        b'{"a":%b}' % (b"9" * 5_000 + b".NaN"),
        b"",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_garbage_stays_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        read_answer(body)


def test_the_slow_way_is_not_gone_with_what_is_very_large() -> None:
    body = b'{"choices":[%bNaN]}' % (b"[]," * (MOST_BYTES // 3))
    began = time.perf_counter()
    with pytest.raises(UpstreamGarbage):
        read_answer(body)
    assert time.perf_counter() - began < 3
