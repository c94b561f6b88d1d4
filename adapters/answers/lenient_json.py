"""
JSON as some upstreams write it, for looking at; what is passed on keeps its bytes.

Python's `json.dumps` writes NaN and Infinity (as of a logprob), and half of a surrogate pair as an escape; texts that
were cut between two bytes of a character are no UTF-8. Many clients read all of that, so an answer is not refused for
it. None of it may confuse who counts: numbers that are none become None, and what is no character U+FFFD or `?`.

Grammar that is kept: RFC 8259.
"""

import json
import math
import re
from typing import Any

import orjson

MOST_BYTES = 16 * 1024 * 1024
"""The slow parser would hold up everybody for long with more."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(data: bytes) -> object:
    """The value in `data`. Raises `ValueError` where even a lenient reader finds none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Most of what is no JSON, such as an end mark or a page, does not even begin like an object.
        if not data.lstrip().startswith(b"{") or len(data) > MOST_BYTES:
            raise
    try:
        found = _loads(data.decode("utf-8", "replace"))
        if SURROGATE.search(data):
            found = _loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace").decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_float=_finite, parse_constant=_nothing)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _nothing(_: str) -> None:
    """NaN, Infinity and -Infinity."""
