"""Estimates without a tokenizer: on the high side, quick, and never an accident."""

import time
from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tollway.adapters.call import Call
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.token_estimates import estimate_input, estimate_text, most_sent

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
            520,
            id="an image whose vendor is not known is flat",
        ),
        pytest.param(
            message([{"type": "input_audio", "input_audio": {"data": "A" * 4000}}]), 10, id="audio by its length"
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
    assert most_sent(call("/v1/chat/completions", document), "m").tokens >= estimate_input(document)


@pytest.mark.parametrize("field", ["functions", "tools", "response_format", "prediction", "anything_new"])
def test_text_counts_wherever_it_stands(field: str) -> None:
    document = message("hi") | {field: [{"name": "f", "description": "word " * 200_000}]}
    assert estimate_input(document) > 200_000
    assert most_sent(call("/v1/chat/completions", document), "m").tokens > 300_000


@pytest.mark.parametrize(
    "more", [{"name": "word " * 1000}, {"reasoning_content": "word " * 1000}], ids=lambda m: str(*m)
)
def test_text_counts_beside_a_messages_content(more: dict[str, str]) -> None:
    assert estimate_input(message("hi", **more)) > 1000


def test_what_no_model_reads_does_not_count() -> None:
    document = message("hi") | {"model": "gpt-4o", "temperature": 0.5, "user": "u" * 64, "metadata": {"a": "b" * 500}}
    assert estimate_input(document) == estimate_input(message("hi"))


WAVE = b64encode(
    b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + (16_000).to_bytes(4, "little") + b"\0\0\0\0\2\0\x10\0"
).decode()


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        pytest.param({"type": "input_audio", "input_audio": {"data": "A" * 3_000_000}}, 7_500, id="compressed sound"),
        pytest.param(
            {"type": "input_audio", "input_audio": {"data": WAVE + "A" * (128_000 - len(WAVE))}}, 30, id="3 s of WAV"
        ),
        pytest.param({"type": "file", "file": {"file_data": "A" * 300_000}}, 75_000, id="a file of text"),
        pytest.param(
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi" + "A" * 3_199_966}},
            200_000,
            id="a PDF",
        ),
        pytest.param({"type": "file", "file": {"file_data": "A" * 30_000_000}}, 262_144, id="as much as is ever taken"),
        pytest.param({"type": "input_file", "file_id": "f"}, 4096, id="a file by its id"),
    ],
)
def test_media_goes_by_its_length_and_not_by_its_letters(part: dict[str, Any], tokens: int) -> None:
    document = message([part])
    assert estimate_input(document) - BARE == tokens
    assert tokens <= most_sent(call("/v1/chat/completions", document), "m").tokens <= 1.02 * tokens + 260


def test_a_picture_in_disguise_is_held_for_as_one() -> None:
    part = rb'{"type":"image_url","image\u005furl":{"url":"data:image/png;base64,QUJD"}}'
    body = rb'{"messages":[{"role":"user","content":[%b]}]}' % b",".join([part] * 20)
    body = body.replace(b'"image_url"', rb'"image\u005furl"')
    asked = call("/v1/chat/completions", orjson.loads(body))
    assert most_sent(replace(asked, body=body), "m").tokens > 20 * 1105


def test_surrogates_that_stand_alone_are_counted() -> None:
    assert estimate_input(message("\ud800\udfff")) > BARE
