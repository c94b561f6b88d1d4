"""The relay's own transport: HTTP/1.1 on `asyncio.Protocol` and httptools, with a keep-alive pool."""

import asyncio
import ssl
from math import inf

from ...adapters.errors import Fault, UpstreamRefused
from ...adapters.outgoing import Outgoing
from .connection import Connection
from .encoding import decoded
from .exchange import Exchange, StaleConnection
from .guard import Resolve, addresses_of, resolve_by_system
from .pool import Pool, PoolStats
from .port import Incoming, OnSent, Timeouts
from .request import Origin, RequestWriter
from .timeouts import connect_timeout, total_end, total_timeout

BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
"""Methods that need not say `Content-Length: 0`."""

ATTEMPT_SECONDS = 3.0
"""How long one address of a name is tried while there are others: a broken IPv6 route must not use up the time."""


class FastTransport:
    """
    An `Upstream` without proxies and without HTTP/2.

    `allow_private`: outgoing requests of operators may go to private addresses; those with `user_url` never do.
    `tls`: for private certificate authorities; verification is on in the default. Redirects are not followed.
    """

    def __init__(
        self,
        *,
        allow_private: bool = True,
        max_idle: int = 512,
        idle_seconds: float = 90.0,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._allow_private = allow_private
        self._pool = Pool(most_idle=max_idle, idle_seconds=idle_seconds)
        self._tls = tls
        self._resolve = resolve
        self._writer = RequestWriter()

    def stats(self) -> PoolStats:
        return self._pool.stats()

    async def send(self, outgoing: Outgoing, timeouts: Timeouts, on_sent: OnSent | None = None) -> Incoming:
        method, body = outgoing.method, outgoing.body
        target = self._writer.target(method, outgoing.url)
        head = self._writer.head(target, outgoing.headers, len(body), has_body=bool(body) or method not in BODILESS)
        origin = target.public_origin if outgoing.user_url or not self._allow_private else target.origin
        loop = asyncio.get_running_loop()
        started = loop.time()
        no_body = method == "HEAD"

        connection = self._pool.take(origin)
        if connection is not None:
            exchange = Exchange(loop, connection, timeouts, started, no_body=no_body)
            if on_sent is not None:
                on_sent()
            try:
                await exchange.perform(head, body)
            except StaleConnection:
                connection = None
            else:
                return decoded(exchange, exchange.encodings) if exchange.encodings else exchange

        connection = await self._connect(origin, timeouts, started, "caller" if outgoing.user_url else "channel")
        exchange = Exchange(loop, connection, timeouts, started, no_body=no_body)
        if on_sent is not None:
            on_sent()
        await exchange.perform(head, body)
        return decoded(exchange, exchange.encodings) if exchange.encodings else exchange

    async def close(self) -> None:
        """Drop every connection. Answers that are still being read end with `UpstreamTruncated`."""
        await self._pool.close()

    async def _connect(self, origin: Origin, timeouts: Timeouts, started: float, fault: Fault) -> Connection:
        end = total_end(timeouts, started)
        due = min(end, asyncio.get_running_loop().time() + timeouts.connect if timeouts.connect else inf)
        try:
            async with asyncio.timeout_at(due if due < inf else None):
                addresses = await addresses_of(
                    origin.host, origin.port, self._resolve, public_only=origin.public_only, fault=fault
                )
                connection = await self._connect_first(origin, list(addresses))
        except TimeoutError as error:
            raise (total_timeout(timeouts.total) if due == end else connect_timeout(timeouts.connect)) from error
        if self._pool.closed:
            connection.abort()
            raise UpstreamRefused("The gateway is stopping.")
        return connection

    async def _connect_first(self, origin: Origin, addresses: list[str]) -> Connection:
        """The first address that answers. A certificate that does not hold is final: another address has the same."""
        while True:
            address = addresses.pop(0)
            try:
                if not addresses:
                    return await self._connect_one(origin, address)
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    return await self._connect_one(origin, address)
            except ssl.SSLError as error:
                message = f"TLS with {origin.host} failed: {error.reason or error}."
                raise UpstreamRefused(message, code="upstream_tls_failed") from error
            except OSError as error:
                if not addresses:
                    raise UpstreamRefused(f"{origin.host}:{origin.port} cannot be reached.") from error

    async def _connect_one(self, origin: Origin, address: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._pool, origin),
            address,
            origin.port,
            ssl=self._context() if origin.tls else None,
            server_hostname=origin.host if origin.tls else None,
        )
        return connection

    def _context(self) -> ssl.SSLContext:
        """Made on first use: reading the system's certificates takes tens of milliseconds."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
