"""
What an upstream's refusal means: whose fault the failure is, whether another channel may do better, how long to wait.

Rules: a refusal of the request itself (400, 413, 422 ...) is the caller's and comes back as it is; a refusal of the
key (401, 402, 403, 429) is the key's, unless it says that the content was moderated; everything else is the channel's.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson

from ...config.channel import Channel
from ..errors import Fault, UpstreamStatus
from ..outgoing import Headers
from .headers import header, passed_headers
from .sse import BOM

KEY_STATUSES = frozenset({401, 402, 403, 429})
CHANNEL_STATUSES = frozenset({404, 407, 408, 421, 425})
"""4xx that can be the channel's: its timeout, proxy or host; 404 when it misses the model or the API."""
MISSING_MODEL = frozenset({"model_not_found", "DeploymentNotFound", "InvalidModel"})
LONGEST_WAIT = 3600.0

MODERATION_STATUSES = frozenset({400, 403})
MODERATION_MARKS = ("content_policy", "content_filter", "moderation", "flagged", "safety")
MODERATION_METADATA = frozenset({"flagged_input", "reasons"})  # OpenRouter's, with a status of 403
LONGEST_PLAIN_TEXT = 512
"""Bytes. A longer body that is no JSON is a page, or quotes what was sent."""


def refusal(
    channel: Channel, status: int, headers: Headers, body: bytes, *, now: float, request_body: bytes = b""
) -> UpstreamStatus:
    """
    The failure that a status of 300 or more means, after the channel's `status_code_mapping`.

    The body goes on to the client as it is, except that secrets of the channel which it quotes are masked: its keys,
    and those in its overrides. `now` is seconds since the epoch, for `Retry-After` dates; `request_body` is what was
    refused.
    """
    upstream_status = status
    status = channel.status_code_mapping.get(status, status)
    fault = _fault(status, body)
    return UpstreamStatus(
        f"The upstream answered with status {upstream_status}.",
        status=status,
        answer_headers=tuple(passed_headers(headers)),
        answer_body=channel.bytes_without_secrets(body),
        retryable=fault != "caller",
        fault=fault,
        retry_after=retry_after(headers, now=now),
        request_body=request_body,
    )


def _fault(status: int, body: bytes) -> Fault:
    if status in MODERATION_STATUSES and _is_moderated(body):
        return "caller"
    if status in KEY_STATUSES:
        return "key"
    if not 400 <= status < 500 or (status in CHANNEL_STATUSES and (status != 404 or _misses_model(body))):
        return "channel"
    return "caller"


def _is_moderated(body: bytes) -> bool:
    """Whether the upstream refuses what the caller has written, not the key it came with."""
    error = error_object(body)
    if error is None:
        return False
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and not MODERATION_METADATA.isdisjoint(cast(dict[str, object], metadata)):
        return True
    names = [name.lower() for name in (error.get("code"), error.get("type")) if isinstance(name, str)]
    return any(mark in name for name in names for mark in MODERATION_MARKS)


def _misses_model(body: bytes) -> bool:
    error = error_object(body)
    if error is None:  # no answer of a vendor's API: a wrong base URL, or a page of something in between
        return True
    code = error.get("code")
    return isinstance(code, str) and code in MISSING_MODEL


def error_object(body: bytes) -> Mapping[str, Any] | None:
    """OpenAI's `error` object in an answer, or None."""
    try:
        document = orjson.loads(body.removeprefix(BOM))
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
    """
    Whether a refusal says that the key itself is dead: status 401, or one of the keywords (lower case).

    Only the upstream's own words count: its error's message, code and type, and of those no keyword that the refused
    request holds too. A refusal may quote its request, and no caller shall disable a key by what it asks.
    """
    if failure.fault == "caller":
        return False
    if failure.status == 401:
        return True
    text = _folded(_own_words(failure.answer_body))
    found = [keyword for keyword in map(_folded, keywords) if keyword in text]
    if not found:
        return False
    asked = _folded(" ".join(_texts(failure.request_body)))
    return any(keyword not in asked for keyword in found)


def _own_words(body: bytes) -> str:
    """What an upstream says went wrong: the fields of its error, or all of a body that is short and no JSON."""
    try:
        document: object = orjson.loads(body.removeprefix(BOM))
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace") if len(body) <= LONGEST_PLAIN_TEXT else ""
    if isinstance(document, list) and document:  # Google's wraps its error in a list
        document = cast(list[object], document)[0]
    if not isinstance(document, dict):
        return ""
    error: object = cast(dict[str, object], document).get("error", cast(object, document))
    if isinstance(error, dict):  # without an `error`, as at AWS, the document itself is one
        fields = cast(dict[str, object], error)
        error = "\n".join(text for text in map(fields.get, ("message", "code", "type")) if isinstance(text, str))
    return error if isinstance(error, str) else ""


def _texts(body: bytes) -> Iterator[str]:
    """Every text in a JSON body with its escapes undone, or the body itself where it is no JSON."""
    try:
        rest: list[object] = [orjson.loads(body)]
    except orjson.JSONDecodeError:
        yield body.decode("utf-8", "replace")
        return
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            rest += (part for pair in cast(dict[str, object], value).items() for part in reversed(pair))
        elif isinstance(value, list):
            rest += reversed(cast(list[object], value))


def _folded(text: str) -> str:
    """Without case, and with one blank for any."""
    return " ".join(text.lower().split())
