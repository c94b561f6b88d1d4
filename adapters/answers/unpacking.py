"""Answers of apps that are not ours, compressed on their way: looked into as they pass, without holding them back."""

import zlib
from collections.abc import Callable

MOST = 32 * 1024 * 1024
"""Bytes that one piece of an answer may unpack to; the rest of it is not looked at."""

Unpack = Callable[[bytes], bytes]

WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""For zlib: what it has to expect. `deflate` is zlib's own format (RFC 9110, 8.4.1)."""


def unpacking(coding: bytes) -> Unpack | None:
    """
    What undoes a `Content-Encoding`, piece by piece; None where there is nothing to undo.

    Of a coding that it does not know, and of bytes that are not coded as was said, it makes nothing.
    """
    coding = coding.strip().lower()
    if coding in (b"", b"identity"):
        return None
    window = WINDOWS.get(coding)
    if window is None:
        return lambda _: b""
    inflate = zlib.decompressobj(window)

    def unpack(data: bytes) -> bytes:
        try:
            return inflate.decompress(data, MOST)
        except zlib.error:
            return b""

    return unpack
