"""Reads the request's body: once, within bounds, and checked as far as the gateway must rely on it."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.call import Call
from ..adapters.errors import BadRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from ..adapters.operations import MAX_CHOICES, Operation
from ..adapters.requests.json_splice import check_duplicates, only_string
from ..adapters.requests.multipart_form import read_form
from ..adapters.requests.output_limit import limit_of
from ..config.channel import LONGEST_MODEL
from .deadline import Deadline
from .paths import relayed_operation
from .state import state_of

JSON, FORM = b"application/json", b"multipart/form-data"
MOST_FIELDS = 1000
MOST_CONTAINERS = 250_000
"""Arrays and objects of a body. Millions, which fit into some megabytes, would hold up everybody for a second."""

ABOUT_THE_BODY = frozenset({b"content-type", b"content-length", b"content-encoding"})
FORWARDED = frozenset({b"accept", b"openai-beta", b"x-stainless-helper-method"})
"""The caller's headers that go upstream: the answer depends on them. The rest is about the caller."""
MOST_FORWARDED = 1024
"""Bytes of each. An upstream that hangs up on endless headers would look ill for one caller's doing."""

WEIGHTY = {
    name: b'"%b"' % name.encode()
    for name in (
        "model",
        "messages",
        "input",
        "prompt",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "best_of",
        "size",
        "quality",
        "service_tier",
        "models",
        "fallbacks",
    )
}
"""The fields that decide what is asked and what it costs, as they are spelled in JSON: each must stand once."""


class IntakeMiddleware:
    """
    Read and check the request, and write `call`.

    Raises 413 for a body above `max_bytes` (without reading on), 415 for a wrong media type or content coding, 400 with
    `param` for everything else that is wrong with it, 408 when it takes longer than `body_timeout` seconds. Requests
    for paths that are no operation pass untouched. The app inside can read the body as usual; one that came compressed
    is plain to it, and its headers say so.

    Place it inside rate_limit, outside everything that reads `call`.

        app = IntakeMiddleware(app, max_bytes=4 * 1024 * 1024)
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int = 32 * 1024 * 1024, body_timeout: float = 120.0) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.deadline = Deadline(body_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        operation = relayed_operation(scope)
        if operation is None:
            return await self.app(scope, receive, send)
        about, forwarded = read_headers(scope["headers"])
        content_type = about.get(b"content-type", b"")
        if content_type != JSON or operation.body == "form":
            check_media_type(operation, content_type)
        body = await self._read(about, receive)
        if body is None:  # the client left while sending: there is nobody to answer
            return
        coding = about.get(b"content-encoding", b"").strip().lower()
        if coding not in (b"", b"identity"):
            body = self._decoded(body, coding)
            # A copy: layers outside go on with what the client has sent.
            scope = {**scope, "headers": of_plain_body(scope["headers"], len(body))}
        query = scope.get("query_string", b"").decode("latin-1")
        state_of(scope).call = read_call(operation, body, content_type, forwarded, query)
        await self.app(scope, replay(body, receive), send)

    async def _read(self, about: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
        declared = about.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.max_bytes:
            raise self._too_large()
        try:
            return await self.deadline.within(self._read_to_end(receive))
        except TimeoutError:
            raise RequestTimeout(
                f"The body did not arrive within {self.deadline.seconds:g} s.", headers=((b"connection", b"close"),)
            ) from None

    async def _read_to_end(self, receive: Receive) -> bytes | None:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self.max_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decoded(self, body: bytes, coding: bytes) -> bytes:
        if coding not in (b"gzip", b"deflate"):
            raise UnsupportedMediaType("The body's Content-Encoding must be gzip, deflate or none.")
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            decoded = decoder.decompress(body, self.max_bytes + 1)
        except zlib.error:
            raise BadRequest("The body cannot be decompressed.", code="invalid_body") from None
        if len(decoded) > self.max_bytes:
            raise self._too_large()
        if not decoder.eof:
            raise BadRequest("The compressed body ends too early.", code="invalid_body")
        return decoded

    def _too_large(self) -> PayloadTooLarge:
        # The rest of the body is not wanted, so the connection cannot be used again.
        return PayloadTooLarge(
            f"The body is larger than {self.max_bytes // (1024 * 1024)} MiB."
            if self.max_bytes >= 1 << 20
            else f"The body is larger than {self.max_bytes} bytes.",
            headers=((b"connection", b"close"),),
        )


def read_headers(headers: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], tuple[tuple[bytes, bytes], ...]]:
    """The headers about the body, and those that go on. Raises `BadRequest` when the latter are out of proportion."""
    about: dict[bytes, bytes] = {}
    forwarded: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in ABOUT_THE_BODY:
            about.setdefault(name, value)
        elif name in FORWARDED and value:
            if name in forwarded:
                value = forwarded[name] + b", " + value
            if len(value) > MOST_FORWARDED:
                raise BadRequest(f"The header {name.decode()} is too long.", param=name.decode(), code="invalid_header")
            forwarded[name] = value
    return about, tuple(forwarded.items())


def check_media_type(operation: Operation, content_type: bytes) -> None:
    kind = content_type.partition(b";")[0].strip().lower()
    wanted = {"json": (JSON,), "form": (FORM,), "either": (JSON, FORM)}.get(operation.body, ())
    if kind not in wanted:
        words = " or ".join(each.decode() for each in wanted)
        raise UnsupportedMediaType(f"The Content-Type must be {words}.", param="content-type")


def read_call(
    operation: Operation, body: bytes, content_type: bytes, forwarded: tuple[tuple[bytes, bytes], ...], query: str
) -> Call:
    """The call in a whole body. Raises `BadRequest`."""
    if content_type[:10].lower() == b"multipart/":
        return read_form_call(operation, body, content_type, forwarded, query)
    document = read_document(body)
    check_duplicates(body, document, WEIGHTY)
    model = model_of(document, operation)
    if operation.check is not None:
        operation.check(document)
    return Call(
        operation,
        model,
        model,
        stream=document.get("stream") is True,
        body=body,
        # Read as UTF-8, whatever charset the caller made up: the upstream must not read another body than we did.
        content_type=JSON,
        document=document,
        output_limit=limit_of(document),
        choices=document.get("n") or 1,
        query=query,
        headers=forwarded,
        model_span=only_string(body, "model", model),
    )


def read_form_call(
    operation: Operation, body: bytes, content_type: bytes, forwarded: tuple[tuple[bytes, bytes], ...], query: str
) -> Call:
    form = read_form(body, content_type)
    model = model_of(form.fields, operation)
    wanted = "image" if operation.name.startswith("images_") else "file"
    if not any(name in (wanted, f"{wanted}[]") or name.startswith(f"{wanted}[") for name in form.files):
        raise BadRequest(f"{wanted} is required, as a file.", param=wanted, code="missing_required_parameter")
    choices = form.fields.get("n", "1")
    if not choices.isdecimal() or len(choices) > 6 or not 1 <= int(choices) <= MAX_CHOICES:
        raise BadRequest(f"n must lie between 1 and {MAX_CHOICES}.", param="n", code="invalid_value")
    return Call(
        operation,
        model,
        model,
        stream=form.fields.get("stream", "").lower() == "true",
        body=body,
        content_type=content_type,
        document=form.fields,
        choices=int(choices),
        query=query,
        headers=forwarded,
        model_span=form.spans.get("model"),
    )


def read_document(body: bytes) -> Mapping[str, Any]:
    """
    The JSON object in a body. Raises `BadRequest`, also beyond `MOST_FIELDS` and `MOST_CONTAINERS`; orjson refuses what
    is nested deeper than 1,024 levels.
    """
    # Brackets in texts count too: so many of them are in no conversation. A shorter body cannot hold more.
    if len(body) > 2 * MOST_CONTAINERS and body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise BadRequest(f"The body has more than {MOST_CONTAINERS} arrays and objects.", code="invalid_json")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Its older versions say "Recursion limit reached", the newer "depth limit exceeded".
        problem = "nested too deeply" if " limit " in str(error) else f"not valid JSON: {error}"
        raise BadRequest(f"The body is {problem}.", code="invalid_json") from None
    if not isinstance(document, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    found = cast(Mapping[str, Any], document)
    if len(found) > MOST_FIELDS:
        raise BadRequest(f"The body has more than {MOST_FIELDS} fields.", code="invalid_json")
    return found


def model_of(document: Mapping[str, Any], operation: Operation) -> str:
    model = document.get("model")
    if model is None:
        model = operation.default_model
    if not isinstance(model, str):
        raise BadRequest("model must be a string.", param="model", code="invalid_type")
    if not model:
        raise BadRequest("model is required.", param="model", code="missing_required_parameter")
    if len(model) > LONGEST_MODEL:
        raise BadRequest(
            f"model must not be longer than {LONGEST_MODEL} characters.", param="model", code="invalid_value"
        )
    return model


def of_plain_body(headers: Iterable[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    """The headers of a body that was compressed and is not any more; its size is in bytes."""
    framing = (b"content-encoding", b"content-length", b"transfer-encoding")
    return [*(header for header in headers if header[0] not in framing), (b"content-length", b"%d" % size)]


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body again, once, and then whatever the client does next."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
