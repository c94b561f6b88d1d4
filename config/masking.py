"""
What of a channel an upstream may repeat in an error, and nobody is to read there.

Its keys; the values of its `header_override`, but for the headers in `ABOUT_THE_MESSAGE`; and of its `param_override`
the texts whose field is named like a secret (`SECRET_NAME`). Of a header that is named so, or begins with a scheme as
in `Bearer abc...`, each word counts too. What is shorter than 8 characters may stand in any text, and stays.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from .secret import MASK

SHORTEST_MASKED = 8
"""Characters. What is shorter, such as `none`, may stand in any text."""
ABOUT_THE_MESSAGE = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers whose values are no secret, and are what errors speak of."""
SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential|signature|cookie", re.IGNORECASE)
SCHEME = re.compile(r"(?:basic|bearer|key|token)\s", re.IGNORECASE)
PARTED = re.compile(r"[\s:;,=]+|\{api_key\}")
"""What stands between the words of a header's value."""


def secrets_in_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() not in ABOUT_THE_MESSAGE:
            yield value
            if SECRET_NAME.search(name) or SCHEME.match(value):
                yield from PARTED.split(value)


def secrets_in_fields(value: object, *, named: bool = False) -> Iterator[str]:
    """The texts in a JSON value whose field is named like a secret, or lies in one that is."""
    if isinstance(value, str):
        if named:
            yield from value.split()
    elif isinstance(value, Mapping):
        for name, inner in cast(Mapping[Any, object], value).items():
            yield from secrets_in_fields(inner, named=named or SECRET_NAME.search(str(name)) is not None)
    elif isinstance(value, list | tuple):
        for inner in cast(list[object], value):
            yield from secrets_in_fields(inner, named=named)


def masked(text: str, secrets: Iterator[str]) -> str:
    """`text` with the secrets masked that stand in it, also with JSON's escapes in them."""
    # The longest first: one may be a part of another.
    for secret in sorted({each for each in secrets if len(each) >= SHORTEST_MASKED}, key=len, reverse=True):
        text = re.sub(_spellings(secret), MASK, text)
    return text


def _spellings(secret: str) -> str:
    """A pattern for a secret as it is, and as JSON may spell it: with a slash or a plus escaped, for some."""
    return "".join(map(_spelling, secret))


def _spelling(each: str) -> str:
    if each.isascii() and each.isalnum():
        return each
    # What is not ASCII also as its UTF-8 read as Latin-1, as which bytes are searched.
    undecoded = "" if each.isascii() else "|" + re.escape(each.encode("utf-8", "surrogatepass").decode("latin-1"))
    return rf"(?:\\?{re.escape(each)}|\\u(?i:{ord(each):04x}){undecoded})"
