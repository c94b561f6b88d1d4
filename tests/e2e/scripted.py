"""An upstream that plays a script, in a thread of its own: the tests see what it was asked and when it was left."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.sockets import break_off

from .running import LoopThread

Headers = dict[bytes, bytes]


@dataclass
class Request:
    """One request as it came. `headers` have names in lower case; `head` is everything before the body."""

    head: bytes
    body: bytes

    @property
    def path(self) -> bytes:
        return self.head.split(b" ", 2)[1]

    @property
    def headers(self) -> Headers:
        lines = self.head.rstrip(b"\r\n").split(b"\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


class Peer:
    """The upstream's end of one connection. `left_at` is when the gateway closed it, on `time.monotonic`'s clock."""

    def __init__(self, upstream: "ScriptedUpstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.upstream = upstream
        self.reader = reader
        self.writer = writer
        self.sent = 0
        """Bytes that the socket has taken."""

    async def request(self) -> Request:
        """The next request. Raises `IncompleteReadError` when the gateway closes the connection instead."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        request = Request(head, await self.reader.readexactly(int(length)))
        self.upstream.requests.append(request)
        self.upstream.asked.set()
        return request

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own if the socket keeps up."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            self.sent += len(piece)
            if len(pieces) > 1:
                await asyncio.sleep(0.002)

    async def wait(self, event: threading.Event) -> None:
        """Wait until the test allows it."""
        await asyncio.to_thread(event.wait)

    async def gone(self) -> None:
        """Wait until the gateway has closed its end, and note when."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.upstream.left_at.append(time.monotonic())
        self.upstream.left.set()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """A listening script, and what has happened to it."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list[Request])
    left_at: list[float] = field(default_factory=list[float])
    peers: list[Peer] = field(default_factory=list[Peer])
    connected: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def scripted_upstream(threads: LoopThread, script: Script) -> Iterator[ScriptedUpstream]:
    """Play `script` on every connection until the block ends; a failure inside a script fails the test."""
    upstream = ScriptedUpstream()
    playing: set[asyncio.Task[None]] = set()

    async def play(peer: Peer) -> None:
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway hung up, as many of these tests want it to
        finally:
            peer.writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        upstream.connected.set()
        peer = Peer(upstream, reader, writer)
        upstream.peers.append(peer)
        playing.add(asyncio.get_running_loop().create_task(play(peer)))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512)

    async def close() -> list[BaseException | None]:
        listener.close()
        for task in playing:
            task.cancel()
        results = await asyncio.gather(*playing, return_exceptions=True)
        for peer in upstream.peers:
            break_off(peer.writer)
        await asyncio.sleep(0)
        return list(results)

    listener = threads.run(listen())
    upstream.port = listener.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        results = threads.run(close())
    assert [result for result in results if isinstance(result, Exception)] == []


def answers(*wires: bytes, times: int = 1) -> Script:
    """A script that gives these answers in turn, over however many connections; the last one `times` times."""
    left = [*wires, *[wires[-1]] * (times - 1)]

    async def script(peer: Peer) -> None:
        while left:
            await peer.request()
            await peer.send(left.pop(0))
        await peer.gone()

    return script


def always(wire: bytes) -> Script:
    """A script that gives one answer to every request."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(wire)

    return script


def ends(*pieces: bytes) -> Script:
    """A script that answers each connection's request with these pieces and closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script


def holds(*pieces: bytes) -> Script:
    """A script that answers with these pieces and then waits until the gateway closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.gone()

    return script
