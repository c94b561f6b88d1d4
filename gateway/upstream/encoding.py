"""
Answers that came encoded although `Accept-Encoding: identity` was sent: decoded as they pass, within bounds.

RFC 9110, 8.4.1; `deflate` is zlib's format, and some servers send it without zlib's header.
"""

import zlib
from collections.abc import Iterable

from ...adapters.errors import UpstreamGarbage, UpstreamTruncated
from .port import Incoming

PIECE = 1024 * 1024
"""The most that one `read` of a decoded answer returns, in bytes."""
MOST_DECODED = 512 * 1024 * 1024
FREE = 4 * 1024 * 1024
MOST_RATIO = 200
"""Beyond the first 4 MiB, what grew more than this is a bomb. Text grows 3 to 30 times, zlib allows 1,032."""

GZIP, ZLIB, RAW = 31, 15, -15


class Decoder:
    """One encoded body: `feed`, then `take` until it returns b"", and again."""

    def __init__(self, encoding: bytes) -> None:
        self._gzip = encoding != b"deflate"
        self._inflate = None
        self._waiting = b""
        self._more = False
        self._fed = self._made = 0

    def feed(self, data: bytes) -> None:
        self._waiting += data
        self._fed += len(data)

    def take(self) -> bytes:
        """The next bytes, at most 1 MiB. Raises `UpstreamGarbage` for what does not decode, and for a bomb."""
        if self._inflate is None and not self._gzip:
            if len(self._waiting) < 2:
                return b""
            self._inflate = zlib.decompressobj(ZLIB if _has_zlib_header(self._waiting) else RAW)
        while self._waiting or self._more:
            data = self._decode()
            self._made += len(data)
            if self._made > MOST_DECODED or (self._made > FREE and self._made > self._fed * MOST_RATIO):
                raise UpstreamGarbage("The upstream's compressed answer grows beyond all measure.")
            if data:
                return data
        return b""

    def _decode(self) -> bytes:
        inflate = self._inflate
        if inflate is None or inflate.eof:
            # Only gzip has members, one after the other (RFC 1952, 2.2).
            if not self._gzip:
                raise UpstreamGarbage("The upstream's compressed answer goes on after its end.")
            self._inflate = inflate = zlib.decompressobj(GZIP)
        try:
            data = inflate.decompress(self._waiting, PIECE)
        except zlib.error:
            raise UpstreamGarbage("The upstream's answer is not encoded as it says.") from None
        self._waiting = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        # A full piece may leave output inside zlib, with no input left to ask for it.
        self._more = len(data) == PIECE and not inflate.eof
        return data

    @property
    def whole(self) -> bool:
        """Whether the body may end here. No byte at all is a whole empty body."""
        return self._fed == 0 or (not self._waiting and self._inflate is not None and self._inflate.eof)


def _has_zlib_header(data: bytes) -> bool:
    """RFC 1950, 2.2: method 8, and the first two bytes divide by 31."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


class Decoded:
    """An `Incoming` around another, with the body decoded."""

    def __init__(self, inner: Incoming, decoder: Decoder) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._inner = inner
        self._decoder = decoder

    @property
    def complete(self) -> bool:
        """Never before the end: how long the rest will be is not known without decoding it."""
        return False

    async def read(self) -> bytes:
        try:
            while not (data := self._decoder.take()):
                encoded = await self._inner.read()
                if not encoded:
                    break
                self._decoder.feed(encoded)
        except UpstreamGarbage:
            self._inner.close()
            raise
        if not data and not self._decoder.whole:
            raise UpstreamTruncated("The upstream's compressed answer ended before its end.")
        return data

    def close(self) -> None:
        self._inner.close()


def decoded(incoming: Incoming, encodings: Iterable[bytes]) -> Incoming:
    """
    The answer, decoded if one of `encodings` (the values of its `Content-Encoding` lines) asks for it.

    Raises `UpstreamGarbage`, and closes the answer, when that is anything but one of gzip and deflate.
    """
    listed = [part.strip().lower() for value in encodings for part in value.split(b",")]
    names = [name for name in listed if name not in (b"", b"identity")]
    if not names:
        return incoming
    if len(names) > 1 or names[0] not in (b"gzip", b"x-gzip", b"deflate"):
        incoming.close()
        raise UpstreamGarbage("The upstream's answer is in an encoding that nobody asked for.")
    return Decoded(incoming, Decoder(names[0]))
