"""
Estimates for pictures that are drawn and edited, and for sound that is heard and spoken: by number, size and length.

Where a figure is for a hold it errs on the high side; where it stands in for a report that is missing it is the likely
one. Rates are OpenAI's: 10 tokens for a second of sound that is heard, 20 for one that is spoken (guide "Realtime":
a token is 100 ms of a user's sound, 50 ms of the assistant's); pictures as in its guide "Image generation".
"""

from collections.abc import Mapping
from typing import Any

from python_multipart.multipart import parse_options_header

from ..call import Call
from ..json_shapes import list_of, object_of, text_of
from ..media.recording_length import held_seconds, likely_seconds, told_seconds
from ..operations import MAX_CHOICES

HEARD_TOKENS = 10
SPOKEN_TOKENS = 20
TRANSCRIPT_TOKENS = 5
"""Text tokens of a second of quick speech."""

LONGEST_PART_HEAD = 16 * 1024

Document = Mapping[str, Any]


def form_files(call: Call) -> list[tuple[int, int]]:
    """Where the content of each file of a form begins and how many bytes it has; the whole body if none is found."""
    body = call.body
    boundary = parse_options_header(call.content_type)[1].get(b"boundary", b"")
    delimiter = b"\r\n--" + boundary
    files: list[tuple[int, int]] = []
    at = 0 if body.startswith(delimiter[2:]) else body.find(delimiter)
    while boundary and at >= 0:
        begin = at + len(delimiter) - 2
        at = body.find(delimiter, begin)
        head = body.find(b"\r\n\r\n", begin, begin + LONGEST_PART_HEAD)
        if begin <= head < at and b"filename" in body[begin:head].lower():
            files.append((head + 4, max(at - head - 4, 0)))
    return files or [(0, len(body))]


def sound_seconds(call: Call, *, most: bool) -> int:
    """How long the recordings in a form last: likely, or at most."""
    seconds = 0
    for start, size in form_files(call):
        told = told_seconds(call.body, start, size)
        # What a file says may be less than what is in it, so a hold does not rely on it.
        seconds += (
            max(told, held_seconds(call.body, start, size)) if most else told or likely_seconds(call.body, start, size)
        )
    return seconds


PLAIN_EDIT_TOKENS = 1105
FAITHFUL_EDIT_TOKENS = 6_692
"""A picture to edit, in high fidelity: 65 + 3 tiles of 129, and 6,240 for a shape that is no square."""

DRAWN_TOKENS: Mapping[str, int] = {"low": 272, "medium": 1056, "high": 4160}
"""Output tokens of a picture of 1024 x 1024 by gpt-image-1; other sizes go by their area."""
MOST_DRAWN_TOKENS = 7_024
"""A square in high quality by gpt-image-2; taken for holds where no lower quality is asked for."""
MOST_PICTURE_TOKENS = 16_384
AUTO_AREA = (1536, 1024)
PARTIAL_TOKENS = 100
"""Of each partial picture that is streamed."""


def edited_tokens(call: Call, *, most: bool) -> int:
    """Input tokens of the pictures that are sent to be edited."""
    document = call.document or {}
    if call.is_form:
        pictures = len(form_files(call))
    else:
        given = [document.get(name) for name in ("image", "images", "mask")]
        pictures = sum(len(list_of(value)) or value not in (None, []) for value in given)
    fidelity = text_of(document, "input_fidelity")
    faithful = fidelity != "low" if most else fidelity == "high"
    return pictures * (FAITHFUL_EDIT_TOKENS if faithful else PLAIN_EDIT_TOKENS)


def drawn_tokens(document: Document, *, most: bool) -> int:
    """Output tokens of one picture in the size and quality asked for; what is left to the vendor counts as high."""
    quality = text_of(document, "quality")
    tokens = DRAWN_TOKENS.get(quality, 0)
    if not tokens or quality == "high":
        tokens = MOST_DRAWN_TOKENS if most else DRAWN_TOKENS["high"]
    width, height = _size(text_of(document, "size"))
    drawn = min(-(-tokens * width * height // (1024 * 1024)), MOST_PICTURE_TOKENS)
    partial = document.get("partial_images")
    partial = int(partial) if isinstance(partial, str) and partial.isdecimal() and len(partial) < 3 else partial
    return drawn + PARTIAL_TOKENS * partial if isinstance(partial, int) and 0 < partial < 100 else drawn


LONGEST_SERIES = 15
"""Pictures of a series that Seedream draws for one request unless it is told how many."""


def pictures_of(call: Call) -> int:
    """How many pictures a call may bring: `n`, or the length of the series that it asks for (Volcengine's fields)."""
    document = call.document or {}
    if document.get("sequential_image_generation") != "auto":
        return call.choices
    most = object_of(document.get("sequential_image_generation_options")).get("max_images")
    return max(call.choices, min(most, MAX_CHOICES) if type(most) is int and most > 0 else LONGEST_SERIES)


LONGEST_KIND = 64


def image_kind(call: Call) -> tuple[str, str]:
    """The size and quality that a call asks for; "" where it leaves them to the vendor, or names what no vendor has."""
    document = call.document or {}
    size, quality = text_of(document, "size"), text_of(document, "quality")
    # They stand in the bill, and a bill must fit into the journal.
    return size if len(size) <= LONGEST_KIND else "", quality if len(quality) <= LONGEST_KIND else ""


def _size(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if width.isdecimal() and height.isdecimal() and max(len(width), len(height)) <= 5:
        return int(width), int(height)
    return AUTO_AREA


SPEECH_RATES: Mapping[str, int] = {"wav": 48_000, "pcm": 48_000, "pcm16": 48_000, "opus": 8_000}
"""Bytes a second of speech by `response_format`: 24 kHz in 16 bits where it is not compressed."""
SPEECH_RATE = 16_000
"""Bytes a second of the other formats: 128 kbit/s."""


def spoken_tokens(document: Document, audio_bytes: int = 0, *, most: bool = False) -> int:
    """
    Output tokens of a text that is spoken: by the bytes of sound that came, else by the bytes of the text.

    A second takes 12 bytes of text in UTF-8, in English as in Chinese; 10 at most. By bytes of sound it is never more
    than by 10 bytes of text.
    """
    size = len(text_of(document, "input").encode("utf-8", "surrogatepass"))
    speed = document.get("speed")
    speed = min(max(speed, 0.25), 4.0) if isinstance(speed, int | float) else 1.0
    longest = -int(-size * SPOKEN_TOKENS // (10 * speed))
    if most:
        return longest
    if not audio_bytes:
        return min(-int(-size * SPOKEN_TOKENS // (12 * speed)), longest)
    rate = SPEECH_RATES.get(text_of(document, "response_format"), SPEECH_RATE)
    return min(-(-audio_bytes * SPOKEN_TOKENS // rate), longest)


def answered_tokens(document: Document, audio_bytes: int) -> int:
    """Output tokens of the sound in the answer to a conversation, by its bytes; pcm16 unless another was asked for."""
    rate = SPEECH_RATES.get(text_of(object_of(document.get("audio")), "format") or "pcm16", SPEECH_RATE)
    return -(-audio_bytes * SPOKEN_TOKENS // rate)
