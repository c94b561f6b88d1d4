"""
Token estimates without a tokenizer: by length and class of characters, so that 400 KB cost microseconds.

They size holds and stand in where an upstream reports no usage; they err on the high side.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ..call import Call
from ..json_shapes import list_of, object_of, text_of
from ..media.recording_length import held_seconds
from ..media.vendor_rules import (
    OTHER_AUDIO,
    PDF_LOOK,
    VIDEO,
    VIDEO_BYTES_PER_TOKEN,
    data_of,
    file_tokens,
    frame_tokens,
    image_part_tokens,
    most_file_tokens,
    most_image_tokens,
    picture_of,
    recording_of,
    rules_for,
)
from .images_and_audio import HEARD_TOKENS, edited_tokens

ASCII_PER_TOKEN = 3.5
"""English runs at about 4.5 characters a token, code and JSON at about 3.5."""
FILE_TOKENS = 4096
"""A file or recording that is only named."""
MESSAGE_TOKENS = 4
MOST_MEASURED = 100
"""Pictures of a request that are measured: they take 2 us each, and 0.3 ms if somebody has made them for that."""
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
HOUR = b'"1h"'
"""The longer life of a prompt in Anthropic's cache, which costs more to write."""
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
    """Short JSON without picture, sound, file or long-lived cache: it goes by its bytes, no need to look inside."""
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
        and b'"video' not in body
        and HOUR not in body
        and b"\\u00" not in body  # any of these, written so that it is not found
    )


def most_sent(call: Call, model: str) -> Sent:
    """
    What a call sends to `model`, at most.

    A body is taken by its bytes, which counts all of its JSON in and so errs on the high side. What is long, or may
    name a picture or a file, is looked into: media is not text, and counts by the rules of the model's vendor. A
    picture that is elsewhere counts as the model's largest; a file, film or recording that is only named counts flat.
    """
    if call.is_form or call.operation.name.startswith("images_"):
        fields = (call.document or {}).values()
        text = sum(estimate_text(each) for each in fields if isinstance(each, str) and not each.startswith("data:"))
        pictures = edited_tokens(call, most=True) if call.operation.name.startswith("images_edits") else 0
        return Sent(text + pictures, media=pictures, image=pictures)
    if is_plain(call):
        return Sent(len(call.body) // BYTES_PER_TOKEN + 1)
    sent = sent_by(call.document or {}, model, most=True)
    text = max(len(call.body) - sent.media_bytes, 0) // BYTES_PER_TOKEN + 1
    return sent._replace(tokens=max(sent.tokens, text + sent.media))


def likely_sent(call: Call, model: str) -> Sent:
    """What a call has probably sent to `model`: never more than was held for it."""
    sent = sent_by(call.document or {}, model)
    if call.body and is_plain(call):
        return sent._replace(tokens=min(sent.tokens, len(call.body) // BYTES_PER_TOKEN + 1))
    return sent


def estimate_input(document: Document) -> int:
    """Input tokens of a request in OpenAI's dialect: all of its text, and media by the rules of the model it names."""
    return sent_by(document, text_of(document, "model")).tokens


def sent_by(document: Document, model: str, *, most: bool = False) -> Sent:
    """What a request in OpenAI's dialect sends to `model`: probably, or at most."""
    count = _Count(model, most)
    count.tokens = 3
    for name, value in document.items():
        match name:
            case "messages":
                for message in list_of(value):
                    count.message(message)
            case "prompt" | "input" | "instructions":
                count.value(value)
            case "tools" | "functions":
                count.tokens += 8 * len(list_of(value))
                count.nested(value)
            case _:
                if (isinstance(value, dict | list) and name not in NOT_READ) or (
                    isinstance(value, str) and len(value) > LONG_FIELD
                ):
                    count.nested(value)
    return Sent(count.tokens + count.media, count.media, count.audio, count.image, count.media_bytes)


class _Count:
    """Tokens as they are found. `tokens` are those of text; `pictures` and `look` what is yet to be looked into."""

    __slots__ = ("audio", "image", "look", "media", "media_bytes", "model", "most", "pictures", "tokens")

    def __init__(self, model: str, most: bool) -> None:
        self.model = model
        self.most = most
        self.pictures, self.look = MOST_MEASURED, PDF_LOOK
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
            for part in list_of(content):
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
                self.picture(fields)
            case "input_audio" | "audio_url":
                self.sound(fields.get(kind))
            case "file" | "input_file":
                self.file(text_of(object_of(fields.get("file")) or fields, "file_data"))
            case "file_url" | "document_url":
                self.file(data_of(fields.get(kind)))
            case "video_url":
                data = data_of(fields.get("video_url"))
                self.found(max(len(data) // VIDEO_BYTES_PER_TOKEN, VIDEO), data)
            case "video":
                self.film(fields.get("video"))
            case _:
                self.nested(fields)

    def picture(self, part: Document) -> None:
        address, detail = picture_of(part)
        here = address.startswith("data:")
        measured = not here or self.pictures > 0
        self.pictures -= here
        if self.most:
            tokens = most_image_tokens(self.model, address, detail, measured=measured)
        else:
            tokens = image_part_tokens(self.model, part, measured=measured)
        self.found(tokens, address if here else "")
        self.image += tokens

    def sound(self, value: Any) -> None:
        data, start = recording_of(value)
        tokens = most_audio_tokens(self.model, data, start) if data else FILE_TOKENS
        tokens = max(tokens, OTHER_AUDIO) if self.most else tokens
        self.found(tokens, data)
        self.audio += tokens

    def film(self, value: Any) -> None:
        frames = list_of(value)
        if not frames:
            return self.found(VIDEO, "")
        each = rules_for(self.model).image.largest() if self.most else frame_tokens(self.model)
        self.found(len(frames) * each, "")
        self.image += len(frames) * each
        self.media_bytes += sum(len(frame) for frame in frames if isinstance(frame, str) and frame.startswith("data:"))

    def file(self, data: str) -> None:
        tokens = most_file_tokens(self.model, data, self.look) if self.most else file_tokens(data)
        self.found(tokens, data)
        self.look = max(self.look - len(data), 0)

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
            elif items := list_of(value):
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


def most_audio_tokens(model: str, data: str, start: int = 0) -> int:
    """Tokens of a recording, at most, whose base64 begins at `start`."""
    try:
        head = b64decode(data[start : start + 48])
    except (Error, ValueError):
        head = b""
    rate = rules_for(model).audio or HEARD_TOKENS
    return held_seconds(head, 0, (len(data) - start) * 3 // 4) * rate
