"""
Which texts of a request its model reads, for counting them: nothing here knows a tokenizer.

`prompt_texts` walks the whole document and opens files inside it, so it belongs in a thread. Overheads of a
conversation are those of OpenAI's cookbook ("How to count tokens with tiktoken"): 3 tokens a message, 1 more for a
name, 3 for the start of the reply; tools, whose inner form is not published, count as their JSON.
"""

from binascii import Error, a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import orjson

from ..call import Call
from ..json_shapes import list_of, object_of, text_of
from ..media.recording_length import seconds_in_base64
from ..media.vendor_rules import (
    PDF_LOOK,
    VIDEO,
    VIDEO_BYTES_PER_TOKEN,
    MediaOptions,
    audio_tokens,
    data_of,
    file_tokens,
    frame_tokens,
    image_part_tokens,
    most_file_tokens,
    pdf_pages,
    pdf_start,
    pdf_tokens,
    recording_of,
)
from .token_estimates import LONG_FIELD, NOT_READ

MESSAGE_TOKENS, NAME_TOKENS, REPLY_TOKENS = 3, 1, 3
TOOL_CALL_TOKENS = 7
"""What a model writes around the name and the arguments of a call."""
READ = frozenset({"tools", "functions", "response_format", "prediction"})
"""Fields of a chat request that reach the model, beside its messages; others do when their text is long."""

Document = Mapping[str, Any]


class Counted(NamedTuple):
    """Tokens of a request or an answer: all of them, those of `media`, and of these the ones of sound and pictures."""

    tokens: int
    media: int = 0
    audio: int = 0
    image: int = 0


@dataclass(slots=True)
class Texts:
    """
    Texts that are still to be counted, each by itself, and tokens that are known.

    `fixed` are tokens of the form and numbers sent as tokens; `media` those of pictures, sound and files. The texts are
    `part` of `whole` (bytes, say), where not all were kept.
    """

    texts: list[str] = field(default_factory=list[str])
    fixed: int = 0
    media: int = 0
    audio: int = 0
    image: int = 0
    part: int = 1
    whole: int = 1

    def counted(self, tokens: int) -> Counted:
        """The sum, when the texts have so many tokens."""
        tokens = -(-(tokens + self.fixed) * self.whole // self.part)
        return Counted(tokens + self.media, self.media, self.audio, self.image)


def prompt_texts(call: Call, model: str, options: MediaOptions) -> Texts:
    """What a call of chat, completions, embeddings or moderations sends to `model`."""
    prompt = _Prompt(model, options.measures(call.stream))
    document = call.document or {}
    if call.operation.name == "chat_completions":
        prompt.chat(document)
    else:
        prompt.input(document.get("prompt"))
        prompt.input(document.get("input"))
        prompt.text(document.get("suffix"))
    return prompt.found


class _Prompt:
    """Texts as they are found. Shapes that no vendor takes count as their JSON, or as nothing."""

    def __init__(self, model: str, measured: bool) -> None:
        self.model = model
        self.measured = measured
        self.found = Texts()

    def chat(self, document: Document) -> None:
        self.found.fixed += REPLY_TOKENS
        for message in list_of(document.get("messages")):
            if isinstance(message, dict):
                self.message(cast(Document, message))
        for name, value in document.items():
            if name == "messages" or name in NOT_READ:
                continue
            if name in READ:
                for item in list_of(value) or [value or None]:
                    self.json(item)
            elif len(text := json_text(value)) > LONG_FIELD:
                self.text(text)

    def message(self, message: Document) -> None:
        self.found.fixed += MESSAGE_TOKENS
        for name, value in message.items():
            match name:
                case "content" if isinstance(value, list):
                    self.parts(list_of(cast(object, value)))
                case "tool_calls" if isinstance(value, list):
                    for call in map(object_of, list_of(cast(object, value))):
                        self.tool_call(object_of(call.get("function")) or object_of(call.get("custom")))
                case "function_call" if isinstance(value, dict):
                    self.tool_call(cast(Document, value))
                case "tool_call_id" | "id":
                    pass
                case "name":
                    self.found.fixed += NAME_TOKENS
                    self.json(value)
                case _:
                    self.json(value)

    def tool_call(self, function: Document) -> None:
        self.found.fixed += TOOL_CALL_TOKENS
        for name in ("name", "arguments", "input"):
            self.json(function.get(name))

    def input(self, value: Any) -> None:
        """A prompt or input: a text, texts, token numbers, arrays of them, or typed parts."""
        rest = [value]  # not by recursion: JSON may be nested deeper than Python's stack
        while rest:
            value = rest.pop()
            if isinstance(value, str):
                self.text(value)
            elif isinstance(value, dict):
                self.parts([value])
            elif isinstance(value, list):
                items = cast(list[Any], value)
                if items and all(type(item) is int for item in items):
                    self.found.fixed += len(items)
                else:
                    rest += reversed(items)

    def parts(self, parts: list[Any]) -> None:
        for part in parts:
            if isinstance(part, dict):
                self.part(cast(Document, part))
            else:
                self.json(part)

    def part(self, part: Document) -> None:
        found = self.found
        match part.get("type"):
            case "text" | "input_text" | "output_text":
                self.json(part.get("text"))
            case "refusal":
                self.json(part.get("refusal"))
            case "image_url" | "input_image":
                tokens = image_part_tokens(self.model, part, measured=self.measured)
                found.image += tokens
                found.media += tokens
            case "input_audio" | "audio_url" as kind:
                seconds = seconds_in_base64(*recording_of(part.get(kind)))
                tokens = audio_tokens(self.model, seconds, measured=self.measured)
                found.audio += tokens
                found.media += tokens
            case "file" | "input_file":
                found.media += self.file(text_of(object_of(part.get("file")) or part, "file_data"))
            case "video_url":
                found.media += max(len(data_of(part.get("video_url"))) // VIDEO_BYTES_PER_TOKEN, VIDEO)
            case "file_url" | "document_url" as kind:
                found.media += self.file(data_of(part.get(kind)))
            case "video" if list_of(part.get("video")):
                tokens = frame_tokens(self.model) * len(list_of(part.get("video")))
                found.image += tokens
                found.media += tokens
            case "video":
                found.media += VIDEO
            case _:
                self.json(part)

    def file(self, data: str) -> int:
        start = pdf_start(data)
        if start is None:
            return file_tokens(data)
        try:
            tokens = pdf_tokens(self.model, pdf_pages(a2b_base64(data[start:])))
            return min(tokens, most_file_tokens(self.model, data, PDF_LOOK))  # what was held for it
        except (Error, ValueError):
            return file_tokens(data)

    def json(self, value: Any) -> None:
        """A text as it is, everything else as JSON."""
        if value is not None:
            self.text(json_text(value))

    def text(self, value: Any) -> None:
        if isinstance(value, str) and value:
            self.found.texts.append(value)


def json_text(value: Any) -> str:
    """A text itself; of anything else its JSON. What is nested too deep to be written is only its texts."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return " ".join(strings_in(value))


def strings_in(value: Any) -> list[str]:
    """All texts in a JSON value, names included, in no order that matters."""
    found: list[str] = []
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            fields = cast(dict[str, Any], value)
            found += fields
            rest += fields.values()
        elif isinstance(value, list):
            rest += cast(list[Any], value)
    return found
