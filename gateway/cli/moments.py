"""Times as arguments: a date of the calendar, or a span from now, back or ahead."""

import re
import time
from argparse import ArgumentTypeError
from datetime import UTC, datetime

SPAN = re.compile(r"(\d{1,9})([smhd])")
UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LAST_MS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000


def now_ms() -> int:
    return int(time.time() * 1000)


def past(text: str) -> int:
    """A time, or how long ago (30m, 2h, 7d), as milliseconds since the epoch."""
    span = _span_ms(text)
    return _moment(text) if span is None else max(0, now_ms() - span)


def future(text: str) -> int:
    """A time, or how long until then (30m, 2h, 7d), as milliseconds since the epoch."""
    span = _span_ms(text)
    return _moment(text) if span is None else min(LAST_MS, now_ms() + span)


def _span_ms(text: str) -> int | None:
    found = SPAN.fullmatch(text)
    return None if found is None else int(found[1]) * UNIT_MS[found[2]]


def _moment(text: str) -> int:
    """An ISO 8601 date or time; UTC unless it names an offset."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a time such as 2027-01-31T18:00:00Z, or 30m, 2h, 7d, not {text!r}") from None
    try:
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    except (OverflowError, ValueError):
        raise ArgumentTypeError(f"must be a time that a calendar has, not {text!r}") from None
