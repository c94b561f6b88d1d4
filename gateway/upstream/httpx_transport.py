"""
The same port on httpx, for what the fast transport does not do: egress proxies.

httpx2 is the maintained continuation with the same interface; it is taken where it is installed. The transport is used
without a client around it: a client keeps cookies, follows redirects and reads the environment. This module is
imported by the first request that needs it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from socksio import SOCKSError

from ...adapters.errors import Fault, UpstreamError, UpstreamGarbage, UpstreamRefused, UpstreamTruncated
from ...adapters.outgoing import Headers, Outgoing
from .encoding import decoded
from .exchange import MOST_HEAD, MOST_LINES, WIRE, size_of
from .fast import BODILESS
from .guard import Resolve, addresses_of, resolve_by_system
from .port import Incoming, OnSent, Timeouts
from .request import Origin, RequestWriter
from .timeouts import connect_timeout, first_byte_timeout, idle_timeout, total_end, total_timeout

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    try:
        import httpx2 as httpx
    except ImportError:
        import httpx


class HttpxTransport:
    """
    An `Upstream` over `outgoing.proxy` (http, https or socks5), or directly where that is empty.

    With `user_url`, or without `allow_private`, the name is resolved and judged here, and the proxy gets the address.
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
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=max_idle, keepalive_expiry=idle_seconds or None
        )
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve
        self._writer = RequestWriter()
        # One for each proxy that operators have written into channels: a handful.
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, outgoing: Outgoing, timeouts: Timeouts, on_sent: OnSent | None = None) -> Incoming:
        loop = asyncio.get_running_loop()
        end = total_end(timeouts, loop.time())
        transport = self._transport(outgoing.proxy)
        # The library's own connect and read timeouts tell the two phases apart; the total is ours.
        patience: dict[str, float | None] = {
            "connect": timeouts.connect or None,
            "pool": timeouts.connect or None,
            "read": timeouts.first_byte or None,
            "write": timeouts.first_byte or None,
        }
        try:
            async with asyncio.timeout_at(end if end < inf else None):
                request = await self._request(outgoing, patience)
                request.extensions["trace"] = _follow(on_sent)
                response = await transport.handle_async_request(request)
        except TimeoutError as error:
            raise total_timeout(timeouts.total) from error
        except httpx.TransportError as error:
            raise _send_error(error, timeouts) from error
        except SOCKSError as error:  # a proxy that hangs up, or is none: the library lets it through as it is
            raise _proxy_refuses() from error
        # From here on the silence is counted by `read`, and only while somebody reads.
        patience["read"] = None
        incoming = HttpxIncoming(response, timeouts, end, self._drop)
        try:
            encodings = incoming.read_head()
        except UpstreamGarbage:
            incoming.close()
            raise
        return decoded(incoming, encodings)

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()
        self._transports.clear()
        if self._closing:
            await asyncio.wait(self._closing)

    def _transport(self, proxy: str) -> "httpx.AsyncHTTPTransport":
        transport = self._transports.get(proxy)
        if transport is None:
            try:
                # `port` raises for 99999, which the library would try to connect to.
                if proxy and urlsplit(proxy).port == 0:
                    raise ValueError("port 0")
                transport = httpx.AsyncHTTPTransport(
                    verify=self._tls, trust_env=False, limits=self._limits, proxy=httpx.Proxy(proxy) if proxy else None
                )
            except (ValueError, httpx.InvalidURL) as error:  # the URL may hold a password and is not shown
                raise UpstreamRefused(f"The channel's proxy cannot be used ({type(error).__name__}).") from None
            self._transports[proxy] = transport
        return transport

    async def _request(self, outgoing: Outgoing, patience: dict[str, float | None]) -> "httpx.Request":
        target = self._writer.target(outgoing.method, outgoing.url)
        body = outgoing.body
        has_body = bool(body) or outgoing.method not in BODILESS
        # Built for its checks: httpx sends what the fast transport would, or nothing.
        self._writer.head(target, outgoing.headers, len(body), has_body=has_body)
        headers: Headers = [*outgoing.headers, (b"accept-encoding", b"identity")]
        if has_body:
            headers.append((b"content-length", b"%d" % len(body)))
        try:
            url = httpx.URL(outgoing.url)
        # Stricter than DNS about hosts of digits and dots.
        except httpx.InvalidURL:
            raise UpstreamRefused("The upstream's address is not an http or https URL.") from None
        extensions: dict[str, object] = {"timeout": patience}
        if outgoing.user_url or not self._allow_private:
            headers.append((b"host", url.netloc))
            whose = "caller" if outgoing.user_url else "channel"
            url = url.copy_with(host=await self._checked(target.public_origin, whose))
            # The library pools by address; another name on the same one must not inherit this one's TLS.
            headers.append((b"connection", b"close"))
            if target.origin.tls:
                extensions["sni_hostname"] = target.origin.host
        return httpx.Request(outgoing.method, url, headers=headers, content=body, extensions=extensions)

    async def _checked(self, origin: Origin, fault: Fault) -> str:
        """The address to connect to instead of the name, so that nobody resolves it a second time."""
        addresses = await addresses_of(origin.host, origin.port, self._resolve, public_only=True, fault=fault)
        return addresses[0]

    def _drop(self, response: "httpx.Response") -> None:
        task = asyncio.create_task(_close_quietly(response))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class HttpxIncoming:
    """An answer of httpx's; `read` returns one piece as the library has it."""

    def __init__(
        self, response: "httpx.Response", timeouts: Timeouts, end: float, drop: "Callable[[httpx.Response], None]"
    ) -> None:
        self.status = response.status_code
        self.headers: Headers = []
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()
        self._timeouts = timeouts
        self._end = end
        self._drop = drop
        self._ended = False

    @property
    def complete(self) -> bool:
        return self._ended

    def read_head(self) -> list[bytes]:
        """Fill `headers`; the values of `Content-Encoding`. Raises `UpstreamGarbage`."""
        raw = [(name.lower(), value) for name, value in self._response.headers.raw]
        if self.status == 101 or not 200 <= self.status < 600:
            raise UpstreamGarbage(f"The upstream's answer has a status that was not asked for: {self.status}.")
        if self._response.extensions.get("http_version") not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise UpstreamGarbage("The upstream's answer is of a version of HTTP that nobody asked for.")
        if len(raw) > MOST_LINES or size_of(raw) > MOST_HEAD:
            raise UpstreamGarbage("The upstream's answer has a head of more than 64 KiB or 256 lines.")
        named = {part.strip().lower() for name, value in raw if name == b"connection" for part in value.split(b",")}
        self.headers = [header for header in raw if header[0] not in WIRE and header[0] not in named]
        return [value for name, value in raw if name == b"content-encoding"]

    async def read(self) -> bytes:
        if self._ended:
            return b""
        idle = asyncio.get_running_loop().time() + self._timeouts.idle if self._timeouts.idle else inf
        due = min(idle, self._end)
        try:
            async with asyncio.timeout_at(due if due < inf else None):
                return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            return b""
        except TimeoutError as error:
            self.close()
            raise (
                total_timeout(self._timeouts.total) if due == self._end else idle_timeout(self._timeouts.idle)
            ) from error
        except httpx.TransportError as error:
            self.close()
            raise _read_error(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._drop(self._response)


async def _close_quietly(response: "httpx.Response") -> None:
    """The connection is being dropped: that it was broken already is no news."""
    try:
        await response.aclose()
    except (httpx.TransportError, OSError):
        return


def _follow(on_sent: OnSent | None) -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    """
    A trace (httpcore, "Extensions") that calls `on_sent` when the request's head goes out, and closes the connection to
    a SOCKS proxy that has refused: the library leaves that to the garbage collector.
    """
    stream: Any = None

    async def trace(event: str, info: dict[str, Any]) -> None:
        nonlocal stream
        if on_sent is not None and event.endswith("send_request_headers.started"):
            on_sent()
        elif event.endswith("connect_tcp.complete"):
            stream = info["return_value"]
        elif event.endswith("setup_socks5_connection.failed"):
            await stream.aclose()

    return trace


def _send_error(error: "httpx.TransportError", timeouts: Timeouts) -> UpstreamError:
    if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        return connect_timeout(timeouts.connect)
    if isinstance(error, httpx.TimeoutException):
        return first_byte_timeout(timeouts.first_byte)
    if isinstance(error, httpx.ConnectError):
        if _is_tls(error):
            return UpstreamRefused("TLS with the upstream failed.", code="upstream_tls_failed")
        return UpstreamRefused("The upstream cannot be reached.")
    if isinstance(error, (httpx.ProxyError, httpx.UnsupportedProtocol)):
        return _proxy_refuses()
    return _read_error(error)


def _proxy_refuses() -> UpstreamRefused:
    return UpstreamRefused("The channel's proxy does not let the request through.")


def _read_error(error: "httpx.TransportError") -> UpstreamError:
    # h11 and httpcore have one class for "it ended" and "it is nonsense"; the sentence is all that tells them apart.
    text = str(error)
    if isinstance(error, httpx.ProtocolError) and not text.startswith(("peer closed", "Server disconnected")):
        # Behind a colon h11 quotes the line, which may hold anything, the channel's key too.
        return UpstreamGarbage(f"The upstream's answer is not HTTP: {text.partition(': ')[0]}.")
    return UpstreamTruncated("The upstream's answer broke off.")


def _is_tls(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, ssl.SSLError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
