"""
Affinity: the same conversation prefers the channel and key that served it last, because their prompt cache is warm.

A preference only: health decides. What counts as "the same conversation" is its key's owner, its model and the way it
begins, or the `prompt_cache_key` that the client names.
"""

from collections import OrderedDict
from typing import Any, cast

from ...adapters.call import Call
from ...adapters.json_shapes import list_of, object_of

MOST_ENTRIES = 100_000
BEGINNING = 512
"""Characters of each of the first two messages that are looked at."""


def conversation(call: Call, token_id: int) -> int | None:
    """A number that is the same for each turn of a conversation, within this process; None for other operations."""
    document = call.document or {}
    named = document.get("prompt_cache_key")
    if isinstance(named, str):
        return hash((token_id, call.base_model, named))
    messages = document.get("messages")
    if not isinstance(messages, list):
        return None
    return hash((token_id, call.base_model, *(_beginning(message) for message in cast(list[Any], messages)[:2])))


def _beginning(message: Any) -> str:
    content = object_of(message).get("content")
    if parts := list_of(content):  # of a message in parts, the first one
        part = object_of(parts[0])
        content = part.get("text") or object_of(part.get("image_url")).get("url")
    return content[:BEGINNING] if isinstance(content, str) else ""


class Affinity:
    """Remembers (channel id, key index) by conversation, for a while, and only so many of them. Oldest go first."""

    def __init__(self, *, most: int = MOST_ENTRIES) -> None:
        self._most = most
        self._places: OrderedDict[int, tuple[int, int, float]] = OrderedDict()

    def place(self, conversation: int, now: float) -> tuple[int, int] | None:
        """Where the conversation was served last, unless that is too long ago."""
        found = self._places.get(conversation)
        return found[:2] if found is not None and found[2] > now else None

    def remember(self, conversation: int, channel_id: int, key_index: int, *, until: float) -> None:
        self._places[conversation] = (channel_id, key_index, until)
        self._places.move_to_end(conversation)
        if len(self._places) > self._most:
            self._places.popitem(last=False)
