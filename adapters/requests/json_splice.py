"""
Edit top-level fields in the bytes of a JSON object, and leave every other byte as it came.

A body that is decoded and encoded again loses key order, number spelling and escapes, and with them signatures and
prompt caches. Grammar: RFC 8259.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from ..errors import BadRequest

# Possessive throughout: a string of a million escapes costs one pass and no memory.
SPACE = rb"[ \t\r\n]*+"
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
KEY = re.compile(rb"%b(%b)%b:%b" % (SPACE, STRING, SPACE, SPACE), re.DOTALL)
FIELD_END = re.compile(rb"%b[,}]" % SPACE)

# Finds where each value ends without making objects of what is inside, at a gigabyte a second.
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

Span = tuple[int, int]


class Field(NamedTuple):
    """Where a field stands: its key's first byte, its value's first byte, and the byte behind its value."""

    key: int
    value: int
    end: int


class Duplicate(BadRequest):
    """A field stands twice: which one counts is anybody's guess, so neither does."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} stands more than once in the body.", param=name, code="duplicate_parameter")


def check_duplicates(body: bytes, document: Mapping[str, Any], names: Mapping[str, bytes]) -> None:
    """
    Raise `Duplicate` if one of these top-level fields stands twice in a body, which parses to `document`, or stands
    there in capitals: Go's servers take `Model` for `model`, and the last one counts.

    `names` are field names in lower case, each with its plain spelling in JSON: `{"model": b'"model"'}`. Where one has
    to be looked for, a field of any other name that stands twice is refused as well.

    A body that is what its document is written as again has no field twice: one comparison settles nearly every one
    that an SDK sends. Else, a key that is spelled without escapes and occurs once in all the bytes is no duplicate.
    """
    keys = "".join(document)
    if not (keys.islower() and keys.isascii()):
        _check_capitals(document, names)
    if _is_compact(body, document):
        return
    if b"\\u00" in body:
        fields_of(body)
        return
    for name in names.keys() & document.keys():
        if body.count(names[name]) > 1:
            fields_of(body)
            return


def _is_compact(body: bytes, document: Mapping[str, Any]) -> bool:
    try:
        return orjson.dumps(document) == body
    except orjson.JSONEncodeError:  # it writes no more than 254 levels, and reads 1,024
        return False


def _check_capitals(document: Mapping[str, Any], names: Collection[str]) -> None:
    for key in document:
        # Case folding takes in the two letters beyond ASCII that Go holds for an s and a k.
        if key not in names and (name := key.casefold()) in names:
            raise Duplicate(name)


def fields_of(body: bytes) -> dict[str, Field]:
    """
    Where each top-level field stands, in the order of the body, which is a valid JSON object.

    Raises `Duplicate` when any name stands twice, and `BadRequest` when the body is nested deeper than the parser goes.
    """
    try:
        values = FIELDS.decode(body)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.", code="invalid_json") from None
    fields: dict[str, Field] = {}
    view = memoryview(body)
    at = body.index(b"{") + 1
    for name, value in values.items():
        key = _key_at(body, at)
        if key.name != name:
            raise Duplicate(key.name)
        end = key.end + len(memoryview(value))
        behind = FIELD_END.match(body, end)
        # Of two fields with one name the parser keeps the last value, which is then not the one that stands here.
        if behind is None or msgspec.Raw(view[key.end : end]) != value:
            raise Duplicate(name)
        fields[name] = Field(key.start, key.end, end)
        at = behind.end()
    if body[at - 1 : at] == b",":
        raise Duplicate(_key_at(body, at).name)
    return fields


class _Key(NamedTuple):
    name: str
    start: int
    end: int


def _key_at(body: bytes, at: int) -> _Key:
    """The key from `at` on, its first byte, and the first byte of its value."""
    match = KEY.match(body, at)
    if match is None:
        raise ValueError("no field stands here: the body is no JSON object")
    return _Key(orjson.loads(match[1]), match.start(1), match.end())


class _Remove:
    """The type of `REMOVE`."""


REMOVE = _Remove()


def splice(
    body: bytes, document: Mapping[str, Any], edits: Mapping[str, Any], *, model_span: Span | None = None
) -> bytes:
    """
    `body` with top-level fields set to new values, in place where they stand and in front where they do not.

    `document` is what `body` parses to, `model_span` where its `model` has its value, if that is known; where nothing
    else is edited in place, that saves the search for the fields. A value of `REMOVE` takes the field out, with a
    comma. Raises `BadRequest` as `fields_of` does, and `orjson.JSONEncodeError` for a value that is no JSON.
    """
    present = [name for name in edits if name in document]
    if model_span is not None and present == ["model"] and edits["model"] is not REMOVE:
        changes = [(*model_span, orjson.dumps(edits["model"]))]
    else:
        changes = _changes(fields_of(body), edits) if present else []
    added = {name: value for name, value in edits.items() if name not in document and value is not REMOVE}
    if added:
        opening = body.index(b"{") + 1
        left = len(document) - sum(edits[name] is REMOVE for name in present)
        changes.insert(0, (opening, opening, orjson.dumps(added)[1:-1] + (b"," if left else b"")))
    pieces: list[bytes] = []
    at = 0
    for start, end, value in changes:
        pieces += body[at:start], value
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)


def _changes(fields: Mapping[str, Field], edits: Mapping[str, Any]) -> list[tuple[int, int, bytes]]:
    """
    What to put where, in order.

    A field that is removed goes with the comma before it; as long as no field before it stays, with the one behind it.
    """
    changes: list[tuple[int, int, bytes]] = []
    starts = [*(field.key for field in fields.values()), -1]
    kept, previous = False, 0
    for (name, field), following in zip(fields.items(), starts[1:], strict=True):
        if edits.get(name) is REMOVE:
            cut = (previous, field.end) if kept else (field.key, field.end if following < 0 else following)
            changes.append((*cut, b""))
        else:
            kept = True
            if name in edits:
                changes.append((field.value, field.end, orjson.dumps(edits[name])))
        previous = field.end
    return changes


def only_string(body: bytes, name: str, value: str) -> Span | None:
    """
    Where the value of a top-level string field stands, which is known to be there: from its first quotation mark to
    behind its last. None when it takes a scan to tell, for the name or the value is spelled in an unusual way.

    The body has passed `check_duplicates` for this name.
    """
    key = b'"%b"' % name.encode()
    spelled = b'"%b"' % value.encode("utf-8", "surrogatepass")
    if body.startswith(b"{%b:%b" % (key, spelled)):
        return len(key) + 2, len(key) + 2 + len(spelled)
    at = body.find(key)
    if at < 0 or body.find(key, at + len(key)) >= 0 or b"\\u00" in body:
        return None
    start = at + len(key) + 1
    if body[start - 1 : start] != b":":
        return None
    if body[start : start + 1] == b" ":
        start += 1
    end = start + len(spelled)
    return (start, end) if body[start:end] == spelled else None
