"""What one event of a stream, or a whole answer, adds to what its model has written: texts, and sound."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..json_shapes import list_of, object_of

Document = Mapping[str, Any]
Key = tuple[int, str, int]
"""Choice, field and tool call: texts that continue each other."""
CALLS = ("tool", "function")
"""The first words of the fields of a tool call."""


def written(document: Document) -> Iterator[tuple[Key, str]]:
    """Each choice's content, reasoning, transcript and tool calls; pictures and sound have no text."""
    for position, choice in enumerate(map(object_of, list_of(document.get("choices")))):
        number = _index(choice, position)
        said = _said(choice)
        for name in ("content", "refusal", "text"):
            yield from _texts((number, name, 0), said.get(name))
        # Some vendors send the reasoning under both of its names.
        yield from _texts((number, "reasoning", 0), said.get("reasoning_content") or said.get("reasoning"))
        yield from _texts((number, "transcript", 0), object_of(said.get("audio")).get("transcript"))
        for place, call in enumerate(map(object_of, list_of(said.get("tool_calls")))):
            function = object_of(call.get("function")) or object_of(call.get("custom"))
            yield from _call(number, "tool", _index(call, place), function)
        if function := object_of(said.get("function_call")):
            yield from _call(number, "function", 0, function)


def event_text(document: Document) -> str:
    """The text that an event adds to the answer; b64 media counts as nothing."""
    delta = document.get("delta")  # of a transcript
    return (delta if isinstance(delta, str) else "") + "".join(text for _, text in written(document))


def answer_text(document: Document) -> str:
    """The text of a whole answer, be it a transcript."""
    text = document.get("text")
    return (text if isinstance(text, str) else "") + "".join(text for _, text in written(document))


def sound_bytes(document: Document) -> int:
    """The bytes of sound that an event, or a whole answer, brings in base64."""
    size = 0
    for choice in map(object_of, list_of(document.get("choices"))):
        data = object_of(_said(choice).get("audio")).get("data")
        size += len(data) * 3 // 4 if isinstance(data, str) else 0
    return size


def _said(choice: Document) -> Document:
    return object_of(choice.get("delta")) or object_of(choice.get("message")) or choice


def _call(number: int, kind: str, place: int, function: Document) -> Iterator[tuple[Key, str]]:
    for name in ("name", "arguments", "input"):
        yield from _texts((number, f"{kind} {name}", place), function.get(name))


def _texts(key: Key, value: Any) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif parts := list_of(value):
        for text in _texts_of_parts(parts):
            yield key, text


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
