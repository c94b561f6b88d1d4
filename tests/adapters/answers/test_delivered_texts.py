"""The text of an answer, put together from its events, or from the beginning of it."""

import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.answers.delivered_texts import MOST_KEPT, Delivered, answer_texts
from tollway.adapters.usage.prompt_texts import Texts


def event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def delta(index: int = 0, **fields: object) -> bytes:
    return event({"choices": [{"index": index, "delta": fields}]})


def tool(index: int, **function: str) -> bytes:
    return delta(tool_calls=[{"index": index, "function": function}])


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("events", "texts", "fixed"),
    [
        pytest.param([], [], 0, id="nothing"),
        pytest.param([DONE, b": ping\n\n", event({"choices": []})], [], 0, id="no text"),
        pytest.param(
            [delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo")], ["Hello"], 0, id="deltas"
        ),
        pytest.param(
            [delta(0, content="a"), delta(1, content="x"), delta(0, content="b")], ["ab", "x"], 0, id="choices"
        ),
        pytest.param([delta(reasoning_content="Hm"), delta(content="Hi")], ["Hm", "Hi"], 0, id="reasoning"),
        pytest.param([delta(reasoning="Hm", reasoning_content="Hm")], ["Hm"], 0, id="reasoning by both names"),
        pytest.param([delta(refusal="N"), delta(refusal="o")], ["No"], 0, id="a refusal"),
        pytest.param(
            [event({"choices": [{"text": "Once"}]}), event({"choices": [{"text": " upon"}]})],
            ["Once upon"],
            0,
            id="completions",
        ),
        pytest.param(
            [tool(0, name="f", arguments=""), tool(0, arguments='{"a"'), tool(1, name="g"), tool(0, arguments=":1}")],
            ["f", '{"a":1}', "g"],
            14,
            id="tool calls",
        ),
        pytest.param(
            [delta(function_call={"name": "f"}), delta(function_call={"arguments": "{}"})],
            ["f", "{}"],
            7,
            id="a function",
        ),
        pytest.param(
            [delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]), delta(content="Hi")],
            ["HmHi"],
            0,
            id="content in parts",
        ),
        pytest.param(
            [delta(content=[None, 7, {"text": None}, [{"text": "Hi"}]])], ["Hi"], 0, id="parts of other shapes"
        ),
        pytest.param(
            [b'data: {"choices":[{"delta":{"content":none}}]}\n\n'],
            ['data: {"choices":[{"delta":{"content":none}}]}\n\n'],
            0,
            id="no JSON for us",
        ),
        pytest.param(
            [b"data: [1]\r\n\r\n" + delta(content="Hi").replace(b"\n", b"\r\n")],
            ["data: [1]\r\n\r\n", "Hi"],
            0,
            id="other line ends",
        ),
    ],
)
def test_what_a_stream_has_said(events: list[bytes], texts: list[str], fixed: int) -> None:
    one_by_one, at_once = Delivered(), Delivered()
    for each in events:
        one_by_one.add(each)
    at_once.add(b"".join(events))
    assert one_by_one.texts() == at_once.texts() == Texts(texts, fixed)


@pytest.mark.parametrize(
    ("message", "texts", "fixed"),
    [
        pytest.param({"message": {"role": "assistant", "content": "Hi"}}, ["Hi"], 0, id="chat"),
        pytest.param({"text": "Hi"}, ["Hi"], 0, id="completions"),
        pytest.param(
            {"message": {"content": None, "refusal": "No", "reasoning": "Hm"}}, ["No", "Hm"], 0, id="a refusal"
        ),
        pytest.param(
            {
                "message": {
                    "tool_calls": [
                        {"function": {"name": "f", "arguments": "{}"}},
                        {"custom": {"name": "g", "input": "x"}},
                    ]
                }
            },
            ["f", "{}", "g", "x"],
            14,
            id="tool calls",
        ),
        pytest.param({}, [], 0, id="nothing"),
    ],
)
def test_what_a_whole_answer_says(message: dict[str, Any], texts: list[str], fixed: int) -> None:
    assert answer_texts({"choices": [message]}) == Texts(texts, fixed)
    # Choices that do not give their number are apart all the same.
    assert answer_texts({"choices": [message, message]}) == Texts(texts * 2, fixed * 2)


def test_a_long_stream_counts_in_proportion_and_its_end_is_not_kept() -> None:
    word = delta(content="word ")
    events = 4 * MOST_KEPT // len(word)
    delivered = Delivered()
    for _ in range(events):
        delivered.add(word)
    texts = delivered.texts()
    assert len(texts.texts[0]) == 5 * (MOST_KEPT // len(word))
    assert texts.part <= MOST_KEPT
    assert texts.whole == events * len(word)
    assert texts.counted(len(texts.texts[0]) // 5).tokens == pytest.approx(events, rel=0.001)


def test_nothing_is_kept_behind_a_gap() -> None:
    delivered = Delivered()
    delivered.add(delta(content="a"))
    delivered.add(delta(content="x" * MOST_KEPT))
    delivered.add(delta(content="b"))
    texts = delivered.texts()
    assert texts.texts == ["a"]
    assert texts.whole == sum(len(delta(content=text)) for text in ("a", "x" * MOST_KEPT, "b"))


def test_a_first_piece_is_kept_whatever_its_size() -> None:
    delivered = Delivered()
    delivered.add(delta(content="x" * 2 * MOST_KEPT))
    delivered.add(delta(content="y"))
    texts = delivered.texts()
    assert texts.texts == ["x" * 2 * MOST_KEPT]
    assert texts.whole > texts.part > 2 * MOST_KEPT


def test_keeping_copies_nothing_and_costs_next_to_nothing() -> None:
    events = delta(content="word")
    best = 1.0
    for _ in range(5):
        delivered = Delivered()
        add = delivered.add
        began = time.perf_counter()
        for _ in range(5_000):
            add(events)
        best = min(best, (time.perf_counter() - began) / 5_000)
    assert best < 1e-6


NAMES = [
    "choices",
    "delta",
    "message",
    "content",
    "text",
    "reasoning",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "index",
]
HOSTILE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)),
    max_leaves=20,
)
CHOICES = st.lists(st.dictionaries(st.sampled_from(NAMES), HOSTILE), max_size=3)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(NAMES), HOSTILE) | st.fixed_dictionaries({"choices": CHOICES}),
    st.binary(max_size=20),
)
def test_no_answer_is_an_accident(document: dict[str, Any], noise: bytes) -> None:
    delivered = Delivered()
    for piece in (event(document), b"data: " + noise + b"\n\n", noise):
        delivered.add(piece)
    for texts in (delivered.texts(), answer_texts(document)):
        assert texts.fixed >= 0
        assert all(type(text) is str and text for text in texts.texts)
