"""Which texts of a request are counted, and what its form costs beside them."""

from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.call import Call
from tollway.adapters.media.vendor_rules import MediaOptions
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.prompt_texts import Counted, Texts, json_text, prompt_texts

CHAT = "/v1/chat/completions"


def found(
    document: dict[str, Any],
    path: str = CHAT,
    *,
    model: str = "gpt-4o",
    options: MediaOptions | None = None,
    stream: bool = False,
) -> Texts:
    call = Call(BY_PATH[path], model, model, stream=stream, document=document)
    return prompt_texts(call, model, options or MediaOptions())


def user(content: object, **more: object) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content, **more}]}


@pytest.mark.parametrize(
    ("document", "texts", "fixed"),
    [
        pytest.param({"messages": []}, [], 3, id="nothing but the reply's start"),
        pytest.param(user("Hi"), ["user", "Hi"], 6, id="a message"),
        pytest.param(user("Hi", name="Ann"), ["user", "Hi", "Ann"], 7, id="a name"),
        pytest.param(
            user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),
            ["user", "one", "two"],
            6,
            id="parts",
        ),
        pytest.param(user(["one", {"type": "refusal", "refusal": "No."}]), ["user", "one", "No."], 6, id="odd parts"),
        pytest.param(user([{"type": "new", "a": 1}]), ["user", '{"type":"new","a":1}'], 6, id="a part of a new kind"),
        pytest.param(user(None, refusal="No."), ["user", "No."], 6, id="a refusal"),
        pytest.param(user("Hi", reasoning_content="Hm."), ["user", "Hi", "Hm."], 6, id="reasoning"),
        pytest.param(
            user(None, tool_calls=[{"id": "x", "function": {"name": "f", "arguments": '{"a":1}'}}]),
            ["user", "f", '{"a":1}'],
            6 + 7,
            id="a tool call",
        ),
        pytest.param(
            user(None, tool_calls=[{"type": "custom", "custom": {"name": "f", "input": "x"}}]),
            ["user", "f", "x"],
            6 + 7,
            id="a tool call of one's own kind",
        ),
        pytest.param(
            user(None, function_call={"name": "f", "arguments": "{}"}), ["user", "f", "{}"], 13, id="a function"
        ),
        pytest.param(user("21 C", tool_call_id="call_1"), ["user", "21 C"], 6, id="a tool's result"),
        pytest.param(
            user("Hi") | {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "x"}]},
            ["user", "Hi", '{"type":"function","function":{"name":"f"}}', '{"type":"x"}'],
            6,
            id="tools",
        ),
        pytest.param(user("Hi") | {"tools": [], "functions": None}, ["user", "Hi"], 6, id="no tools"),
        pytest.param(
            user("Hi") | {"response_format": {"type": "text"}}, ["user", "Hi", '{"type":"text"}'], 6, id="a format"
        ),
        pytest.param(
            user("Hi") | {"temperature": 0.5, "user": "u" * 64, "stop": ["x" * 999], "metadata": {"a": "b" * 999}},
            ["user", "Hi"],
            6,
            id="what no model reads",
        ),
        pytest.param(user("Hi") | {"anything_new": "x" * 999}, ["user", "Hi", "x" * 999], 6, id="a long field"),
    ],
)
def test_chat(document: dict[str, Any], texts: list[str], fixed: int) -> None:
    assert found(document) == Texts(texts, fixed)


@pytest.mark.parametrize(
    ("path", "document", "texts", "fixed"),
    [
        pytest.param("/v1/completions", {"prompt": "Hi", "suffix": "!"}, ["Hi", "!"], 0, id="a prompt"),
        pytest.param("/v1/completions", {"prompt": ["a", "b"]}, ["a", "b"], 0, id="prompts"),
        pytest.param("/v1/completions", {"prompt": [1, 2, 3]}, [], 3, id="tokens are counted exactly"),
        pytest.param("/v1/completions", {"prompt": [[1, 2], [3]]}, [], 3, id="arrays of tokens"),
        pytest.param("/v1/embeddings", {"input": ["a", [1, 2], "b"]}, ["a", "b"], 2, id="inputs"),
        pytest.param("/v1/embeddings", {"input": []}, [], 0, id="no input"),
        pytest.param("/v1/embeddings", {"input": [True, 1.5, None]}, [], 0, id="neither texts nor tokens"),
        pytest.param("/v1/moderations", {"input": [{"type": "text", "text": "a"}]}, ["a"], 0, id="typed input"),
        pytest.param("/v1/moderations", {}, [], 0, id="nothing"),
    ],
)
def test_other_operations(path: str, document: dict[str, Any], texts: list[str], fixed: int) -> None:
    assert found(document, path) == Texts(texts, fixed)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1024).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64encode(PNG).decode()}}
# A WAV head of 16 kHz in 16 bits: 32,000 bytes a second.
WAVE = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + (16_000).to_bytes(4, "little") + b"\0\0\0\0\2\0\x10\0"
SOUND = {"type": "input_audio", "input_audio": {"data": b64encode(WAVE + b"\0" * (96_000 - len(WAVE))).decode()}}
PDF = b64encode(b"%PDF-1.4 /Type /Page /Type /Page\n").decode()


@pytest.mark.parametrize(
    ("part", "counted"),
    [
        pytest.param(IMAGE, Counted(765, 765, image=765), id="a picture"),
        pytest.param(SOUND, Counted(30, 30, audio=30), id="three seconds of sound"),
        pytest.param({"type": "input_audio", "input_audio": {}}, Counted(256, 256, audio=256), id="sound of no length"),
        pytest.param(
            {"type": "file", "file": {"file_data": "data:application/pdf;base64," + PDF}},
            Counted(2 * 2265, 2 * 2265),
            id="two pages",
        ),
        pytest.param({"type": "input_file", "file_data": PDF}, Counted(2 * 2265, 2 * 2265), id="a bare PDF"),
        pytest.param({"type": "file", "file": {"file_data": "JVBERi!"}}, Counted(4096, 4096), id="a broken PDF"),
        pytest.param({"type": "file", "file": {"file_id": "f"}}, Counted(4096, 4096), id="a file by its id"),
        pytest.param({"type": "video_url", "video_url": {"url": "https://x"}}, Counted(8192, 8192), id="a film"),
        pytest.param(
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 4_000_000}},
            Counted(10_000, 10_000),
            id="a film by its length",
        ),
    ],
)
def test_media(part: dict[str, Any], counted: Counted) -> None:
    texts = found(user([part]))
    assert texts.texts == ["user"]
    assert texts.counted(-6) == counted


@pytest.mark.parametrize(
    ("options", "stream", "tokens"),
    [
        (MediaOptions(), False, 765),
        (MediaOptions(measure_not_stream=False), False, 255),
        (MediaOptions(measure_not_stream=False), True, 765),
        (MediaOptions(measure=False), True, 255),
    ],
)
def test_options_say_what_is_measured(options: MediaOptions, stream: bool, tokens: int) -> None:
    assert found(user([IMAGE]), options=options, stream=stream).image == tokens


def test_the_model_that_the_upstream_knows_sets_the_rules() -> None:
    assert found(user([IMAGE]), model="gemini-2.5-flash").image == 258 * 4


def test_texts_that_were_not_all_kept_count_in_proportion() -> None:
    assert Texts(fixed=1, media=5, part=2, whole=5).counted(10) == Counted(28 + 5, 5)


def test_json_too_deep_to_be_written_is_its_texts() -> None:
    deep = orjson.loads(b'{"a":[' * 400 + b'"x"' + b"]}" * 400)
    assert sorted(json_text(deep).split()) == ["a"] * 400 + ["x"]


FIELDS = [
    "messages", "prompt", "input", "suffix", "tools", "functions", "response_format", "role", "content", "name",
    "tool_calls", "function_call", "function", "custom", "arguments", "type", "text", "image_url", "url", "detail",
    "input_audio", "data", "file", "file_data", "video_url", "refusal", "new",
]  # fmt: skip
KINDS = st.sampled_from(
    ["text", "image_url", "input_audio", "file", "video_url", "refusal", "low", PDF, "data:,", "\ud800"]
)
HOSTILE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), KINDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)),
    max_leaves=20,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings"]), st.dictionaries(st.sampled_from(FIELDS), HOSTILE))
def test_no_shape_is_an_accident(path: str, document: dict[str, Any]) -> None:
    texts = found(document, path)
    assert min(texts.fixed, texts.media, texts.audio, texts.image) >= 0
    assert texts.media >= texts.audio + texts.image
    assert all(type(text) is str and text for text in texts.texts)


@pytest.mark.parametrize("name", ["messages", "input", "prompt", "tools", "anything_new"])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"content":[', b"]}")], ids=["arrays", "objects"])
def test_nesting_as_deep_as_json_goes_is_no_accident(name: str, pair: tuple[bytes, bytes]) -> None:
    depth = 500 if len(pair[0]) > 1 else 1000
    document = orjson.loads(b'{"%b":[%b"x"%b]}' % (name.encode(), pair[0] * depth, pair[1] * depth))
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        assert found(document, path).fixed >= 0
