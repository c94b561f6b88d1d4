"""Which transport performs a request: the built-in upstream, httpx for egress proxies, the fast one for the rest."""

import ssl
from collections.abc import Awaitable

from ...adapters.outgoing import Outgoing
from .echo import EchoUpstream
from .fast import FastTransport
from .guard import Resolve, SharedLookups, resolve_by_system
from .pool import PoolStats
from .port import Incoming, OnSent, Timeouts, Upstream


class Upstreams:
    """
    The `Upstream` that a process has one of.

    `allow_private`: operators' channels may point at private addresses; URLs that callers give never may. `max_idle`:
    idle connections kept in all, for `idle_seconds` each. `tls`: for private certificate authorities.
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
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._tls = tls
        self._resolve = SharedLookups(resolve)
        self._fast = FastTransport(
            allow_private=allow_private, max_idle=max_idle, idle_seconds=idle_seconds, tls=tls, resolve=self._resolve
        )
        self._echo = EchoUpstream()
        self._proxied: Upstream | None = None

    def send(self, outgoing: Outgoing, timeouts: Timeouts, on_sent: OnSent | None = None) -> Awaitable[Incoming]:
        # A plain def: another coroutine around the hot path would only pass the answer on.
        if outgoing.transport == "echo":
            return self._echo.send(outgoing, timeouts, on_sent)
        if outgoing.proxy:
            return self._for_proxies().send(outgoing, timeouts, on_sent)
        return self._fast.send(outgoing, timeouts, on_sent)

    def stats(self) -> PoolStats:
        """The fast transport's sockets; those to proxies are httpx's own business."""
        return self._fast.stats()

    async def close(self) -> None:
        await self._fast.close()
        if self._proxied is not None:
            await self._proxied.close()

    def _for_proxies(self) -> Upstream:
        if self._proxied is None:
            from .httpx_transport import HttpxTransport

            self._proxied = HttpxTransport(
                allow_private=self._allow_private,
                max_idle=self._max_idle,
                idle_seconds=self._idle_seconds,
                tls=self._tls,
                resolve=self._resolve,
            )
        return self._proxied
