"""JSON as the TEXT of a column."""

from collections.abc import Mapping
from typing import Any, cast

import orjson


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    raise TypeError(f"{type(value).__name__} is not stored as JSON")


def dump(value: object) -> str:
    """Any mapping, sequence or scalar; whole numbers as keys become strings. A `Secret` is refused."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def load_object(text: str | None) -> dict[str, Any]:
    """A stored object; an empty one for NULL."""
    return {} if text is None else orjson.loads(text)


def load_strings(text: str | None) -> tuple[str, ...] | None:
    """A stored list of strings; None for NULL."""
    return None if text is None else tuple(orjson.loads(text))
