"""
Token estimates without a tokenizer: by length and class of characters, so that 400 KB cost microseconds.

They size holds and stand in where an upstream reports no usage; they err on the high side.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from msgspec.structs import replace

from ..config.pricing import Usage
from .call import Call

ASCII_PER_TOKEN = 3.5
"""English runs at about 4.5 characters a token, code and JSON at about 3.5."""
IMAGE_TOKENS = 1105
"""A 2048 x 2048 image in high detail: 85 + 6 tiles of 170 (OpenAI, "Images and vision")."""
AUDIO_BYTES_PER_TOKEN = 400
FILE_TOKENS = 4096
MESSAGE_TOKENS = 4

Document = Mapping[str, Any]


def estimate_text(text: str) -> int:
    """
    Tokens of a text: a token for 3.5 ASCII characters; beyond ASCII two thirds of one for a character that takes two
    bytes in UTF-8, one for three bytes, one and a third for four.
    """
    if text.isascii():
        return -int(-len(text) // ASCII_PER_TOKEN)
    wide = (len(text.encode("utf-8", "surrogatepass")) - len(text) + 1) // 2
    return -int(-(len(text) - wide) // ASCII_PER_TOKEN) + wide


SHORT_BODY = 16 * 1024
BYTES_PER_TOKEN = 3


def estimate_call(call: Call) -> int:
    """
    Input tokens to reserve for a call. A form's are not known.

    A short body is taken by its bytes, which counts its JSON in and so errs on the high side; a long one is looked
    into, for it may be a picture, and so is one that may name a picture or a file.
    """
    if call.is_form:
        return 0
    if len(call.body) <= SHORT_BODY and b"_url" not in call.body and b'"file' not in call.body:
        return len(call.body) // BYTES_PER_TOKEN + 1
    return estimate_input(call.document or {})


def estimate_input(document: Document) -> int:
    """Input tokens of a request in OpenAI's dialect, media counted flat."""
    tokens = 3
    for message in _list(document.get("messages")):
        tokens += MESSAGE_TOKENS + _message(message)
    for name in ("prompt", "input", "instructions"):
        tokens += _value(document.get(name))
    for tool in _list(document.get("tools")):
        tokens += 8 + _nested(tool)
    return tokens


def _message(message: Any) -> int:
    if not isinstance(message, dict):
        return 0
    fields = cast(Document, message)
    content = fields.get("content")
    tokens = estimate_text(content) if isinstance(content, str) else sum(_part(part) for part in _list(content))
    if "tool_calls" in fields:
        tokens += _nested(fields["tool_calls"])
    return tokens


def _part(part: Any) -> int:
    if not isinstance(part, dict):
        return 0
    fields = cast(Document, part)
    match fields.get("type"):
        case "image_url" | "input_image":
            return IMAGE_TOKENS
        case "input_audio":
            audio = fields.get("input_audio")
            data = cast(Document, audio).get("data") if isinstance(audio, dict) else None
            return len(data) // AUDIO_BYTES_PER_TOKEN + 1 if isinstance(data, str) else FILE_TOKENS
        case "file" | "input_file" | "video_url":
            return FILE_TOKENS
        case _:
            text = fields.get("text")
            return estimate_text(text) if isinstance(text, str) else 0


def _value(value: Any) -> int:
    """A prompt or input: a text, texts, token numbers, arrays of them, or typed parts."""
    tokens = 0
    rest = [value]  # not by recursion: JSON may be nested deeper than Python's stack
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            tokens += estimate_text(value)
        elif isinstance(value, dict):
            tokens += _part(value)
        elif items := _list(value):
            if isinstance(items[0], int):
                tokens += len(items)
            else:
                rest += items
    return tokens


def _nested(value: Any) -> int:
    """Everything that is text inside, names included: tool definitions and calls."""
    tokens = 0
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            tokens += estimate_text(value)
        elif isinstance(value, dict):
            fields = cast(dict[str, Any], value)
            tokens += sum(map(estimate_text, fields))
            rest += fields.values()
        elif isinstance(value, list):
            rest += cast(list[Any], value)
        else:
            tokens += 1
    return tokens


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


BYTES_PER_SECOND = 16_000
"""Sound at 128 kbit/s: the common rate of speech recordings that are sent for transcription."""


def estimate_usage(call: Call, *, delivered_tokens: int, images: int) -> Usage:
    """
    What a call used when its upstream did not say.

    Pictures are counted as they came, speech by the characters of its text (that is how it is priced); everything
    else is an estimate, and says so.
    """
    document = call.document or {}
    name = call.operation.name
    if name.startswith("images_") and images:
        return with_images(Usage(), call, images)
    if name == "audio_speech":
        return Usage(input_tokens=len(_text(document, "input")), estimated="gpt" in call.model)
    if name.startswith("audio_"):
        return Usage(seconds=Decimal(len(call.body)) / BYTES_PER_SECOND, output_tokens=delivered_tokens, estimated=True)
    return Usage(input_tokens=estimate_input(document), output_tokens=delivered_tokens, estimated=True)


def with_images(usage: Usage, call: Call, images: int) -> Usage:
    """`usage` with the pictures that came, in the size and quality asked for: some are charged by the piece."""
    size, quality = image_kind(call)
    return replace(usage, images=images, image_size=size, image_quality=quality)


def image_kind(call: Call) -> tuple[str, str]:
    """The size and quality that a call asks for; "" where it leaves them to the vendor."""
    document = call.document or {}
    return _text(document, "size"), _text(document, "quality")


def _text(document: Document, name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
