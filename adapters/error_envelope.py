"""A failure in the caller's dialect. OpenAI's error object: platform.openai.com/docs/guides/error-codes."""

import math
from dataclasses import dataclass

import orjson

from .errors import GatewayError, UpstreamError, UpstreamRefused, UpstreamStatus
from .outgoing import Headers


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error ready to be sent."""

    status: int
    headers: Headers
    body: bytes


def error_document(error: GatewayError, request_id: str) -> dict[str, object]:
    """`{"error": {message, type, param, code, request_id}}`."""
    message = error.message
    if isinstance(error, UpstreamRefused) and error.fault != "caller":
        message = "The upstream cannot be reached."  # its address is the operator's business
    return {
        "error": {
            "message": message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
            "request_id": request_id,
        }
    }


def error_answer(error: GatewayError, request_id: str) -> ErrorAnswer:
    """
    A failure before the first byte.

    A refusal that is the caller's own comes back as the upstream wrote it; any other failure of an upstream is told in
    our words, because its text may name the operator's account.
    """
    if isinstance(error, UpstreamStatus) and error.fault == "caller":
        headers = [item for item in error.answer_headers if item[0] != b"content-length"]
        headers.append((b"x-should-retry", b"false"))
        return ErrorAnswer(error.status, _sized(headers, error.answer_body), error.answer_body)
    status = client_status(error)
    body = orjson.dumps(error_document(error, request_id))
    headers: Headers = [(b"content-type", b"application/json"), *error.headers]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    elif isinstance(error, UpstreamError):
        # Every channel that may serve the request has been tried; an SDK's own retries would only repeat that.
        headers.append((b"x-should-retry", b"false"))
    return ErrorAnswer(status, _sized(headers, body), body)


def client_status(error: GatewayError) -> int:
    """
    The status for the client: an upstream's 429, 503 and 504 say the same to it; any other failure of an upstream is a
    502, for a 401 there is about the operator's key and not the client's.
    """
    if isinstance(error, UpstreamStatus) and error.status not in (429, 503, 504):
        return 502
    return error.status


def error_event(error: GatewayError, request_id: str) -> bytes:
    """A failure after the first byte: an event in the stream, which then ends without its end mark."""
    return b"data: " + orjson.dumps(error_document(error, request_id)) + b"\n\n"


def _sized(headers: Headers, body: bytes) -> Headers:
    return [*headers, (b"content-length", b"%d" % len(body))]
