"""
Counting in one thread of its own: the event loop goes on, and never more than one core counts.

Text goes to the tokenizer in pieces, because some of its patterns fail on very long runs of blanks. A text is cut
between two words where it has any, so that the sum of its pieces is the count of the whole.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import Protocol

from ...adapters.usage.prompt_texts import Counted, Texts
from ...adapters.usage.token_estimates import estimate_text
from .encoding import EncodingName, encoding_for, load_encoding

LONGEST_PIECE = 64 * 1024
"""Characters."""
MOST_CHARACTERS = 1024 * 1024
"""Characters of one request that are counted; of more, every second piece, every third and so on. At most 0.3 s."""
TEXT_COST = 32
"""What a text costs beside its characters, in characters: a million words by themselves take longer than one text."""
MOST_WAITING = 16
"""Requests that may wait for the tokenizer. Those beyond are estimated, so that none waits for seconds."""
WORD_WITHIN = 256
"""Characters before the end of a piece in which a word may begin."""


class Encoder(Protocol):
    """What is used of a `tiktoken.Encoding`."""

    def encode_ordinary(self, text: str) -> list[int]: ...


class TokenCounter:
    """
    Counts tokens by the model's own encoding, or by classes of characters where its vendor publishes none.

        counted = await TokenCounter().count(lambda: Texts(["Hello!"]), "gpt-4o")
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "tokenizer")
        self._waiting = Semaphore(MOST_WAITING)

    async def count(self, read: Callable[[], Texts], model: str) -> Counted:
        """The tokens of what `read` returns. `read` runs in the thread too; it may take its time."""
        name = encoding_for(model)
        waits = name is not None and self._waiting.acquire(blocking=False)
        future = self._thread.submit(_count, read, name if waits else None)
        if waits:
            future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread when it has counted what waits."""
        self._thread.shutdown(wait=False)

    def _done(self, future: "Future[Counted]") -> None:
        self._waiting.release()


def _count(read: Callable[[], Texts], name: EncodingName | None) -> Counted:
    given = read()
    return given.counted(sum(map(estimate_text, given.texts)) if name is None else _tokens(name, given.texts))


def _tokens(name: EncodingName, texts: Sequence[str]) -> int:
    try:
        encoder = load_encoding(name)
    except OSError:  # no file can be opened just now: the charge does not wait for better times
        return sum(map(estimate_text, texts))
    return count_texts(encoder, texts)


def count_texts(encoder: Encoder, texts: Sequence[str]) -> int:
    """Tokens of all texts; where they are longer than `MOST_CHARACTERS`, by pieces spread evenly over them."""
    total = sum(map(len, texts))
    every = max(-(-(total + TEXT_COST * len(texts)) // MOST_CHARACTERS), 1)
    tokens = seen = 0
    for number, piece in enumerate(piece for text in texts if text for piece in pieces(text)):
        if number % every == 0:
            tokens += count_piece(encoder, piece)
            seen += len(piece)
    return -(-tokens * total // seen) if seen else 0


def count_piece(encoder: Encoder, piece: str) -> int:
    """Tokens of a piece; an estimate of them if the tokenizer breaks down over it."""
    try:
        return len(encoder.encode_ordinary(piece))
    except Exception:
        raise
    except BaseException:
        # A panic inside the tokenizer, whose class cannot be imported and is no Exception. This thread is never sent
        # another BaseException: interrupts and exits reach the main thread only.
        return estimate_text(piece)


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most `LONGEST_PIECE` characters."""
    start = 0
    while len(text) - start > LONGEST_PIECE:
        end = word_start(text, start + LONGEST_PIECE)
        yield text[start:end]
        start = end
    yield text[start:]


def word_start(text: str, limit: int) -> int:
    """
    The last place up to `limit` where a word begins behind one blank, or `limit` if none is near.

    Both encodings begin a new token there, whatever stands around it.
    """
    low = max(limit - WORD_WITHIN, 1)
    at = text.rfind(" ", low, limit)
    while at > 0:
        if text[at + 1].isalpha() and not text[at - 1].isspace():
            return at
        at = text.rfind(" ", low, at)
    return limit
