"""An upstream that plays a script: each connection is handed to a coroutine that reads requests and writes bytes."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.sockets import break_off


class Peer:
    """The upstream's end of one connection. `number` counts connections from 0."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, asked: asyncio.Event
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        self.asked = asked
        self.requests: list[bytes] = []
        self.over = asyncio.Event()
        """The script has ended; one that holds does when the client hangs up."""

    async def request(self) -> bytes:
        """The next request, head and body (by Content-Length)."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        request = head + await self.reader.readexactly(int(length))
        self.requests.append(request)
        self.asked.set()
        return request

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed its end."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            return


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    port: int
    peers: list[Peer] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """The first request is here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/thing"

    @property
    def requests(self) -> list[bytes]:
        return [request for peer in self.peers for request in peer.requests]


@asynccontextmanager
async def upstream(script: Script, *, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """A server that plays `script` on every connection; a failure inside a script fails the test."""
    server = Server(0)
    playing: set[asyncio.Task[None]] = set()

    async def play(peer: Peer) -> None:
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up, as many of these tests want it to
        finally:
            peer.over.set()
            peer.writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(server.peers), server.asked)
        server.peers.append(peer)
        playing.add(asyncio.create_task(play(peer)))

    listener = await asyncio.start_server(connected, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in playing:
            task.cancel()
        results = await asyncio.gather(*playing, return_exceptions=True)
        for peer in server.peers:
            break_off(peer.writer)
        await asyncio.sleep(0)
    failures = [result for result in results if isinstance(result, Exception)]
    assert failures == []


def answers(*wires: bytes) -> Script:
    """A script that gives one answer a request, over however many connections, and then closes."""
    left = list(wires)

    async def script(peer: Peer) -> None:
        while left:
            await peer.request()
            await peer.send(left.pop(0))

    return script


def ends(*pieces: bytes) -> Script:
    """A script that answers one request with these pieces, a write each, and closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script


def holds(*pieces: bytes) -> Script:
    """The same, but the connection stays open until the client closes it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.gone()

    return script
