"""A lane between a gateway and its database, that can be closed for a while: a TCP proxy."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from tests.sockets import break_off

from .running import LoopThread


class Lane:
    """
    Forwards to a server. `cut`: connections break and none is accepted. `hold`: nothing moves, nothing breaks.

    `lose_every`: of so many COMMITs one reaches the server, is done, and its connection breaks before it is answered.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.open = asyncio.Event()
        self.open.set()
        self.listener: socket.socket | None = None
        self.port = 0
        self.lose_every = 0
        self.commits = 0
        self.lost = 0
        """COMMITs whose answer nobody heard."""
        self.writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        # Not asyncio's own server: closed at a bad moment, it leaks what it has just accepted.
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self.listener, self._accept, self.listener)

    async def cut(self) -> None:
        if self.listener is not None:
            asyncio.get_running_loop().remove_reader(self.listener)
            self.listener.close()
            self.listener = None
        for writer in list(self.writers):
            break_off(writer)

    async def hold(self) -> None:
        self.open.clear()

    async def restore(self) -> None:
        self.open.set()
        if self.listener is None:
            await self.start()

    async def close(self) -> None:
        await self.cut()
        self.open.set()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            client, _ = listener.accept()
            task = asyncio.create_task(self._serve(client))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            try:
                streams = await asyncio.open_connection(sock=client)
            except BaseException:
                client.close()
                raise
            with self._known(*streams) as (reader, writer):
                streams = await asyncio.open_connection(*self.target)
                with self._known(*streams) as (there, back):
                    await self._join(reader, writer, there, back)

    @contextmanager
    def _known(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Iterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        self.writers.add(writer)
        try:
            yield reader, writer
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        committing = False

        def asked(data: bytes) -> None:
            nonlocal committing
            committing = b"COMMIT" in data

        def answered(_: bytes) -> None:
            if committing and self._loses():
                writer.transport.abort()
                back.transport.abort()

        ways = self._forward(reader, back, asked), self._forward(there, writer, answered)
        await asyncio.gather(*ways, return_exceptions=True)

    def _loses(self) -> bool:
        self.commits += 1
        loses = self.lose_every > 0 and self.commits % self.lose_every == 0
        self.lost += loses
        return loses

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[bytes], None]
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self.open.wait()
                seen(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@contextmanager
def lane_to(threads: LoopThread, url: str) -> Iterator[tuple[Lane, str]]:
    """A lane, and the database's URL by way of it."""
    parts = urlsplit(url)
    lane = Lane(parts.hostname or "127.0.0.1", parts.port or {"postgresql": 5432}.get(parts.scheme, 3306))
    threads.run(lane.start())
    user, at, _ = parts.netloc.rpartition("@")
    try:
        yield lane, urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{lane.port}"))
    finally:
        threads.run(lane.close())
