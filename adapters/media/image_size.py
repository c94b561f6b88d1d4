"""
Width and height of a picture, from the head of its file: PNG, JPEG, GIF and WebP, as every vendor takes them.

Only the head is looked at and nothing is unpacked, so a file that lies about its size costs nothing here.
"""

from binascii import Error, a2b_base64
from collections.abc import Callable

Size = tuple[int, int]
"""Width and height in pixels, both at least 1."""
Read = Callable[[int, int], bytes]
"""`read(at, count)`: so many bytes from there; fewer at the end."""

MOST_SEGMENTS = 300
"""Segments of a JPEG file before its frame: a colour profile has up to 255."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame's head in JPEG; three numbers between them mean something else (ITU T.81, table B.1)."""


def size_in_address(address: str) -> Size | None:
    """The size of a picture in a `data:` address; None when it is none of the four kinds, broken, or elsewhere."""
    if not address.startswith("data:"):
        return None
    comma = address.find(",", 0, 256)
    if comma < 0 or ";base64" not in address[:comma].lower():
        return None
    return size_in_base64(address, comma + 1)


def size_in_base64(text: str, start: int = 0) -> Size | None:
    """The same for base64 without line breaks that begins at `start`. Only what is looked at is decoded."""

    def read(at: int, count: int) -> bytes:
        first, last = at // 3 * 4, -(-(at + count) // 3) * 4
        return a2b_base64(text[start + first : start + last])[at % 3 : at % 3 + count]

    try:
        return image_size(read)
    except (Error, ValueError):
        return None


def image_size(read: Read) -> Size | None:
    """The size of the picture whose bytes `read` gives."""
    head = read(0, 30)
    if len(head) < 24:
        size = (_little(head, 6), _little(head, 8)) if head[:4] == b"GIF8" and len(head) >= 10 else (0, 0)
    elif head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
        size = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    elif head[:4] == b"GIF8":
        size = _little(head, 6), _little(head, 8)
    elif head[:2] == b"\xff\xd8":
        size = _jpeg_size(read)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) == 30:
        size = _webp_size(head)
    else:
        return None
    return size if size[0] > 0 and size[1] > 0 else None


def _little(data: bytes, at: int, width: int = 2) -> int:
    return int.from_bytes(data[at : at + width], "little")


def _webp_size(head: bytes) -> Size:
    """RFC 9649, sections 2.5 to 2.7."""
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            return _little(head, 26) & 0x3FFF, _little(head, 28) & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            bits = _little(head, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _little(head, 24, 3) + 1, _little(head, 27, 3) + 1
        case _:
            return 0, 0


def _jpeg_size(read: Read) -> Size:
    """From segment to segment up to the frame's head (ITU T.81, B.1 and B.2.2)."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        segment = read(at, 9)
        if len(segment) < 9 or segment[0] != 0xFF:
            break
        marker = segment[1]
        if marker in FRAMES:
            return int.from_bytes(segment[7:9]), int.from_bytes(segment[5:7])
        # 0xFF may be repeated before a marker; 0x01 and the restart marks carry no length.
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + max(int.from_bytes(segment[2:4]), 2)
    return 0, 0
