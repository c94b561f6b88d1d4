"""
Token estimates without a tokenizer: by length and class of characters, so that 400 KB cost microseconds.

They size holds and stand in where an upstream reports no usage; they err on the high side.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from .call import Call
from .media_estimate import HEARD_TOKENS, edited_tokens, held_seconds, text_of
from .shapes import object_of

ASCII_PER_TOKEN = 3.5
"""English runs at about 4.5 characters a token, code and JSON at about 3.5."""
IMAGE_TOKENS = 1105
"""A 2048 x 2048 image in high detail: 85 + 6 tiles of 170 (OpenAI, "Images and vision")."""
FILE_TOKENS = 4096
"""A file, film or recording that is only named."""
TEXT_FILE_BYTES_PER_TOKEN = 4
PDF_BYTES_PER_TOKEN = 16
"""Base64 of a PDF: text is packed, and each page is also seen as a picture."""
MOST_FILE_TOKENS = 262_144
"""A hundred full pages, as text and as pictures: what OpenAI takes in one request ("File inputs")."""
VIDEO_BYTES_PER_TOKEN = 400
"""Base64 of a film of 1 Mbit/s at 300 tokens a second (Gemini, "Video understanding")."""
MESSAGE_TOKENS = 4
LONG_FIELD = 256
"""A field of the request itself whose text is longer is taken for something the model reads."""
NOT_READ = frozenset({"logit_bias", "metadata", "stop", "stream_options"})
"""Fields that no model reads."""

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


class Sent(NamedTuple):
    """
    What a request sends to the model. `tokens` are all; `audio` and `image` are parts of them, and so is `media`: these
    two and files. `media_bytes` are the bytes of the body that hold media.
    """

    tokens: int
    media: int = 0
    audio: int = 0
    image: int = 0
    media_bytes: int = 0


def is_plain(call: Call) -> bool:
    """Short JSON without a picture, sound or file: its tokens go by its bytes, and nobody need look inside."""
    body = call.body
    if len(body) <= SHORT_BODY and call.operation.dialect == "openai_chat":
        for message in (call.document or {}).get("messages", ()):
            content = message.get("content")
            if type(content) is not str and content is not None:
                break  # in parts, which may be anything
        else:
            return True
    return (
        len(body) <= SHORT_BODY
        and b"_url" not in body
        and b'"file' not in body
        and b"input_audio" not in body
        and b"\\u00" not in body  # any of these, written so that it is not found
    )


def most_sent(call: Call) -> Sent:
    """
    What a call sends, at most.

    A body is taken by its bytes, which counts all of its JSON in and so errs on the high side. What is long, or may
    name a picture or a file, is looked into: media is not text.
    """
    if call.is_form or call.operation.name.startswith("images_"):
        fields = (call.document or {}).values()
        text = sum(estimate_text(each) for each in fields if isinstance(each, str) and not each.startswith("data:"))
        pictures = edited_tokens(call, most=True) if call.operation.name.startswith("images_edits") else 0
        return Sent(text + pictures, media=pictures, image=pictures)
    if is_plain(call):
        return Sent(len(call.body) // BYTES_PER_TOKEN + 1)
    sent = sent_by(call.document or {})
    text = max(len(call.body) - sent.media_bytes, 0) // BYTES_PER_TOKEN + 1
    return sent._replace(tokens=max(sent.tokens, text + sent.media))


def likely_sent(call: Call) -> Sent:
    """What a call has probably sent: never more than was held for it."""
    sent = sent_by(call.document or {})
    if call.body and is_plain(call):
        return sent._replace(tokens=min(sent.tokens, len(call.body) // BYTES_PER_TOKEN + 1))
    return sent


def estimate_input(document: Document) -> int:
    """Input tokens of a request in OpenAI's dialect: all of its text, and media counted flat or by its length."""
    return sent_by(document).tokens


def sent_by(document: Document) -> Sent:
    """What a request in OpenAI's dialect sends."""
    count = _Count()
    count.tokens = 3
    for name, value in document.items():
        match name:
            case "messages":
                for message in _list(value):
                    count.message(message)
            case "prompt" | "input" | "instructions":
                count.value(value)
            case "tools" | "functions":
                count.tokens += 8 * len(_list(value))
                count.nested(value)
            case _:
                if (isinstance(value, dict | list) and name not in NOT_READ) or (
                    isinstance(value, str) and len(value) > LONG_FIELD
                ):
                    count.nested(value)
    return Sent(count.tokens + count.media, count.media, count.audio, count.image, count.media_bytes)


class _Count:
    """Tokens as they are found. `tokens` are those of text."""

    __slots__ = ("audio", "image", "media", "media_bytes", "tokens")

    def __init__(self) -> None:
        self.tokens = self.media = self.audio = self.image = self.media_bytes = 0

    def message(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        fields = cast(Document, message)
        self.tokens += MESSAGE_TOKENS
        content = fields.get("content")
        if isinstance(content, str):
            self.tokens += estimate_text(content)
        else:
            for part in _list(content):
                self.part(part)
        if len(fields) > 2:
            for name, value in fields.items():
                if name not in ("role", "content") and value:
                    self.nested(value)

    def part(self, part: Any) -> None:
        if not isinstance(part, dict):
            return self.nested(part)
        fields = cast(Document, part)
        kind = fields.get("type")
        match kind:
            case "text" | "input_text":
                text = fields.get("text")
                if isinstance(text, str):
                    self.tokens += estimate_text(text)
            case "image_url" | "input_image":
                self.found(IMAGE_TOKENS, _address(fields, "image_url"))
                self.image += IMAGE_TOKENS
            case "input_audio":
                data = text_of(object_of(fields.get("input_audio")), "data")
                tokens = audio_tokens(data) if data else FILE_TOKENS
                self.found(tokens, data)
                self.audio += tokens
            case "file" | "input_file":
                data = text_of(object_of(fields.get("file")) or fields, "file_data")
                self.found(file_tokens(data), data)
            case "video_url":
                data = _address(fields, "video_url")
                self.found(max(len(data) // VIDEO_BYTES_PER_TOKEN, FILE_TOKENS), data)
            case _:
                self.nested(fields)

    def found(self, tokens: int, data: str) -> None:
        """Media of so many tokens, whose data stands in the body."""
        self.media += tokens
        self.media_bytes += len(data)

    def value(self, value: Any) -> None:
        """A prompt or input: a text, texts, token numbers, arrays of them, or typed parts."""
        rest = [value]  # not by recursion: JSON may be nested deeper than Python's stack
        while rest:
            value = rest.pop()
            if isinstance(value, str):
                self.tokens += estimate_text(value)
            elif isinstance(value, dict):
                fields = cast(Document, value)
                if "role" in fields and "content" in fields:
                    self.message(fields)
                else:
                    self.part(fields)
            elif items := _list(value):
                if isinstance(items[0], int):
                    self.tokens += len(items)
                else:
                    rest += items

    def nested(self, value: Any) -> None:
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
        self.tokens += tokens


def audio_tokens(data: str) -> int:
    """Tokens of a recording in base64, at most."""
    try:
        head = b64decode(data[:48])
    except (Error, ValueError):
        head = b""
    return held_seconds(head, 0, len(data) * 3 // 4) * HEARD_TOKENS


def file_tokens(data: str) -> int:
    """Tokens of a file in base64, bare or as a `data:` address; flat where only its name is sent."""
    start = data.find(",", 0, 256) + 1 if data.startswith("data:") else 0
    per_token = PDF_BYTES_PER_TOKEN if data.startswith("JVBERi", start) else TEXT_FILE_BYTES_PER_TOKEN
    return min(max(len(data) // per_token, FILE_TOKENS), MOST_FILE_TOKENS)


def _address(part: Document, name: str) -> str:
    """A `data:` address with what it holds; "" for one that only says where to look."""
    value = part.get(name)
    address = value if isinstance(value, str) else text_of(object_of(value), "url")
    return address if address.startswith("data:") else ""


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []
