"""
The upstream that needs no network: it answers in OpenAI's shapes, streams, and reports usage.

It is what a channel of type Echo points at: for a first look, for demonstrations, for testing clients without cost.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from ...adapters.errors import BadRequest
from ...adapters.outgoing import Headers, Outgoing
from ...adapters.requests.multipart_form import read_form
from . import echo_media, echo_text
from .echo_answer import Document, EchoAnswer, error_answer, json_answer
from .port import Incoming, OnSent, Timeouts

Handler = Callable[[Document, int], EchoAnswer]

HANDLERS: Mapping[str, Handler] = {
    "/v1/chat/completions": echo_text.chat,
    "/v1/completions": echo_text.completion,
    "/v1/embeddings": echo_media.embeddings,
    "/v1/moderations": echo_media.moderations,
    "/v1/images/generations": echo_media.images,
    "/v1/images/edits": partial(echo_media.images, of="image_edit"),
    "/v1/images/variations": echo_media.images,
    "/v1/audio/speech": echo_media.speech,
}
TRANSCRIPTS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})


class EchoUpstream:
    """
    An `Upstream`. It dispatches on the URL's path; the host does not matter.

    Faults of the request are answers (400, 404), as a real one's are.
    """

    async def send(self, outgoing: Outgoing, timeouts: Timeouts, on_sent: OnSent | None = None) -> Incoming:
        if on_sent is not None:
            on_sent()
        return EchoIncoming(_answer(outgoing))

    async def close(self) -> None:
        """There is nothing to close."""


class EchoIncoming:
    """An answer out of memory, a piece a read."""

    def __init__(self, answer: EchoAnswer) -> None:
        self.status = answer.status
        self.headers: Headers = [(b"content-type", answer.content_type)]
        self._pieces = list(reversed(answer.pieces))

    @property
    def complete(self) -> bool:
        return len(self._pieces) <= 1

    async def read(self) -> bytes:
        if not self._pieces:
            return b""
        if len(self._pieces) > 1:
            # A stream lets others have their turn between its events, as one from a socket does.
            await asyncio.sleep(0)
        return self._pieces.pop()

    def close(self) -> None:
        self._pieces.clear()


def _answer(outgoing: Outgoing) -> EchoAnswer:
    path = urlsplit(outgoing.url).path
    if outgoing.method == "GET" and path == "/v1/models":
        model = {"id": "echo", "object": "model", "created": 0, "owned_by": "tollway"}
        return json_answer({"object": "list", "data": [model]})
    handler = HANDLERS.get(path)
    if outgoing.method != "POST" or (handler is None and path not in TRANSCRIPTS):
        return error_answer(404, f"Unknown request URL: {outgoing.method} {path}.", "unknown_url")
    content_type = next((value for name, value in outgoing.headers if name == b"content-type"), b"")
    if content_type.startswith(b"multipart/"):
        try:
            form = read_form(outgoing.body, content_type)
        except BadRequest as error:
            return error_answer(400, error.message, error.code)
        if handler is None:
            return echo_media.transcript(form.fields, form.files)
        return handler(dict(form.fields), int(time.time()))
    document = _json_object(outgoing.body)
    if document is None or handler is None:
        return error_answer(400, "The body is not what this URL takes.", "invalid_body")
    return handler(document, int(time.time()))


def _json_object(body: bytes) -> Document | None:
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return cast(Document, document) if isinstance(document, dict) else None
