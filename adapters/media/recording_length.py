"""
How long a recording lasts: FLAC, Ogg (Opus and Vorbis) and MP4 say it in a few bytes of the file, and some
transcriptions.

Such files may pack an hour into what other kinds need for minutes. MP3 and WAV say how many bytes a second takes; they
and WebM, which says nothing, go by bytes. For a hold a length errs on the high side.
"""

from binascii import Error, a2b_base64
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

FEWEST_BYTES_PER_SECOND = 125
SLACK_SECONDS = 600
"""Sound at 1 kbit/s: a recording that is said to be longer than this makes it, and ten minutes more, is not."""

LOWEST_RATE = 3_000
"""Bytes a second of speech compressed hard (24 kbit/s): holds take sound to be no denser, unless its head says so."""
COMMON_RATE = 8_000
"""Bytes a second of a speech recording (64 kbit/s) whose head does not say it."""
HIGHEST_RATE = 1_536_000
MPEG1_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Bit rates of MP3 in kbit/s by their index in a frame's head, from 1 on (ISO 11172-3 and 13818-3, layer III)."""

LAST_PAGE = 65_307
"""Bytes of the longest page of an Ogg file (RFC 3533, section 6)."""
MOST_BOXES = 64
"""Boxes of an MP4 file that are stepped over; there are about five."""


def longest_seconds(size: int) -> int:
    """The longest that a recording of so many bytes is believed to be."""
    return size // FEWEST_BYTES_PER_SECOND + SLACK_SECONDS


def duration_of(answer: Mapping[str, Any]) -> Decimal | None:
    """How long a recording was, in seconds, where a transcription tells (`verbose_json`); some write it as text."""
    duration = answer.get("duration")
    try:
        seconds = Decimal(str(duration)) if isinstance(duration, str | float | int) else None
    except ArithmeticError:
        return None
    return seconds if seconds is not None and seconds.is_finite() and 0 < seconds < 1_000_000 else None


def told_seconds(data: bytes, start: int, size: int) -> int:
    """The length, rounded up, of the recording of `size` bytes at `start`; 0 where it does not say it."""
    end = start + size
    match data[start : start + 4]:
        case b"fLaC":
            samples, rate = _flac(data[start : start + 26])
        case b"OggS":
            samples, rate = _ogg(data, start, end)
        case _ if data[start + 4 : start + 8] == b"ftyp":
            samples, rate = _mp4(data, start, end)
        case _:
            return 0
    return min(-(-samples // rate), longest_seconds(size)) if samples > 0 and rate else 0


def held_seconds(data: bytes, start: int, size: int) -> int:
    """The most that a recording of `size` bytes at `start` is likely to last."""
    return -(-size // (_wave_rate(data, start) or min(_mp3_rate(data, start), LOWEST_RATE)))


def likely_seconds(data: bytes, start: int, size: int) -> int:
    """How long a recording lasts: by the head of a WAV or MP3 file, else at 64 kbit/s."""
    return -(-size // (_wave_rate(data, start) or max(_mp3_rate(data, start), LOWEST_RATE)))


def seconds_in_base64(data: str, start: int = 0) -> int | None:
    """Seconds of a recording whose base64 begins at `start`, by its head and its size; None when there is none."""
    try:
        head = a2b_base64(data[start : start + 8192])
    except (Error, ValueError):
        head = b""
    return likely_seconds(head, 0, (len(data) - start) * 3 // 4) if data else None


def _wave_rate(data: bytes, start: int) -> int:
    """Bytes a second of uncompressed sound in a WAV file; 0 for everything else."""
    head = data[start : start + 36]
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or head[20:22] not in (b"\1\0", b"\3\0", b"\xfe\xff"):
        return 0
    return min(int.from_bytes(head[24:28], "little") * int.from_bytes(head[32:34], "little"), HIGHEST_RATE)


def _mp3_rate(data: bytes, start: int) -> int:
    """Bytes a second by the first frame of an MP3 file, behind its ID3 tag; the common rate for everything else."""
    if data[start : start + 3] == b"ID3":
        tag = data[start + 6 : start + 10]
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag, (21, 14, 7, 0), strict=False))
    frame = data[start : start + 3]
    if len(frame) < 3 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # eleven bits of sync, layer III
        return COMMON_RATE
    rates = MPEG1_RATES if frame[1] & 0x18 == 0x18 else MPEG2_RATES
    index = frame[2] >> 4
    return rates[index - 1] * 125 if 1 <= index <= len(rates) else COMMON_RATE


def _flac(head: bytes) -> tuple[int, int]:
    """STREAMINFO, which comes first: 20 bits of rate, 8 of form, 36 of samples (RFC 9639, section 8.2)."""
    fields = int.from_bytes(head[18:26])
    return fields & (1 << 36) - 1, fields >> 44


def _ogg(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The position at which the last page ends (RFC 3533). Opus counts at 48 kHz, whatever its rate (RFC 7845)."""
    first = data[start + 28 : start + 44]
    rate = 48_000 if first[:8] == b"OpusHead" else int.from_bytes(first[12:16], "little") if b"vorbis" in first else 0
    page = data.rfind(b"OggS", max(start, end - LAST_PAGE), end)
    return (int.from_bytes(data[page + 6 : page + 14], "little", signed=True), rate) if page >= 0 else (0, 0)


def _mp4(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The movie's header, the first box in `moov` (ISO 14496-12, 8.2.2); fields are wider in its version 1."""
    at = start
    for _ in range(MOST_BOXES):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"moov":
            at += 8
            break
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8 or at + size >= end:
            return 0, 0
        at += size
    if data[at + 4 : at + 8] != b"mvhd":
        return 0, 0
    rate, width = (at + 28, 8) if data[at + 8] == 1 else (at + 20, 4)
    return int.from_bytes(data[rate + 4 : rate + 4 + width]), int.from_bytes(data[rate : rate + 4])
