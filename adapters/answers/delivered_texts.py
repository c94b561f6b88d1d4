"""
The text of an answer, kept until it is known whether it must be counted.

A stream says its usage last, so nobody knows before whether its text will be needed. `Delivered` keeps the pieces that
have passed and looks at nothing; `texts` takes them apart if no usage came, in a thread.
"""

from ..usage.prompt_texts import TOOL_CALL_TOKENS, Texts
from .content import CALLS, Key, written
from .sse import Document, event_document, has_done, has_event, split_events

MOST_KEPT = 1024 * 1024
"""Bytes: 4,000 events of a usual size. What is longer is counted in proportion."""


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
                # No JSON for us, but perhaps for the client.
                answer.write((0, "event", 0), event.decode("latin-1"))
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

    def texts(self) -> Texts:
        texts = [text for parts in self.written.values() if (text := "".join(parts))]
        calls = {(number, kind, place) for number, name, place in self.written if (kind := name.split()[0]) in CALLS}
        return Texts(texts, fixed=TOOL_CALL_TOKENS * len(calls))

    def write(self, key: Key, text: str) -> None:
        self.written.setdefault(key, []).append(text)

    def add(self, document: Document) -> None:
        for key, text in written(document):
            self.write(key, text)
