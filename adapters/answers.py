"""
What an upstream's answer means: whose fault a failure is, whether another channel may do better, how long to wait.

Rules: a refusal of the request itself (400, 413, 422 ...) is the caller's and comes back as it is; a refusal of the
key (401, 402, 403, 429) is the key's; everything else is the channel's.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson

from ..config.channel import Channel
from .errors import Fault, UpstreamStatus
from .outgoing import Headers

KEY_STATUSES = frozenset({401, 402, 403, 429})
CHANNEL_STATUSES = frozenset({404, 407, 408, 421, 425})
"""4xx that can be the channel's: its timeout, proxy or host; 404 when it misses the model or the API."""
MISSING_MODEL = frozenset({"model_not_found", "DeploymentNotFound", "InvalidModel"})
LONGEST_WAIT = 3600.0

# Only these go on to clients: an upstream's cookies, CORS rules, organisation ids and limits are not ours to show.
PASSED_HEADERS = frozenset(
    {
        b"content-type",
        b"content-disposition",
        b"content-language",
        b"openai-version",
        b"openai-model",
        b"openai-processing-ms",
    }
)


def passed_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The upstream's headers that a client may see."""
    return [header for header in headers if header[0] in PASSED_HEADERS]


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first value of a header (lower-case name), or b""."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def refusal(channel: Channel, status: int, headers: Headers, body: bytes, *, now: float) -> UpstreamStatus:
    """
    The failure that a status of 300 or more means, after the channel's `status_code_mapping`.

    `now` is seconds since the epoch, for `Retry-After` dates.
    """
    upstream_status = status
    status = channel.status_code_mapping.get(status, status)
    fault = _fault(status, body)
    return UpstreamStatus(
        f"The upstream answered with status {upstream_status}.",
        status=status,
        answer_headers=tuple(passed_headers(headers)),
        answer_body=body,
        retryable=fault != "caller",
        fault=fault,
        retry_after=retry_after(headers, now=now),
    )


def _fault(status: int, body: bytes) -> Fault:
    if status in KEY_STATUSES:
        return "key"
    if not 400 <= status < 500 or (status in CHANNEL_STATUSES and (status != 404 or _misses_model(body))):
        return "channel"
    return "caller"


def _misses_model(body: bytes) -> bool:
    error = error_object(body)
    if error is None:  # no answer of a vendor's API: a wrong base URL, or a page of something in between
        return True
    code = error.get("code")
    return isinstance(code, str) and code in MISSING_MODEL


def error_object(body: bytes) -> Mapping[str, Any] | None:
    """OpenAI's `error` object in an answer, or None."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = cast(dict[str, Any], document).get("error") if isinstance(document, dict) else None
    return cast(dict[str, Any], error) if isinstance(error, dict) else None


def retry_after(headers: Headers, *, now: float) -> float | None:
    """
    Seconds to wait, at most an hour; None if the upstream does not say, or not readably.

    From `retry-after-ms` (OpenAI) or `Retry-After` (RFC 9110, 10.2.3).
    """
    wait = _number(header(headers, b"retry-after-ms"))
    if wait is not None:
        wait /= 1000
    elif text := header(headers, b"retry-after"):
        wait = _number(text)
        if wait is None:
            wait = _seconds_until(text.decode("latin-1"), now)
    return None if wait is None else min(max(wait, 0.0), LONGEST_WAIT)


def _number(text: bytes) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _seconds_until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        # RFC 9110's oldest form of a date names no zone, and means UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def key_is_dead(failure: UpstreamStatus, keywords: tuple[str, ...]) -> bool:
    """Whether a refusal says that the key itself is dead: status 401, or one of the keywords (lower case)."""
    if failure.fault == "caller":
        return False
    text = failure.answer_body[:16384].decode("utf-8", "replace").lower()
    return failure.status == 401 or any(keyword in text for keyword in keywords)
