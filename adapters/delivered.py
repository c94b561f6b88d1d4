"""
The text of an answer, kept until it is known whether it must be counted.

A stream says its usage last, so nobody knows before whether its text will be needed. `Delivered` keeps references to
the pieces that have passed, copies nothing and looks at nothing; `texts` takes them apart if no usage came, in a
thread.
"""

from collections.abc import Mapping
from typing import Any

from .shapes import list_of, object_of
from .texts import TOOL_CALL_TOKENS, Texts
from .watch import event_document, has_done, has_event, split_events

MOST_KEPT = 1024 * 1024
"""Bytes: 4,000 events of a usual size. What is longer is counted in proportion."""

Document = Mapping[str, Any]
Key = tuple[int, str, int]
"""Choice, field and tool call: texts that continue each other."""


class Delivered:
    """The events of one stream, as they passed."""

    __slots__ = ("_beyond", "_pieces", "_room")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._room = MOST_KEPT
        self._beyond = 0

    def add(self, events: bytes) -> None:
        """Whole events. The first piece is kept whatever its size."""
        self._room = room = self._room - len(events)
        if room >= 0 or not self._pieces:
            self._pieces.append(events)
        else:
            # From here on nothing is kept, for what is kept must be the beginning.
            self._room = -1
            self._beyond += len(events)

    def texts(self) -> Texts:
        """What the model has written: each choice's content, reasoning and tool calls, each put together."""
        kept = b"".join(self._pieces)
        answer = _Answer()
        for event in split_events(kept):
            document = event_document(event)
            if document is not None:
                answer.add(document)
            elif has_event(event) and not has_done(event):
                # No JSON for us, but perhaps for the client: NaN, or bytes that are no UTF-8.
                answer.write((0, "", 0), event.decode("latin-1"))
        found = answer.texts()
        if self._beyond:
            found.part, found.whole = len(kept), len(kept) + self._beyond
        return found


def answer_texts(document: Document) -> Texts:
    """What the model has written in a whole answer."""
    answer = _Answer()
    answer.add(document)
    return answer.texts()


class _Answer:
    """The texts of an answer as its events add to them."""

    def __init__(self) -> None:
        self.written: dict[Key, list[str]] = {}
        self.calls: set[Key] = set()

    def texts(self) -> Texts:
        texts = [text for parts in self.written.values() if (text := "".join(parts))]
        return Texts(texts, fixed=TOOL_CALL_TOKENS * len(self.calls))

    def write(self, key: Key, value: Any) -> None:
        if isinstance(value, str):
            self.written.setdefault(key, []).append(value)
        elif parts := list_of(value):
            self.written.setdefault(key, []).extend(_texts_of_parts(parts))

    def add(self, document: Document) -> None:
        for position, choice in enumerate(map(object_of, list_of(document.get("choices")))):
            number = _index(choice, position)
            delta = object_of(choice.get("delta")) or object_of(choice.get("message")) or choice
            for name in ("content", "refusal", "text"):
                self.write((number, name, 0), delta.get(name))
            # Some vendors send the reasoning under both of its names.
            self.write((number, "reasoning", 0), delta.get("reasoning_content") or delta.get("reasoning"))
            for place, call in enumerate(map(object_of, list_of(delta.get("tool_calls")))):
                function = object_of(call.get("function")) or object_of(call.get("custom"))
                self.call((number, "tool", _index(call, place)), function)
            if function := object_of(delta.get("function_call")):
                self.call((number, "function", 0), function)

    def call(self, key: Key, function: Document) -> None:
        self.calls.add(key)
        number, kind, place = key
        for name in ("name", "arguments", "input"):
            self.write((number, f"{kind} {name}", place), function.get(name))


def _texts_of_parts(parts: list[Any]) -> list[str]:
    """The texts of content in parts, as Mistral writes it; a part of thinking holds parts itself."""
    found: list[str] = []
    rest = parts[::-1]  # not by recursion: JSON may be nested deeper than Python's stack
    while rest:
        part = rest.pop()
        if isinstance(part, str):
            found.append(part)
        elif parts := list_of(part):
            rest += parts[::-1]
        elif fields := object_of(part):
            rest += [fields.get("thinking"), fields.get("text")]
    return found


def _index(item: Document, place: int) -> int:
    index = item.get("index")
    return index if type(index) is int else place
