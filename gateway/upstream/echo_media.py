"""The built-in upstream's vectors, pictures and sounds: small, valid, and the same for the same input."""

import base64
import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

import orjson

from ...adapters.usage.token_estimates import estimate_input
from .echo_answer import WORD, Document, EchoAnswer, error_answer, json_answer, typed_events_answer

DIMENSIONS = 8
MOST_DIMENSIONS = 4096
MOST_PARTIAL = 3
RATE = 8000
"""Samples a second of the sound that is spoken."""

CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def embeddings(document: Document, now: int) -> EchoAnswer:
    """`POST /v1/embeddings`: unit vectors of `dimensions` (8 if not said), as floats or base64 of float32."""
    asked = document.get("dimensions", DIMENSIONS)
    if not isinstance(asked, int) or not 1 <= asked <= MOST_DIMENSIONS:
        return error_answer(400, f"dimensions must lie between 1 and {MOST_DIMENSIONS}.", "invalid_value")
    data: list[Document] = []
    for index, text in enumerate(_inputs(document.get("input"))):
        vector = _vector(text, asked)
        packed = document.get("encoding_format") == "base64"
        shown = base64.b64encode(struct.pack(f"<{asked}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = estimate_input(document)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_answer({"object": "list", "data": data, "model": document.get("model"), "usage": usage})


def moderations(document: Document, now: int) -> EchoAnswer:
    """`POST /v1/moderations`: nothing is ever flagged."""
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
    }
    results = [result for _ in _inputs(document.get("input"))]
    return json_answer({"id": "modr-echo", "model": document.get("model"), "results": results})


def images(document: Document, now: int, *, of: str = "image_generation") -> EchoAnswer:
    """
    `POST /v1/images/*`: `n` small PNGs whose colour depends on the prompt; a data URL where a URL was asked for.

    With `stream`, an event for each, behind its `partial_images`, whose types begin with `of`.
    """
    asked = str(document.get("n") or 1)
    count = int(asked) if asked.isdigit() and 1 <= int(asked) <= 128 else 1
    encoded = base64.b64encode(_png(str(document.get("prompt") or ""))).decode()
    if document.get("stream") in (True, "true"):
        return typed_events_answer(_image_events(document, now, of, [encoded] * count))
    as_url = document.get("response_format") == "url"
    image = {"url": f"data:image/png;base64,{encoded}"} if as_url else {"b64_json": encoded}
    return json_answer({"created": now, "data": [image] * count, "usage": _image_usage(document, count)})


def _image_events(document: Document, now: int, of: str, pictures: Iterable[str]) -> Iterator[Document]:
    asked = str(document.get("partial_images") or 0)
    partial = min(int(asked), MOST_PARTIAL) if asked.isdigit() else 0
    for encoded in pictures:
        for index in range(partial):
            event = {"type": f"{of}.partial_image", "b64_json": encoded, "partial_image_index": index}
            yield {**event, "created_at": now}
        usage = _image_usage(document, 1)
        yield {"type": f"{of}.completed", "b64_json": encoded, "created_at": now, "usage": usage}


def _image_usage(document: Document, count: int) -> Document:
    tokens = estimate_input(document)
    return {
        "input_tokens": tokens,
        "output_tokens": 64 * count,
        "total_tokens": tokens + 64 * count,
        "input_tokens_details": {"text_tokens": tokens, "image_tokens": 0},
    }


def speech(document: Document, now: int) -> EchoAnswer:
    """
    `POST /v1/audio/speech`: a quarter of a second of a 440 Hz tone, as WAV whatever was asked for; with a
    `stream_format` of `sse` as events.
    """
    samples = [round(8000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(RATE // 4)]
    sound = struct.pack(f"<{len(samples)}h", *samples)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16)
    chunks = b"WAVE" + form + struct.pack("<4sI", b"data", len(sound)) + sound
    wave = struct.pack("<4sI", b"RIFF", len(chunks)) + chunks
    if document.get("stream_format") != "sse":
        return EchoAnswer((wave,), b"audio/wav")
    tokens = estimate_input(document)
    usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(wave).decode()}
    return typed_events_answer([delta, {"type": "speech.audio.done", "usage": usage}])


def transcript(fields: dict[str, str], sizes: dict[str, int]) -> EchoAnswer:
    """
    `POST /v1/audio/transcriptions` and `translations`: the prompt's words, or how much sound there was; with `stream`
    as events.
    """
    text = fields.get("prompt") or f"A sound of {sum(sizes.values())} bytes."
    if fields.get("stream") == "true":
        deltas = [{"type": "transcript.text.delta", "delta": word} for word in WORD.findall(text)]
        usage = {"type": "duration", "seconds": 1}
        return typed_events_answer([*deltas, {"type": "transcript.text.done", "text": text, "usage": usage}])
    match fields.get("response_format"):
        case "text" | "srt" | "vtt":
            return EchoAnswer((text.encode() + b"\n",), b"text/plain; charset=utf-8")
        case "verbose_json":
            about: Document = {"task": "transcribe", "language": "english", "duration": 1.0}
            return json_answer({**about, "text": text, "segments": []})
        case _:
            return json_answer({"text": text, "usage": {"type": "duration", "seconds": 1}})


def _inputs(value: Any) -> list[Any]:
    """One input, or several: a list of numbers is one input already tokenized."""
    if not isinstance(value, list):
        return [value]
    items = cast(list[Any], value)
    return [items] if items and all(isinstance(item, int) for item in items) else items


def _vector(value: Any, dimensions: int) -> list[float]:
    seed = hashlib.shake_128(orjson.dumps(value)).digest(2 * dimensions)
    raw = [number - 32767.5 for number in struct.unpack(f"<{dimensions}H", seed)]
    length = math.sqrt(sum(number * number for number in raw))
    return [number / length for number in raw]


def _png(prompt: str) -> bytes:
    """16 x 16 pixels of one colour (PNG specification, third edition, 5)."""
    side = 16
    colour = hashlib.shake_128(prompt.encode("utf-8", "surrogatepass")).digest(3)
    rows = (b"\0" + colour * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
