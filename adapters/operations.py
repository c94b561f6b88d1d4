"""
Operations: what a client can ask for, a row each.

A row says where the model's name stands, what a well-formed request holds, and how its answer ends. Paths and fields:
OpenAI's API reference (platform.openai.com/docs/api-reference).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from .errors import BadRequest
from .json_shapes import list_of, object_of

Dialect = Literal["openai_chat", "openai"]
"""Whose wire form a caller speaks. Conversations can be converted; the others of OpenAI's operations are relayed."""

BodyKind = Literal["json", "form", "either", "none"]
Document = Mapping[str, Any]
Check = Callable[[Document], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One row.

    `default_model` is what an absent name means (OpenAI's documented default), "" where the name is required. `check`
    raises `BadRequest` for what the gateway itself must rely on; everything else is the upstream's to judge. `ends`:
    types of events that end a stream, beside `data: [DONE]`, which ends any. `relayed` is False where the gateway
    answers itself. `media`: the answer may be something else than JSON or events (sound, text).
    """

    name: str
    method: str
    path: str
    dialect: Dialect = "openai"
    body: BodyKind = "json"
    default_model: str = ""
    check: Check | None = None
    ends: tuple[str, ...] = ()
    media: bool = False
    relayed: bool = True
    generates: bool = False
    """It writes tokens whose number the caller can limit, and that must be covered before the upstream is asked."""
    holds: str = ""
    """The list that each whole answer in JSON has; "" where vendors differ."""
    asks_usage: bool = False
    """A stream of this operation reports usage only when `stream_options.include_usage` asks for it."""


def want(document: Document, name: str, kind: type | tuple[type, ...], words: str) -> Any:
    """The field, or None if absent. Raises `BadRequest` when it is of another type (true is not a number)."""
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadRequest(f"{name} must be {words}.", param=name, code="invalid_type")
    return value


def require(document: Document, name: str) -> Any:
    """The field. Raises `BadRequest` when it is absent or null."""
    value = document.get(name)
    if value is None:
        raise BadRequest(f"{name} is required.", param=name, code="missing_required_parameter")
    return value


MAX_TOKENS = 1_073_741_823
MAX_CHOICES = 128
MAX_ITEMS = 100_000
"""Messages, their parts, or inputs of one request: while they are looked at nobody else is served."""


def whole_number(document: Document, name: str, low: int, high: int) -> int | None:
    value = want(document, name, int, "a whole number")
    if value is not None and not low <= value <= high:
        raise BadRequest(f"{name} must lie between {low} and {high}.", param=name, code="invalid_value")
    return value


def check_length(document: Document, name: str) -> None:
    """Raise `BadRequest` when a field holds more than `MAX_ITEMS`; the numbers of a prompt in tokens do not count."""
    value = document.get(name)
    items = cast("list[object]", value) if isinstance(value, list) else []
    if len(items) > MAX_ITEMS and sum(type(item) is not int for item in items) > MAX_ITEMS:
        raise BadRequest(f"{name} must not hold more than {MAX_ITEMS} items.", param=name, code="invalid_value")


def check_generation(document: Document) -> None:
    want(document, "stream", bool, "true or false")
    whole_number(document, "max_tokens", 0, MAX_TOKENS)
    whole_number(document, "max_completion_tokens", 0, MAX_TOKENS)
    whole_number(document, "n", 1, MAX_CHOICES)
    options = want(document, "stream_options", dict, "an object")
    if options is not None:
        want(options, "include_usage", bool, "true or false")


def check_chat(document: Document) -> None:
    require(document, "messages")
    messages = want(document, "messages", list, "an array")
    if not messages:
        raise BadRequest("messages must hold at least one message.", param="messages", code="empty_array")
    check_length(document, "messages")
    check_length(document, "tools")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(f"messages[{index}] must be an object.", param=f"messages[{index}]", code="invalid_type")
    parts = sum(len(list_of(object_of(message).get("content"))) for message in messages)
    if parts > MAX_ITEMS:
        raise BadRequest(f"messages must not hold more than {MAX_ITEMS} parts.", param="messages", code="invalid_value")
    check_generation(document)


def check_completion(document: Document) -> None:
    require(document, "prompt")
    want(document, "prompt", (str, list), "a string or an array")
    check_length(document, "prompt")
    whole_number(document, "best_of", 1, MAX_CHOICES)
    check_generation(document)


def check_input(document: Document) -> None:
    require(document, "input")
    want(document, "input", (str, list), "a string or an array")
    check_length(document, "input")


def check_image(document: Document) -> None:
    require(document, "prompt")
    want(document, "prompt", str, "a string")
    want(document, "stream", bool, "true or false")
    whole_number(document, "n", 1, MAX_CHOICES)


def check_speech(document: Document) -> None:
    require(document, "input")
    want(document, "input", str, "a string")


IMAGE_ENDS = ("image_generation.completed", "image_edit.completed")
SPEECH_ENDS = ("speech.audio.done",)
TRANSCRIPT_ENDS = ("transcript.text.done",)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "chat_completions",
        "POST",
        "/v1/chat/completions",
        "openai_chat",
        check=check_chat,
        generates=True,
        holds="choices",
        asks_usage=True,
    ),
    Operation(
        "completions",
        "POST",
        "/v1/completions",
        check=check_completion,
        generates=True,
        holds="choices",
        asks_usage=True,
    ),
    Operation("embeddings", "POST", "/v1/embeddings", check=check_input, holds="data"),
    Operation("moderations", "POST", "/v1/moderations", default_model="omni-moderation-latest", check=check_input),
    Operation(
        "images_generations",
        "POST",
        "/v1/images/generations",
        default_model="dall-e-2",
        check=check_image,
        ends=IMAGE_ENDS,
        generates=True,
    ),
    Operation(
        "images_edits",
        "POST",
        "/v1/images/edits",
        body="either",
        default_model="dall-e-2",
        check=check_image,
        ends=IMAGE_ENDS,
        generates=True,
    ),
    Operation("images_variations", "POST", "/v1/images/variations", body="form", default_model="dall-e-2"),
    Operation("audio_speech", "POST", "/v1/audio/speech", check=check_speech, ends=SPEECH_ENDS, media=True),
    Operation(
        "audio_transcriptions", "POST", "/v1/audio/transcriptions", body="form", ends=TRANSCRIPT_ENDS, media=True
    ),
    Operation("audio_translations", "POST", "/v1/audio/translations", body="form", media=True),
    Operation("models_list", "GET", "/v1/models", body="none", relayed=False),
    Operation("models_get", "GET", "/v1/models/{model}", body="none", relayed=False),
)

BY_PATH: Mapping[str, Operation] = {operation.path: operation for operation in OPERATIONS if "{" not in operation.path}
MODEL_GET = next(operation for operation in OPERATIONS if operation.name == "models_get")
MODEL_PREFIX = "/v1/models/"


def operation_at(path: str) -> Operation | None:
    """The operation of a path (without the mount's prefix), whatever the method; None for an unknown path."""
    found = BY_PATH.get(path)
    if found is None and path.startswith(MODEL_PREFIX) and len(path) > len(MODEL_PREFIX):
        return MODEL_GET
    return found
