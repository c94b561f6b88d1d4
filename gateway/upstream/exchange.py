"""
One request and its answer on one connection: the parser's callbacks, the buffer between socket and reader, the end.

The connection goes back to the pool when the answer's last byte has arrived, not when it has been read: the rest is in
memory, and a reader that never comes cannot leak a socket.

httptools is strict where it matters (RFC 9112: lengths that contradict each other, bare line feeds, folded lines,
blanks in names, malformed chunks are errors). Checked here besides: status outside 100-599, versions other than 1.0
and 1.1, `101`, transfer codings other than chunked, and sizes.
"""

import asyncio

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ...adapters.errors import UpstreamError, UpstreamGarbage, UpstreamTruncated
from ...adapters.outgoing import Headers
from .connection import Connection
from .port import Timeouts
from .timeouts import Watch

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait for their reader before the socket is left alone."""
MOST_HEAD = 64 * 1024
MOST_LINES = 256
SLICE = 128 * 1024
"""Request bodies up to this size go out with their head in one write, larger ones in slices as the socket drains."""

WIRE = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers about the wire: content's framing and the hop's own (RFC 9110, 7.6.1)."""


def size_of(headers: Headers) -> int:
    """Bytes that headers take on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


class StaleConnection(UpstreamTruncated):
    """A connection that had been idle died before the first byte of an answer: most likely closed before we wrote."""


class Exchange:
    """An `Incoming` in the making. `perform` it once; after that it is the answer."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_ended",
        "_error",
        "_extra",
        "_feeding",
        "_head_done",
        "_keep",
        "_loop",
        "_no_body",
        "_parser",
        "_paused",
        "_quiet",
        "_reading",
        "_sent",
        "_size",
        "_until_close",
        "_waiter",
        "_watch",
        "_wire",
        "encodings",
        "headers",
        "status",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        timeouts: Timeouts,
        started: float,
        *,
        no_body: bool,
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._no_body = no_body
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._watch = Watch(loop, timeouts, started, self._fail)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._size = self._quiet = self._feeding = 0
        self._sent = True
        self._head_done = self._ended = self._extra = self._keep = False
        self._paused = self._reading = self._until_close = False
        self._error: UpstreamError | None = None
        self._wire: Headers = []
        self.status = 0
        self.headers: Headers = []
        self.encodings: list[bytes] = []
        """The values of `Content-Encoding`, which `headers` leaves out."""
        connection.exchange = self

    # The request

    async def perform(self, head: bytes, body: bytes) -> None:
        """
        Send the request and wait for the answer's head.

        Raises `StaleConnection` when the same request may be sent once more on another connection.
        """
        try:
            if len(body) <= SLICE:
                self._connection.transport.write(head + body if body else head)
            else:
                await self._write_slices(head, body)
            while not self._head_done and not self._ended:
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            self.close()
            raise
        self._reading = True
        if self._error is not None and not self._head_done:
            raise self._error
        self._watch.rest()

    async def _write_slices(self, head: bytes, body: bytes) -> None:
        """A refusal that comes early ends the writing; behind any other answer the rest is written at once."""
        transport = self._connection.transport
        view = memoryview(body)
        self._sent = False
        transport.writelines((head, view[:SLICE]))
        for start in range(SLICE, len(body), SLICE):
            while self._connection.write_paused and not self._head_done and not self._ended:
                self._waiter = self._loop.create_future()
                await self._waiter
            if self._ended or self.status >= 300 or transport.is_closing():
                return
            self._watch.restart_first_byte()
            transport.write(view[start : start + SLICE])
        self._sent = True

    # The answer, as its reader sees it

    @property
    def complete(self) -> bool:
        return self._ended and self._error is None

    async def read(self) -> bytes:
        chunks = self._chunks
        while not chunks and not self._ended:
            self._watch.await_body()
            self._waiter = waiter = self._loop.create_future()
            try:
                await waiter
            except BaseException:
                self.close()
                raise
            self._watch.rest()
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._size = 0
            if self._paused and not self._ended:
                self._paused = False
                self._connection.transport.resume_reading()
            return data
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        if not self._ended:
            self._chunks.clear()
            self._fail(UpstreamTruncated("The answer was given up before its end."))

    # The socket's side

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def receive(self, data: bytes) -> None:
        parser, held = self._parser, len(self._chunks)
        if parser is None:
            return
        self._feeding = size = len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # What comes behind the end of an answer spoils the connection, not the answer.
            if not self._ended:
                self._fail(self._error or UpstreamGarbage(f"The upstream's answer is not HTTP: {error}."))
                return
            self._extra = True
        if self._ended:
            self._finish()
        elif len(self._chunks) == held:
            # Heads, chunk extensions and trailers without end would otherwise grow in the parser unseen.
            self._quiet += self._feeding
            if self._quiet > MOST_HEAD:
                self._fail(UpstreamGarbage("The upstream's answer has more than 64 KiB outside its body."))
            elif self._head_done and not self._reading:
                self.wake()
            return
        else:
            self._quiet = 0
            # With what frames it: so it is added once for all the chunks that come together.
            self._size += size
            if self._size > HIGH_WATER and not self._paused:
                self._paused = True
                self._connection.transport.pause_reading()
        # `wake`, written out: this runs once an event.
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended:
            return
        if self._until_close and error is None:
            self._ended = True
            self._finish()
            self.wake()
        elif not self._head_done and not self._quiet and not self._connection.fresh:
            self._fail(StaleConnection("The upstream closed the connection instead of answering."))
        elif not self._head_done:
            self._fail(UpstreamTruncated("The upstream closed the connection instead of answering."))
        else:
            self._fail(UpstreamTruncated("The upstream's answer broke off."))

    def _finish(self) -> None:
        self._parser = None
        self._watch.stop()
        if self._paused:
            self._paused = False
            self._connection.transport.resume_reading()
        self._connection.release(reusable=self._keep and self._sent and not self._extra)

    def _fail(self, error: UpstreamError) -> None:
        """The exchange is over. What has arrived can still be read; behind it stands the error."""
        self._parser = None
        self._watch.stop()
        self._ended = True
        self._error = error
        self._connection.abort()
        self.wake()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._ended:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return
        name = name.lower()
        if name in WIRE:
            self._wire.append((name, value))
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._head_done or parser is None:
            return
        status = parser.get_status_code()
        self._check_head(status, parser.get_http_version())
        if status < 200:
            self.headers.clear()
            self._wire.clear()
            return
        self.status = status
        self._keep = parser.should_keep_alive()
        self._until_close = not self._keep
        for name, value in self._wire:
            self._read_wire(name, value)
        self._head_done = True
        if self._no_body:
            self._ended = True

    def on_body(self, data: bytes) -> None:
        if self._ended:
            self._extra = True
            return
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._ended = True

    def _check_head(self, status: int, version: str) -> None:
        """Errors raised in a callback end the feed; the one to be told is kept in `_error`."""
        if status == 101 or not 100 <= status < 600 or version not in ("1.1", "1.0"):
            self._refuse(f"The upstream's answer is of status {status} and HTTP/{version}, which nobody asked for.")
        if len(self.headers) + len(self._wire) > MOST_LINES:
            self._refuse(f"The upstream's answer has more than {MOST_LINES} header lines.")
        # Counted only when it can matter: what was received bounds what was parsed.
        if self._quiet + self._feeding > MOST_HEAD and size_of(self.headers) + size_of(self._wire) > MOST_HEAD:
            self._refuse("The upstream's answer has a head of more than 64 KiB.")

    def _read_wire(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._until_close = False
        elif name == b"transfer-encoding":
            self._until_close = False
            if value.strip().lower() != b"chunked":
                self._refuse("The upstream's answer has a transfer coding that nobody asked for.")
        elif name == b"content-encoding":
            self.encodings.append(value)
        elif name == b"connection":
            self._drop_named(value)

    def _drop_named(self, value: bytes) -> None:
        """Headers that `Connection` names are about the hop, whatever they are (RFC 9110, 7.6.1)."""
        named = {part.strip().lower() for part in value.split(b",")} - {b"close", b"keep-alive"}
        if named:
            self.headers = [header for header in self.headers if header[0] not in named]

    def _refuse(self, message: str) -> None:
        self._error = UpstreamGarbage(message)
        raise ValueError(message)
