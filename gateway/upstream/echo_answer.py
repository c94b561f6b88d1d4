"""What the built-in upstream answers with, before it is an `Incoming`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

Document = dict[str, Any]

WORD = re.compile(r"\s*\S+|\s+\Z")
"""A piece of a text that streams, with the blanks before it."""


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """`pieces` are what one `read` after the other returns; one piece is an answer that came whole."""

    pieces: tuple[bytes, ...]
    content_type: bytes = b"application/json"
    status: int = 200


def json_answer(document: Document) -> EchoAnswer:
    return EchoAnswer((orjson.dumps(document),))


def events_answer(documents: Iterable[Document]) -> EchoAnswer:
    """Server-sent events, an event a piece, with OpenAI's end mark."""
    events = [b"data: " + orjson.dumps(document) + b"\n\n" for document in documents]
    return EchoAnswer((*events, b"data: [DONE]\n\n"), b"text/event-stream")


def typed_events_answer(documents: Iterable[Document]) -> EchoAnswer:
    """Server-sent events whose `type` is told twice and of which the last is the end, as those of media are."""
    events = (b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in documents)
    return EchoAnswer(tuple(events), b"text/event-stream")


def error_answer(status: int, message: str, code: str) -> EchoAnswer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return EchoAnswer((orjson.dumps({"error": error}),), status=status)
