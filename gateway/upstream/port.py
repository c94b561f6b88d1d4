"""The one port behind which sockets live: `send(Outgoing) -> Incoming`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from ...adapters.outgoing import Headers, Outgoing


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    The four timeouts of one upstream request, in seconds; 0 means none.

    `connect`: DNS, TCP and TLS. `first_byte`: from the request written to the head of the answer. `idle`: between two
    reads of the body. `total`: the whole exchange.
    """

    connect: float = 10.0
    first_byte: float = 120.0
    idle: float = 120.0
    total: float = 3600.0


OnSent = Callable[[], None]


class Incoming(Protocol):
    """
    An upstream's answer: the head is here, the body is coming.

    Exactly one of "read to the end" and `close` gives the connection back; `close` is safe to call at any time and
    more than once, and drops the connection when the body was not read to its end.
    """

    status: int
    headers: Headers
    """Names in lower case. What describes the wire is gone: content's coding and length, hop-by-hop headers."""

    @property
    def complete(self) -> bool:
        """The whole rest of the body is in memory: the next `read` returns it at once, and is the last."""
        ...

    async def read(self) -> bytes:
        """
        All body bytes that have come since the last call, waiting for some if there are none; b"" at the end.

        Raises `UpstreamTimeout`, `UpstreamTruncated` or `UpstreamGarbage`.
        """
        ...

    def close(self) -> None: ...


class Upstream(Protocol):
    """A way to reach upstreams. Cancelling `send` or `Incoming.read` drops the connection at once."""

    def send(self, outgoing: Outgoing, timeouts: Timeouts, on_sent: OnSent | None = None) -> Awaitable[Incoming]:
        """
        Send the request and return once the head of the answer is here.

        `on_sent` is called when the request begins to go out: from then on the upstream may charge for it.

        Raises `UpstreamRefused`, `UpstreamTimeout`, `UpstreamGarbage` or `UpstreamTruncated`.
        """
        ...

    async def close(self) -> None: ...
