"""Estimates without a tokenizer: on the high side, quick, and never an accident."""

import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.call import Call
from tollway.adapters.estimate import estimate_call, estimate_input, estimate_text, estimate_usage
from tollway.adapters.operations import BY_PATH
from tollway.config.pricing import Usage

steady = settings(derandomize=True, deadline=None, max_examples=200)

CHAT = BY_PATH["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param("", 0, 0, id="nothing"),
        pytest.param("a", 1, 1, id="a letter"),
        pytest.param("The quick brown fox jumps over the lazy dog.", 10, 16, id="English"),
        pytest.param("for (let i = 0; i < items.length; i++) { total += items[i]; }", 18, 30, id="code"),
        pytest.param("敏捷的棕色狐狸跳过了懒狗。", 9, 14, id="Chinese"),
        pytest.param("Быстрая коричневая лиса прыгает через ленивую собаку", 12, 40, id="Russian"),
        pytest.param("😀" * 10, 10, 30, id="emoji"),
        pytest.param("\ud800" * 3, 3, 3, id="surrogates that stand alone"),
    ],
)
def test_texts(text: str, low: int, high: int) -> None:
    assert low <= estimate_text(text) <= high


@steady
@given(st.text(max_size=200))
def test_a_text_is_never_more_than_its_bytes_nor_less_than_nothing(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert size / 4 <= estimate_text(text) <= size


def message(content: object, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content, **more}]}


BARE = estimate_input(message(""))


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        pytest.param(message("seven letters, or 28 of them"), 8, id="a text"),
        pytest.param(message([{"type": "text", "text": "1234567"}]), 2, id="a text part"),
        pytest.param(
            message([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99999}}]),
            1105,
            id="an image is flat",
        ),
        pytest.param(
            message([{"type": "input_audio", "input_audio": {"data": "A" * 4000}}]), 11, id="audio by its length"
        ),
        pytest.param(
            message([{"type": "input_audio", "input_audio": {"id": "a"}}]), 4096, id="audio that is not there"
        ),
        pytest.param(message([{"type": "file", "file": {"file_id": "f"}}]), 4096, id="a file is flat"),
        pytest.param(message(None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), 10, id="a tool call"),
    ],
)
def test_parts_of_a_message(document: dict[str, Any], tokens: int) -> None:
    assert estimate_input(document) - BARE == tokens


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        pytest.param({"prompt": "1234567"}, 5, id="a prompt"),
        pytest.param({"prompt": ["1234567", "1234567"]}, 7, id="prompts"),
        pytest.param({"input": [1, 2, 3, 4]}, 7, id="token numbers"),
        pytest.param({"input": [[1, 2], [3, 4, 5]]}, 8, id="arrays of token numbers"),
        pytest.param({"input": [{"type": "text", "text": "1234567"}]}, 5, id="typed parts"),
        pytest.param({"tools": [{"type": "function"}]}, 3 + 8 + 2 + 3, id="a tool"),
        pytest.param({}, 3, id="nothing"),
    ],
)
def test_other_inputs(document: dict[str, Any], tokens: int) -> None:
    assert estimate_input(document) == tokens


FIELDS = [
    "messages",
    "prompt",
    "input",
    "instructions",
    "tools",
    "content",
    "tool_calls",
    "type",
    "text",
    "input_audio",
    "data",
]
KINDS = st.sampled_from(["text", "image_url", "input_audio", "file"])
HOSTILE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), KINDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)),
    max_leaves=20,
)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(FIELDS), HOSTILE, max_size=6))
def test_no_shape_is_an_accident(document: dict[str, Any]) -> None:
    assert estimate_input(document) >= 3


@pytest.mark.parametrize("name", ["prompt", "input", "instructions", "tools"])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":[', b"]}")], ids=["arrays", "objects"])
def test_nesting_as_deep_as_json_goes_is_no_accident(name: str, pair: tuple[bytes, bytes]) -> None:
    depth = 500 if len(pair[0]) > 1 else 1000
    document = orjson.loads(b'{"%b":[%b"x"%b]}' % (name.encode(), pair[0] * depth, pair[1] * depth))
    assert estimate_input(document) >= 3


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(message("The quick brown fox. " * 20_000), id="one text"),
        pytest.param({"messages": [{"role": "user", "content": "The quick brown fox. " * 10}] * 2000}, id="messages"),
        pytest.param(message("敏捷的棕色狐狸" * 20_000), id="Chinese"),
        pytest.param({"input": list(range(80_000))}, id="token numbers"),
    ],
)
def test_400_kilobytes_are_estimated_in_2_ms(document: dict[str, Any]) -> None:
    best = 1.0
    for _ in range(9):
        began = time.perf_counter()
        estimate_input(document)
        best = min(best, time.perf_counter() - began)
    assert best < 0.002


def call(path: str, document: dict[str, Any], *, model: str = "m", body: bytes | None = None) -> Call:
    written = orjson.dumps(document) if body is None else body
    content_type = b"application/json" if body is None else b"multipart/form-data; boundary=X"
    return Call(BY_PATH[path], model, model, body=written, content_type=content_type, document=document)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(message("The quick brown fox."), id="a text"),
        pytest.param(message("敏捷的棕色狐狸"), id="Chinese"),
        pytest.param(
            message([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}] * 20),
            id="images by their address",
        ),
        pytest.param(message([{"type": "file", "file": {"file_id": "f"}}] * 20), id="files by their id"),
        pytest.param(message("x" * 20_000), id="a long text"),
    ],
)
def test_a_hold_covers_what_a_closer_look_finds(document: dict[str, Any]) -> None:
    assert estimate_call(call("/v1/chat/completions", document)) >= estimate_input(document)


def test_a_form_is_not_estimated() -> None:
    assert estimate_call(call("/v1/images/edits", {"prompt": "x" * 999}, body=b"form")) == 0


@pytest.mark.parametrize(
    ("asked", "images", "usage"),
    [
        pytest.param(
            call("/v1/images/generations", {"size": "1024x1792", "quality": "hd"}),
            2,
            Usage(images=2, image_size="1024x1792", image_quality="hd"),
            id="images as they came",
        ),
        pytest.param(call("/v1/images/generations", {"size": 5}), 1, Usage(images=1), id="a size that is none"),
        pytest.param(
            call("/v1/audio/speech", {"input": "four"}, model="tts-1"),
            0,
            Usage(input_tokens=4),
            id="speech by characters",
        ),
        pytest.param(
            call("/v1/audio/speech", {"input": "four"}, model="gpt-4o-mini-tts"),
            0,
            Usage(input_tokens=4, estimated=True),
            id="speech that is priced by tokens",
        ),
        pytest.param(
            call("/v1/audio/transcriptions", {}, body=b"x" * 32_000),
            0,
            Usage(seconds=Decimal(2), output_tokens=5, estimated=True),
            id="transcription by length",
        ),
        pytest.param(
            call("/v1/embeddings", {"input": "1234567"}),
            0,
            Usage(input_tokens=5, output_tokens=5, estimated=True),
            id="anything else",
        ),
    ],
)
def test_what_a_call_used_when_nobody_says(asked: Call, images: int, usage: Usage) -> None:
    assert estimate_usage(asked, delivered_tokens=5, images=images) == usage


def test_surrogates_that_stand_alone_are_counted() -> None:
    assert estimate_input(message("\ud800\udfff")) > BARE
    assert estimate_usage(call("/v1/audio/speech", {"input": ""}), delivered_tokens=0, images=0).input_tokens == 0
