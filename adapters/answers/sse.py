"""
The framing of a stream of events, cut without being changed: joined again, the pieces are the same bytes.

Source: the HTML standard, "Server-sent events".
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

from .lenient_json import read_json

BOM = b"\xef\xbb\xbf"
"""A byte order mark, which may stand before the first event."""
BLANK_LINE = re.compile(rb"\n\r?\n")

Document = Mapping[str, Any]


def has_done(data: bytes) -> bool:
    """
    Whether the end mark stands in whole events.

    At the beginning of a line only: inside an event's JSON a line break is escaped, so no model can write an end mark.
    """
    at = data.rfind(b"[DONE]")
    while at >= 0:
        for name in (b"data: ", b"data:"):
            start = at - len(name)
            if data.startswith(name, max(start, 0)) and (start == 0 or data[start - 1 : start] == b"\n"):
                return True
        at = data.rfind(b"[DONE]", 0, at)
    return False


def end_of_events(data: bytes | bytearray, searched: int = 0) -> int:
    """Where the last complete event of `data` ends; 0 when none ends beyond the first `searched` bytes."""
    start = max(searched, 0)
    plain, returned = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start)
    return max(plain + 2 if plain >= 0 else 0, returned + 3 if returned >= 0 else 0)


def split_events(data: bytes) -> list[bytes]:
    """`data` cut after each blank line; joined again it is the same bytes."""
    if b"\n\r\n" in data:
        ends = [0, *(match.end() for match in BLANK_LINE.finditer(data)), len(data)]
        return [data[start:end] for start, end in pairwise(ends) if start < end]
    pieces = data.split(b"\n\n")
    events = [piece + b"\n\n" for piece in pieces[:-1]]
    return [*events, pieces[-1]] if pieces[-1] else events


def event_document(event: bytes) -> Document | None:
    """The JSON object that one event carries; None for comments, end marks and anything else."""
    lines = [line[5:].strip() for line in event.removeprefix(BOM).splitlines() if line.startswith(b"data:")]
    if not lines:
        return None
    try:
        document = read_json(b"\n".join(lines))
    except ValueError:
        return None
    return cast(Document, document) if isinstance(document, dict) else None


def first_document(data: bytes) -> Document | None:
    """The JSON object of the first event that carries one."""
    start = 0
    while start < len(data):
        end = BLANK_LINE.search(data, start)
        cut = end.end() if end else len(data)
        document = event_document(data[start:cut])
        if document is not None:
            return document
        start = cut
    return None


def has_event(data: bytes) -> bool:
    """Whether there is an event with data, not only comments that keep a connection alive."""
    return data.startswith((b"data:", BOM + b"data:")) or b"\ndata:" in data
