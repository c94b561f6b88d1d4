"""The built-in upstream's answers have the shapes that OpenAI documents."""

import base64
import io
import math
import struct
import wave
import zlib
from typing import Any

import orjson
import pytest
from tollway.adapters.outgoing import Outgoing
from tollway.gateway.upstream.echo import EchoUpstream

from .helpers import PATIENT, body_of

pytestmark = pytest.mark.anyio

MESSAGES = [
    {"role": "user", "content": "before"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "The last words, as they are."},
]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


async def ask(path: str, body: bytes, content_type: bytes = b"application/json") -> tuple[int, bytes, bytes]:
    """Status, content type and body."""
    outgoing = Outgoing("POST", f"http://echo.invalid{path}", [(b"content-type", content_type)], body, transport="echo")
    incoming = await EchoUpstream().send(outgoing, PATIENT)
    return incoming.status, dict(incoming.headers)[b"content-type"], await body_of(incoming)


async def ask_json(path: str, document: dict[str, Any]) -> dict[str, Any]:
    status, content_type, body = await ask(path, orjson.dumps(document))
    assert (status, content_type) == (200, b"application/json")
    return orjson.loads(body)


async def ask_events(path: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    status, content_type, body = await ask(path, orjson.dumps({**document, "stream": True}))
    assert (status, content_type) == (200, b"text/event-stream")
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-2]]


async def test_a_chat_echoes_the_last_user_message_and_counts(anyio_backend: object) -> None:
    answer = await ask_json("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "n": 2})
    assert (answer["object"], answer["model"]) == ("chat.completion", "m")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        assert choice["message"] == {"role": "assistant", "content": MESSAGES[-1]["content"], "refusal": None}
        assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12 > 12


async def test_a_chat_streams_in_several_events_with_usage_when_asked(anyio_backend: object) -> None:
    request = {"model": "m", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    *chunks, usage = await ask_events("/v1/chat/completions", request)
    assert len(chunks) > 4
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == MESSAGES[-1]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6


async def test_a_stream_that_did_not_ask_for_usage_has_none(anyio_backend: object) -> None:
    events = await ask_events("/v1/chat/completions", {"model": "m", "messages": MESSAGES})
    assert all("usage" not in event and event["choices"] for event in events)


async def test_a_stream_comes_an_event_at_a_time(anyio_backend: object) -> None:
    body = orjson.dumps({"model": "m", "messages": MESSAGES, "stream": True})
    outgoing = Outgoing("POST", "http://echo.invalid/v1/chat/completions", [], body)
    incoming = await EchoUpstream().send(outgoing, PATIENT)
    assert not incoming.complete
    reads = 0
    while not incoming.complete:
        assert (await incoming.read()).count(b"\n\n") == 1
        reads += 1
    assert reads > 4
    assert await incoming.read() == b"data: [DONE]\n\n"
    assert await incoming.read() == b""


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_callers_limit_is_kept(anyio_backend: object, name: str) -> None:
    answer = await ask_json("/v1/chat/completions", {"model": "m", "messages": MESSAGES, name: 3})
    assert answer["choices"][0]["message"]["content"] == "The last words,"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_content_parts_are_read_and_an_empty_chat_is_answered_too(anyio_backend: object) -> None:
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "this"},
    ]
    answer = await ask_json("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
    assert answer["choices"][0]["message"]["content"] == "what is\nthis"
    answer = await ask_json("/v1/chat/completions", {"messages": []})
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
async def test_a_tool_that_must_be_called_is_called(anyio_backend: object, choice: object) -> None:
    request = {"model": "m", "messages": MESSAGES, "tools": TOOLS, "tool_choice": choice}
    answer = (await ask_json("/v1/chat/completions", request))["choices"][0]
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
    [call] = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "look_up", "arguments": "{}"})
    assert call["id"]

    deltas = [event["choices"][0] for event in await ask_events("/v1/chat/completions", request)]
    calls = [delta["delta"]["tool_calls"][0] for delta in deltas if "tool_calls" in delta["delta"]]
    assert calls[0]["function"]["name"] == "look_up"
    assert "".join(call["function"]["arguments"] for call in calls) == "{}"
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_tools_that_may_be_called_are_not(anyio_backend: object) -> None:
    answer = await ask_json("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "auto"})
    assert answer["choices"][0]["message"]["content"] == MESSAGES[-1]["content"]


async def test_completions(anyio_backend: object) -> None:
    answer = await ask_json("/v1/completions", {"model": "m", "prompt": "one two"})
    assert (answer["object"], answer["choices"][0]["text"]) == ("text_completion", "one two")
    assert answer["usage"]["completion_tokens"] == 2
    request = {"model": "m", "prompt": ["one", "two"], "stream_options": {"include_usage": True}}
    *events, usage = await ask_events("/v1/completions", request)
    assert "".join(event["choices"][0]["text"] for event in events) == "one\ntwo"
    assert usage["usage"]["completion_tokens"] == 2


async def test_embeddings_are_unit_vectors_and_the_same_for_the_same_input(anyio_backend: object) -> None:
    request = {"model": "m", "input": ["a", "b", "a"], "dimensions": 5}
    answer = await ask_json("/v1/embeddings", request)
    first, second, third = (item["embedding"] for item in answer["data"])
    assert len(first) == 5
    assert first == third != second
    assert math.isclose(math.hypot(*first), 1.0)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    packed = await ask_json("/v1/embeddings", {**request, "encoding_format": "base64"})
    assert struct.unpack("<5f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(first)


@pytest.mark.parametrize(("value", "count"), [("text", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_an_input_may_be_text_or_tokens_one_or_several(anyio_backend: object, value: object, count: int) -> None:
    assert len((await ask_json("/v1/embeddings", {"input": value}))["data"]) == count
    assert len((await ask_json("/v1/moderations", {"input": value}))["results"]) == count


async def test_dimensions_beyond_reason_are_refused(anyio_backend: object) -> None:
    for dimensions in (0, 100_000, "8"):
        status, _, body = await ask("/v1/embeddings", orjson.dumps({"input": "a", "dimensions": dimensions}))
        assert (status, orjson.loads(body)["error"]["code"]) == (400, "invalid_value")


async def test_images_are_real_pngs(anyio_backend: object) -> None:
    answer = await ask_json("/v1/images/generations", {"prompt": "red", "n": 2})
    assert len(answer["data"]) == 2
    png = base64.b64decode(answer["data"][0]["b64_json"])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    at, seen = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + data),)
        seen += zlib.decompress(data) if kind == b"IDAT" else b""
        at += 12 + length
    assert len(seen) == height * (1 + 3 * width)


async def test_speech_is_a_real_wav(anyio_backend: object) -> None:
    status, content_type, body = await ask("/v1/audio/speech", b'{"input": "hello", "voice": "alloy"}')
    assert (status, content_type) == (200, b"audio/wav")
    with wave.open(io.BytesIO(body)) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (1, 8000, 2000)


def form(**fields: str) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n12345\r\n--b--\r\n'
    return ("".join(parts) + file).encode()


FORM = b"multipart/form-data; boundary=b"


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_sound_becomes_text(anyio_backend: object, path: str) -> None:
    status, content_type, body = await ask(path, form(model="whisper-1"), FORM)
    assert (status, content_type) == (200, b"application/json")
    assert orjson.loads(body)["text"] == "A sound of 5 bytes."
    _, content_type, body = await ask(path, form(model="whisper-1", response_format="text", prompt="said"), FORM)
    assert (content_type, body) == (b"text/plain; charset=utf-8", b"said\n")
    _, _, body = await ask(path, form(response_format="verbose_json"), FORM)
    assert orjson.loads(body)["duration"] == 1.0


async def test_images_are_edited_by_form(anyio_backend: object) -> None:
    status, _, body = await ask("/v1/images/edits", form(prompt="blue", n="3"), FORM)
    assert (status, len(orjson.loads(body)["data"])) == (200, 3)


async def events(path: str, body: bytes, content_type: bytes = b"application/json") -> list[dict[str, Any]]:
    status, kind, answer = await ask(path, body, content_type)
    assert (status, kind) == (200, b"text/event-stream")
    return [orjson.loads(event.partition(b"data: ")[2]) for event in answer.split(b"\n\n")[:-1]]


@pytest.mark.parametrize(("path", "of"), [("generations", "image_generation"), ("edits", "image_edit")])
async def test_images_stream(anyio_backend: object, path: str, of: str) -> None:
    body = form(prompt="blue", n="2", stream="true", partial_images="1")
    seen = await events(f"/v1/images/{path}", body, FORM)
    assert [each["type"] for each in seen] == [f"{of}.partial_image", f"{of}.completed"] * 2
    assert {base64.b64decode(each["b64_json"])[:4] for each in seen} == {b"\x89PNG"}
    assert seen[1]["usage"]["output_tokens"] == 64


async def test_speech_streams(anyio_backend: object) -> None:
    delta, done = await events("/v1/audio/speech", b'{"input": "hello", "voice": "alloy", "stream_format": "sse"}')
    assert base64.b64decode(delta["audio"]).startswith(b"RIFF")
    assert (done["type"], done["usage"]["input_tokens"] > 0) == ("speech.audio.done", True)


async def test_transcripts_stream(anyio_backend: object) -> None:
    *deltas, done = await events("/v1/audio/transcriptions", form(prompt="one two", stream="true"), FORM)
    assert [each["delta"] for each in deltas] == ["one", " two"]
    assert (done["type"], done["text"]) == ("transcript.text.done", "one two")


async def test_models_are_listed(anyio_backend: object) -> None:
    incoming = await EchoUpstream().send(Outgoing("GET", "http://echo.invalid/v1/models", [], b""), PATIENT)
    assert orjson.loads(await body_of(incoming))["data"][0]["id"] == "echo"


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        pytest.param("/v1/nothing", b"{}", b"application/json", 404, id="an unknown path"),
        pytest.param("/v1/chat/completions", b"{", b"application/json", 400, id="broken JSON"),
        pytest.param("/v1/chat/completions", b"[]", b"application/json", 400, id="JSON that is no object"),
        pytest.param("/v1/audio/transcriptions", b"{}", b"application/json", 400, id="JSON where a form is wanted"),
        pytest.param("/v1/audio/transcriptions", b"--b", FORM, 400, id="a broken form"),
    ],
)
async def test_faults_are_answered_as_openai_does(
    anyio_backend: object, path: str, body: bytes, content_type: bytes, status: int
) -> None:
    answered, kind, text = await ask(path, body, content_type)
    assert (answered, kind) == (status, b"application/json")
    assert set(orjson.loads(text)["error"]) == {"message", "type", "param", "code"}
