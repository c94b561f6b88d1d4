"""One HTTP/1.1 connection: bytes to and from a socket, for one exchange at a time."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from .exchange import Exchange
    from .request import Origin


class Owner(Protocol):
    """Who keeps account of connections: told of each one's beginning, rest and end."""

    def opened(self, connection: Connection) -> None: ...
    def rested(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """
    A socket to `origin`. `exchange` is the one that runs, or None while the connection is idle.

    An idle connection that says anything is closed: there is no question that it could answer.
    """

    __slots__ = ("exchange", "fresh", "origin", "owner", "transport", "write_paused")

    transport: asyncio.Transport

    def __init__(self, owner: Owner, origin: Origin) -> None:
        self.owner = owner
        self.origin = origin
        self.exchange: Exchange | None = None
        self.fresh = True
        """It has not answered yet: if it dies before its first byte, it was not for its age."""
        self.write_paused = False

    def release(self, *, reusable: bool) -> None:
        """The exchange is over. What cannot be used again is dropped without a farewell: nobody waits for one."""
        self.exchange = None
        if reusable and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.fresh = False
            self.owner.rested(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the socket at once, with whatever was still to be sent."""
        self.exchange = None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            self.abort()
        else:
            self.exchange.receive(data)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self.owner.lost(self)
        if exchange is not None:
            exchange.connection_lost(exc)
