"""The headers of an upstream's answer: one by its name, and those that a client may see."""

from collections.abc import Iterable

from ..outgoing import Headers

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
