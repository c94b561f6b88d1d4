"""
The cheapest upstream client that Python allows: httptools on an asyncio protocol, with a pool of kept connections.

It is the yardstick of the benchmark, so it does nothing else: plain HTTP, no time limits, no second attempt.
"""

import asyncio
from collections.abc import Callable

from httptools import HttpResponseParser

HIGH_WATER = 256 * 1024


class Connection(asyncio.Protocol):
    """One exchange at a time: `start`, then `read` until `ended`, then `release`."""

    def __init__(self, give_back: Callable[["Connection"], None]) -> None:
        self.give_back = give_back
        self.open = False

    def start(self, request: bytes) -> "asyncio.Future[None]":
        """Write the request; the future is done when the head of the answer is here."""
        self.parser = HttpResponseParser(self)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.waiting_bytes = 0
        self.ended = self.paused = False
        self.reusable = True
        self.reader: asyncio.Future[None] | None = None
        self.head = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.head

    async def read(self) -> bytes:
        """All bytes of the body that have come since, at least one; b"" at its end."""
        if not self.chunks and not self.ended:
            self.reader = asyncio.get_running_loop().create_future()
            await self.reader
        data = b"".join(self.chunks)
        self.chunks.clear()
        self.waiting_bytes = 0
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        return data

    def release(self) -> None:
        if self.ended and self.reusable and self.open:
            self.give_back(self)
        elif self.open:
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.reader is not None and (self.chunks or self.ended):
            reader, self.reader = self.reader, None
            if not reader.done():
                reader.set_result(None)
        elif self.waiting_bytes > HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self.ended = True
        for future in (getattr(self, "head", None), getattr(self, "reader", None)):
            if future is not None and not future.done():
                future.set_exception(ConnectionResetError("the upstream hung up"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.reusable = self.parser.should_keep_alive()
        if not self.head.done():
            self.head.set_result(None)

    def on_body(self, data: bytes) -> None:
        self.chunks.append(data)
        self.waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        self.ended = True


class Pool:
    """Connections to one upstream, the last one used first."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.idle: list[Connection] = []

    async def request(self, head: bytes, body: bytes) -> Connection:
        """Send; return when the head of the answer is here. `head` ends without the blank line."""
        while self.idle:
            connection = self.idle.pop()
            if connection.open:
                break
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: Connection(self.idle.append), self.host, self.port)
        await connection.start(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        return connection
