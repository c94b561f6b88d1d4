"""
uvicorn's HTTP/1.1 protocol with the bounds it lacks: on a head's size, on the time it may take, on how its body may be
coded, and on what may follow; and without the timer that it sets for each request.

Nothing of this waits for a key: whoever can connect can send a head.
"""

import asyncio
from math import inf
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..adapters.error_envelope import error_answer
from ..adapters.errors import BadRequest, ClientError, HeadTooLarge, UnknownTransferCoding
from ..middleware.request_id import RequestIds
from .http_cycle import Cycle

MOST_HEAD_BYTES = 64 * 1024
HEAD_WITHIN = 30.0
"""Seconds from a head's first byte, or from the connection's beginning, to the head's end."""
LAST_REQUEST_WITHIN = 1.0
"""Seconds that a server which ends gives a connection that has just been made to send its request."""
SWEEP_EVERY = 2.0
"""Seconds; a connection may live that much longer than it is allowed to."""
TAKES_WITHIN = 120.0
"""Seconds that a client may take nothing, while an answer waits for it to, or its connection is to end."""
REQUEST_IDS = RequestIds()
"""For what never becomes a request."""
MOST_WAITING = 100
"""Requests on one connection that wait for the answers before theirs. Each takes 60 times the memory of its bytes."""


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The request's line and headers are larger than {MOST_HEAD_BYTES // 1024} KiB.")


class Sweep:
    """
    Drops the connections whose patience has ended. One timer for all, and no work for a request.

    Whoever takes nothing of an answer would keep the socket, and the answer, for good: a closed transport stays until
    its client has taken what was written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.connections: set[HttpProtocol] = set()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: "HttpProtocol") -> None:
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_EVERY, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.takes_nothing(now):
                connection.transport.abort()
            elif connection.due <= now and connection.is_left_alone and not connection.transport.is_closing():
                connection.transport.close()
        self._timer = self._loop.call_later(SWEEP_EVERY, self._sweep) if self.connections else None


class HttpProtocol(HttpToolsProtocol):
    """
    One connection. Takes the place of uvicorn's own by `uvicorn.Config(http=HttpProtocol)`.

    A head, or trailers, beyond `MOST_HEAD_BYTES` are answered with 431. An `Upgrade` to anything but a WebSocket, or
    behind a request that is still served, is passed over, as RFC 9110 (7.8) allows: uvicorn would take the body for
    another protocol and lose it.
    """

    cycle: Cycle | None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.due = inf
        """The loop's time at which the wait for a request, or for the end of its head, is over."""
        self._untaken = -1
        """Bytes that waited for the client when they were last looked at, and since when they are as many."""
        self._untaken_since = 0.0
        self._kept_alive = False
        """The wait is that for the first byte of another request."""
        self._last = False
        """The server ends: the next request is the last one."""
        self._running: Cycle | None = None
        """The request that is served; `cycle` is the last one that has come, which may still wait in the pipeline."""
        self._unanswered = 0
        """Bytes since the last end of a head or piece of a body: what the parser holds, or takes and gives nothing."""
        # One a server, beside the other things that its connections share.
        shared = vars(self.server_state)
        self._sweep: Sweep = shared.get("sweep") or shared.setdefault("sweep", Sweep(self.loop))

    @property
    def is_left_alone(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    def takes_nothing(self, now: float) -> bool:
        """Whether the client has not taken a byte for too long. To be asked now and then."""
        waits = self.flow.write_paused or self.transport.is_closing()
        untaken = self.transport.get_write_buffer_size() if waits else -1
        if not waits or untaken != self._untaken:
            self._untaken, self._untaken_since = untaken, now
        return now >= self._untaken_since + TAKES_WITHIN

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.due = self.loop.time() + HEAD_WITHIN
        self._sweep.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sweep.connections.discard(self)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle is None:
            # Its request may be on its way, or lie here unread: to close now would be to reset it.
            self._last = True
            self.loop.call_later(LAST_REQUEST_WITHIN, super().shutdown)
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._kept_alive:
            self._kept_alive = False
            self.due = inf
        self._unanswered += len(data)
        upgrade = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            return self._refuse(_reason(error))
        except httptools.HttpParserUpgrade as found:
            upgrade = found  # gone on with below: what is raised in here would hide the reason of a refusal
        if upgrade is not None:
            if self._upgrades_to_websocket():
                return self._become_websocket()
            self._pass_over(upgrade, memoryview(data))
        # Nothing of this holds for a head that came in one piece, and for bodies.
        cycle = self.cycle
        if self._unanswered or cycle is None or cycle.response_complete:
            if self._unanswered > MOST_HEAD_BYTES:
                return self._refuse(head_too_large())
            if self.due == inf:
                self.due = self.loop.time() + HEAD_WITHIN

    def on_headers_complete(self) -> None:
        if self._unanswered > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES:
            raise head_too_large()
        self._unanswered = 0
        self.due = inf
        parser = self.parser
        version = parser.get_http_version()
        self.scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            self.scope["http_version"] = version
        if parser.should_upgrade():
            return  # the parser stops here, and `data_received` goes on
        for name, _ in self.headers:
            if name == b"transfer-encoding":
                self._check_transfer_codings()
                break
        self._name_target()
        self._begin(version != "1.0" and not self._last and parser.should_keep_alive())
        # The list is the app's now, and trailers are no headers (RFC 9110, 6.5.1): they come from behind whatever has
        # checked the head.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._unanswered = 0
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.parts.append(body)
        cycle.waiting += len(body)
        if cycle.waiting > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        # Behind an upgrade that the parser stops for, the cycle is still that of the request before.
        if cycle is not None and not cycle.response_complete and not self.parser.should_upgrade():
            cycle.more_body = False
            cycle.message_event.set()

    def _name_target(self) -> None:
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"  # `http://host` is a whole target too (RFC 9112, 3.2.2)
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""

    def _check_transfer_codings(self) -> None:
        """
        That there is only `chunked`. The parser looks for nothing but that it is the last one, so that the app would
        get compressed bytes, or a body that another server on the way has cut elsewhere.
        """
        lines = [value for name, value in self.headers if name == b"transfer-encoding"]
        codings = [coding.strip().lower() for coding in b",".join(lines).split(b",")]
        if codings == [b"chunked"]:
            return
        if codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
            # RFC 9112 (6.3): the end of such a body cannot be told.
            raise BadRequest("Transfer-Encoding must be chunked, once.", code="invalid_http")
        raise UnknownTransferCoding(
            "Transfer-Encoding may be nothing but chunked here.",
            headers=((b"x-should-retry", b"false"),),  # OpenAI's clients send again what gets a 5xx
        )

    def _begin(self, keep_alive: bool) -> None:
        """Start the app, or let it wait until the requests before this one are answered."""
        before = self.cycle
        cycle = self.cycle = Cycle(self, keep_alive=keep_alive)  # pyright: ignore[reportIncompatibleVariableOverride]
        app = cast(Any, self.app)
        if before is None or before.response_complete:
            self._running = cycle
            self._start_asgi_task(cycle, app)
        else:
            if len(self.pipeline) >= MOST_WAITING:
                raise BadRequest("Too many requests were sent before their answers.", code="invalid_http")
            # Read on behind one that waits: else nobody would notice that its client has left.
            if self.pipeline:
                self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            # Not read on for what still waits: with each answer, more would come than is answered.
            cycle, app = self.pipeline.pop()
            self._running = cast("Cycle", cycle)
            return self._start_asgi_task(cycle, app)
        self.flow.resume_reading()
        if self.due == inf:
            self.due = self.loop.time() + self.timeout_keep_alive
            self._kept_alive = True

    def _upgrades_to_websocket(self) -> bool:
        self.headers = cast("list[tuple[bytes, bytes]]", self.scope["headers"])
        # While a request is served the connection is its own: its answer comes first, as fast as its client takes it.
        return self.is_left_alone and self._should_upgrade()

    def _become_websocket(self) -> None:
        """Hand over to uvicorn's protocol, which has no bound on time: only with a handshake that it can read."""
        self._sweep.connections.discard(self)
        self.handle_websocket_upgrade()
        # About one with a body or a long line it says nothing, and takes whatever follows, for good.
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            self._refuse(BadRequest("This is no WebSocket handshake that can be read.", code="invalid_http"))

    def _pass_over(self, upgrade: Exception, data: memoryview) -> None:
        """Read the head again without its upgrade, then what has come behind it, which may hold the next upgrade."""
        while True:
            data = data[cast("int", upgrade.args[0]) :]
            if self.parser.get_method() == b"CONNECT":
                return self._refuse(BadRequest("CONNECT is not served here.", code="method_not_allowed"))
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(head)
                if data:
                    self.parser.feed_data(data)
                return
            except httptools.HttpParserError as error:
                return self._refuse(_reason(error))
            except httptools.HttpParserUpgrade as another:
                upgrade = another

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in cast("list[tuple[bytes, bytes]]", self.scope["headers"]):
            if name == b"connection":
                value = b",".join(part for part in value.split(b",") if part.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, failure: ClientError) -> None:
        """Say why, unless an answer is on its way that this would break into, and close."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline):
            request_id = REQUEST_IDS.next()
            answer = error_answer(failure, request_id)
            headers = [
                *self.server_state.default_headers,
                *answer.headers,
                (b"x-request-id", request_id.encode()),
                (b"connection", b"close"),
            ]
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self.transport.write(STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body)
        self.transport.close()


def _reason(error: httptools.HttpParserError) -> ClientError:
    """What a callback has raised, or that this is no HTTP."""
    if isinstance(error.__context__, ClientError):
        return error.__context__
    return BadRequest("This is no HTTP request that can be read.", code="invalid_http")
