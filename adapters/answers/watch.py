"""
Look on as an answer passes: find its usage, its end, and an error where an answer should be, without holding it back.

A stream is passed on in whole events: all that are complete when bytes arrive, at once. What follows the last complete
event waits for its end; no client can read half an event, and an error after a half would be read as a part of it.
"""

import re
from collections.abc import Callable
from typing import cast

from ...config.pricing import Usage
from ..errors import UpstreamGarbage
from ..json_shapes import object_of
from ..usage.chargeable import MOST_UNSEEN
from ..usage.reported import merge_usage, read_usage, usage_of_both
from ..usage.token_estimates import estimate_text
from .content import answer_text, event_text, sound_bytes
from .lenient_json import read_json
from .sse import BOM, Document, end_of_events, event_document, first_document, has_done, has_event, split_events

LONGEST_EVENT = 32 * 1024 * 1024
COUNT_AFTER = 32 * 1024
"""Bytes of events gathered for counting their text; beyond it they are counted and let go."""

SHORTEST_EVENT = len(b"data: {}\n\n")
"""Bytes. What is no longer holds nothing to count."""
FINISH, FINISH_SPACED = '"finish_reason":"', '"finish_reason": "'
NO_FINISH, NO_FINISH_SPACED = '"finish_reason":""', '"finish_reason": ""'
"""Some servers (SGLang, Ollama) have written so into every event but the last, where others write null."""
STATUS, STATUS_WELL = '"base_resp"', '"base_resp":{"status_code":0,'
"""MiniMax's, which may stand in every event. With its quotation marks it is in no text."""
DONE = b"data: [DONE]\n\n"
UNPARTED = re.compile(rb"(?<=[}\]])\r?\n(?=data:)")
"""Between events that no blank line parts: clients that read by the line know them."""
ERROR_NAME = re.compile(rb"^(?:event:[ \t]*error[ \t]*\r?$|error:)", re.MULTILINE)
"""A line that calls its event an error, whatever it carries; llama.cpp's server named the data itself so."""


class StreamWatch:
    """
    One event stream of OpenAI's dialects.

    `ends` are the types of events that end an answer, beside `data: [DONE]`, which ends any stream. With
    `strip_usage`, the chunk that reports usage and nothing else is taken out: the gateway asked for it, and not the
    client. `choices` are the answers that were asked for: OpenAI ends each picture by an event of its own with its own
    usage, MiniMax all of them by one, behind which it closes. `keep` is told of the events when their text is counted,
    in pieces of at least 32 KiB but for the last.
    """

    __slots__ = (
        "_added",
        "_choices",
        "_counted",
        "_ends",
        "_ends_passed",
        "_gathered",
        "_gathered_size",
        "_keep",
        "_of_ends",
        "_open_choices",
        "_pending",
        "_sound",
        "_strip",
        "broken",
        "ended",
        "failed",
        "finished",
        "usage",
    )

    def __init__(
        self,
        ends: tuple[str, ...] = (),
        *,
        strip_usage: bool = False,
        choices: int = 1,
        keep: Callable[[bytes], None] | None = None,
    ) -> None:
        self._ends = ends
        self._ends_passed = 0
        self._of_ends: Usage | None = None
        """What the first `choices` of those say together; `_added` is how many have said something."""
        self._added = 0
        self._choices = choices
        self._strip = strip_usage
        self._pending = bytearray()
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._keep = keep
        self._counted = 0
        self._sound = 0
        self.finished = False
        """Each choice has said why it ended: all that is still to come is the usage and the end mark."""
        self._open_choices = choices
        self.ended = False
        """The end mark has passed."""
        self.failed = False
        """An event with an error has passed."""
        self.broken = False
        """The last event tells of an error in a way that clients of OpenAI's dialect do not know."""
        self.usage: Usage | None = None
        """The usage reported so far: the most that any event has said of each kind."""

    def feed(self, data: bytes) -> bytes:
        """
        The bytes to pass on: whole events, as they came. b"" when none is complete yet.

        Raises `UpstreamGarbage` when a single event is longer than 32 MiB.
        """
        pending = self._pending
        if not pending and data.endswith(b"\n\n"):
            return self._look(data)
        if pending:
            # Only what is new can end the event: a large one that comes in small pieces is not searched again for each.
            searched = len(pending) - 2
            pending += data
            cut = end_of_events(pending, searched)
            data = bytes(memoryview(pending)[:cut])
            del pending[:cut]
        else:
            cut = end_of_events(data)
            pending += data[cut:]
            data = data[:cut]
        if len(pending) > LONGEST_EVENT:
            raise UpstreamGarbage("The upstream sent an event of more than 32 MiB.")
        return self._look(data) if data else b""

    def finish(self) -> bytes:
        """
        What is left when the upstream has closed. An event that lacks only its blank line still counts as one.

        Perplexity writes no end mark: where each choice has said why it ended, the mark is set behind it.
        """
        data = bytes(self._pending).strip()
        self._pending.clear()
        passed = b""
        if data.count(b"\ndata:") and has_done(data) and first_document(data) is None:
            data = UNPARTED.sub(b"\n\n", data)
        if data and (has_done(data) or first_document(data) is not None):
            passed = self._look(data + b"\n\n")
            data = b""
        self.ended = self.ended or self._ends_passed > 0
        if self.finished and not (data or self.ended or self.failed):
            passed += DONE
            self.ended = True
        return passed

    def delivered_tokens(self) -> int:
        """An estimate of the output tokens that have passed, from their text."""
        self._count()
        return self._counted

    def delivered_sound(self) -> int:
        """The bytes of sound that have passed inside events."""
        self._count()
        return self._sound

    def outgrows(self, tokens: int) -> bool:
        """Whether the text that has been counted by now is of far more than so many tokens: costs nothing to ask."""
        return self._counted > MOST_UNSEEN * tokens

    def _look(self, data: bytes) -> bytes:
        # Looking for a few words costs a third in a string of what it costs in bytes, even with making the string.
        text = data.decode("latin-1")
        # OpenAI writes `"usage":null` into every event but the one that counts.
        if '"usage"' in text and text.count('"usage"') > text.count('"usage":null'):
            data = self._read_usage(data)
        if "error" in text or (STATUS in text and text.count(STATUS) > text.count(STATUS_WELL)):
            data = self._note_errors(data)
        if FINISH in text or FINISH_SPACED in text:
            self._open_choices -= text.count(FINISH) + text.count(FINISH_SPACED)
            self._open_choices += text.count(NO_FINISH) + text.count(NO_FINISH_SPACED)
            self.finished = self._open_choices <= 0
        if self._ends:
            self._ends_passed += self._ends_in(data)
        if ("[DONE]" in text and has_done(data)) or (self._ends_passed >= self._choices):
            self.ended = True
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._gathered_size > COUNT_AFTER:
            self._count()
        return data

    def _read_usage(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        for event in split_events(data):
            if b'"usage"' in event and (document := event_document(event)) is not None:
                usage = read_usage(inner_answer(document))
                if usage is not None:
                    if document.get("type") in self._ends and self._added < self._choices:
                        # No more of them than were asked for: an upstream may repeat itself.
                        self._added += 1
                        usage = self._of_ends = usage if self._of_ends is None else usage_of_both(self._of_ends, usage)
                    self.usage = usage if self.usage is None else merge_usage(self.usage, usage)
                if self._strip and not document.get("choices") and object_of(document.get("usage")):
                    continue
            passed.append(event)
        return b"".join(passed)

    def _note_errors(self, data: bytes) -> bytes:
        """The events up to an error that is not OpenAI's: no client may take what follows for a good end."""
        passed: list[bytes] = []
        for event in split_events(data):
            passed.append(event)
            named = names_error(event)
            document = event_document(event) if named or b'"error"' in event or b'"base_resp"' in event else None
            if document is not None and has_error(document):
                self.failed = True
                named = is_refused(document) and not document.get("error")
            if named:
                self.failed = self.broken = True
                break
        return b"".join(passed)

    def _ends_in(self, data: bytes) -> int:
        return sum(
            document.get("type") in self._ends
            for event in split_events(data)
            if any(end.encode() in event for end in self._ends) and (document := event_document(event)) is not None
        )

    def _count(self) -> None:
        gathered = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_size = 0
        if self._keep is not None and gathered:
            self._keep(gathered)
        for event in split_events(gathered):
            document = event_document(event) if len(event) > SHORTEST_EVENT else None
            if document is not None:
                self._counted += estimate_text(event_text(document))
                self._sound += sound_bytes(document) if b'"audio"' in event else 0
            elif len(event) > SHORTEST_EVENT and has_event(event) and not has_done(event):
                # No JSON for us, but perhaps for the client.
                self._counted += estimate_text(event.decode("latin-1"))


def names_error(data: bytes) -> bool:
    """Whether a line among these whole events says that its event is an error, whatever that carries."""
    return b"error" in data and ERROR_NAME.search(data) is not None


def begins_with_error(data: bytes) -> bool:
    """Whether the first of these whole events that is more than a comment tells of an error."""
    for event in split_events(data):
        if names_error(event):
            return True
        if (document := event_document(event)) is not None:
            return has_error(document)
    return False


def has_error(document: Document) -> bool:
    """
    OpenAI's error object, alone or in an event of type `error`; a null `error` is none. MiniMax says it by the status
    of a `base_resp`, where it has no choices.

    Beside `choices` it must have a message: OpenRouter tells of an error in the middle of a stream so, but some servers
    put an empty error into every answer.
    """
    error = document.get("error")
    if "choices" in document:
        return bool(object_of(error).get("message")) or is_refused(document)
    return bool(error) or document.get("type") == "error" or is_refused(document)


def is_refused(document: Document) -> bool:
    """Whether a `base_resp` takes the place of an answer. Clients of OpenAI's dialect do not know it."""
    status = object_of(document.get("base_resp")).get("status_code")
    return status not in (None, 0) and not document.get("choices")


def inner_answer(document: Document) -> Document:
    """Where an event's usage stands: at the top, or inside `response` (events of the Responses kind)."""
    return object_of(document.get("response")) or document


def read_answer(body: bytes, holds: str = "") -> Document:
    """
    A whole JSON answer. `holds`: the list that makes it one, if that is known.

    A byte order mark before it is passed over, as clients' own parsers do (RFC 8259, 8.1), and so is what some
    upstreams write that is not quite JSON (see `lenient_json`).

    Raises `UpstreamGarbage` when it is no JSON object, or an error in the clothes of a success: some vendors tell of
    those with a status of 200, in fields of their own.
    """
    try:
        document = read_json(body.removeprefix(BOM))
    except ValueError:
        raise UpstreamGarbage("The upstream answered 200 with something that is not JSON.") from None
    if not isinstance(document, dict):
        raise UpstreamGarbage("The upstream answered 200 with JSON that is not an object.")
    answer = cast(Document, document)
    if has_error(answer):
        raise UpstreamGarbage("The upstream answered 200 with an error inside.")
    if holds and not isinstance(answer.get(holds), list):
        raise UpstreamGarbage(f"The upstream answered 200 with JSON that has no {holds}.")
    return answer


class AnswerWatch:
    """
    Any answer of an app that is not ours, judged by its content type: events are watched, JSON is gathered and read.

    JSON of more than 16 MiB and what follows an event of more than 32 MiB is passed over; their usage is not known.
    """

    MOST = 16 * 1024 * 1024

    def __init__(self, content_type: bytes, ends: tuple[str, ...]) -> None:
        content_type = content_type.lower()
        self._stream = StreamWatch(ends) if content_type.startswith(b"text/event-stream") else None
        self._gather = content_type.startswith(b"application/json")
        self._parts: list[bytes] = []
        self._size = 0
        self._lost = False
        self.model = ""
        """The model's name as the answer gives it."""

    def feed(self, data: bytes) -> None:
        if self._stream is not None:
            try:
                passed = b"" if self._lost else self._stream.feed(data)
            except UpstreamGarbage:
                # The answer is on its way all the same; from here on it only is not watched.
                passed, self._lost = b"", True
            if passed and not self.model:
                self._note_model(first_document(passed))
        elif self._gather:
            self._size += len(data)
            if self._size <= self.MOST:
                self._parts.append(data)

    def finish(self) -> tuple[Usage | None, int, bool]:
        """The usage or None, an estimate of the output tokens, and whether the answer is whole."""
        if self._stream is not None:
            self._stream.finish()
            return self._stream.usage, self._stream.delivered_tokens(), self._stream.ended and not self._stream.failed
        if not self._gather or self._size > self.MOST:
            return None, 0, True
        try:
            answer = read_answer(b"".join(self._parts))
        except UpstreamGarbage:
            return None, 0, False
        self._note_model(answer)
        return read_usage(answer), estimate_text(answer_text(answer)), True

    def _note_model(self, document: Document | None) -> None:
        model = (document or {}).get("model")
        if isinstance(model, str):
            self.model = model
