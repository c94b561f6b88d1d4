"""Idle connections, kept for the next request to the same origin; the last used goes first, being freshest."""

import asyncio
from dataclasses import dataclass

from .connection import Connection
from .request import Origin


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Sockets held: `open` counts all of them, `idle` those among them that wait for a request."""

    open: int
    idle: int


class Pool:
    """
    Keeps account of every connection, and keeps idle ones.

    `most_idle`: over all origins; the oldest gives way. `idle_seconds`: how long one is kept, 0 for as long as the
    upstream does. One timer for the whole pool looks through them.
    """

    def __init__(self, *, most_idle: int, idle_seconds: float) -> None:
        self._most_idle = most_idle
        self._idle_seconds = idle_seconds
        self._open: set[Connection] = set()
        self._stacks: dict[Origin, list[Connection]] = {}
        # Insertion order is the order of age, over all origins: the sweep and the limit look at its front only.
        self._since: dict[Connection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self.closed = False

    def stats(self) -> PoolStats:
        return PoolStats(open=len(self._open), idle=len(self._since))

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection, or None. It may be stale all the same."""
        stack = self._stacks.get(origin)
        if not stack:
            return None
        connection = stack.pop()
        if not stack:
            del self._stacks[origin]
        del self._since[connection]
        return connection

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def rested(self, connection: Connection) -> None:
        if self.closed or self._most_idle <= 0:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._since[connection] = loop.time()
        stack = self._stacks.get(connection.origin)
        if stack is None:
            self._stacks[connection.origin] = [connection]
        else:
            stack.append(connection)
        if len(self._since) > self._most_idle:
            self._drop(next(iter(self._since)))
        if self._sweeper is None and self._idle_seconds:
            self._sweeper = loop.call_later(self._idle_seconds, self._sweep)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._forget(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    async def close(self) -> None:
        """Drop every connection, busy ones too, and wait until their sockets are gone."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if not self._open:
            return
        self._emptied = asyncio.get_running_loop().create_future()
        for connection in tuple(self._open):
            if connection.exchange is not None:
                connection.exchange.close()
            else:
                connection.abort()
        await self._emptied

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.abort()

    def _forget(self, connection: Connection) -> None:
        if self._since.pop(connection, None) is None:
            return
        stack = self._stacks[connection.origin]
        stack.remove(connection)
        if not stack:
            del self._stacks[connection.origin]

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        limit = loop.time() - self._idle_seconds + 0.001
        for connection, since in tuple(self._since.items()):
            if since > limit:
                self._sweeper = loop.call_at(since + self._idle_seconds, self._sweep)
                return
            self._drop(connection)
