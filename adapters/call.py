"""What a client asks for: its request, read and checked once, in the caller's own bytes."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .json_shapes import EMPTY, object_of
from .operations import Operation


class Call(Struct, frozen=True):
    """
    One request.

    `model` is the name as the client sent it, `base_model` the same without a suffix such as `-high`, which has become
    `effort`. `document` is the parsed JSON body (or the text fields of a form); `body` its bytes as they came.
    `output_limit` is the caller's own limit of output tokens for one choice, or None. `headers` are the caller's own
    headers that go upstream. `model_span` is where the model's name stands in a form's bytes. `query` is the query
    string without its `?`.
    """

    operation: Operation
    model: str
    base_model: str
    stream: bool = False
    body: bytes = b""
    content_type: bytes = b""
    document: Mapping[str, Any] | None = None
    output_limit: int | None = None
    choices: int = 1
    effort: str | None = None
    query: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    model_span: tuple[int, int] | None = None

    @property
    def is_form(self) -> bool:
        return self.content_type[:10].lower() == b"multipart/"

    @property
    def asked_for_usage(self) -> bool:
        """The client itself wants the usage chunk of its stream."""
        return object_of((self.document or EMPTY).get("stream_options")).get("include_usage") is True
