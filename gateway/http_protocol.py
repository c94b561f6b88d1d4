"""
uvicorn's HTTP/1.1 protocol with the bounds it lacks: on a head's size, on the time it may take, and on what may follow.

Nothing of this waits for a key: whoever can connect can send a head.
"""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..adapters.envelope import error_answer
from ..adapters.errors import BadRequest, ClientError, HeadTooLarge

MOST_HEAD_BYTES = 64 * 1024
HEAD_WITHIN = 30.0
"""Seconds from a head's first byte, or from the connection's beginning, to the head's end."""
SWEEP_EVERY = 2.0

begin_request = HttpToolsProtocol.on_headers_complete  # by name: `super()` costs more, and this is every request


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The request's line and headers are larger than {MOST_HEAD_BYTES // 1024} KiB.")


class HeadSweep:
    """Drops the connections whose head does not come to its end. One timer for all; none while all are served."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: set[HttpProtocol] = set()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: "HttpProtocol") -> None:
        self.waiting.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_EVERY, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self.waiting):
            if connection.waits_since is None:
                self.waiting.discard(connection)
            elif now - connection.waits_since >= HEAD_WITHIN and connection.is_left_alone:
                self.waiting.discard(connection)
                connection.transport.close()
        self._timer = self._loop.call_later(SWEEP_EVERY, self._sweep) if self.waiting else None


class HttpProtocol(HttpToolsProtocol):
    """
    One connection. Takes the place of uvicorn's own by `uvicorn.Config(http=HttpProtocol)`.

    A head, or trailers, beyond `MOST_HEAD_BYTES` are answered with 431. An `Upgrade` to anything but a WebSocket is
    passed over, as RFC 9110 (7.8) allows: uvicorn would take the body for another protocol and lose it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.waits_since: float | None = None
        """When the wait for the end of a head began; None while there is no such wait."""
        self._unanswered = 0
        """Bytes since the last end of a head or piece of a body: what the parser holds, or takes and gives nothing."""
        # One a server, beside the other things that its connections share.
        shared = vars(self.server_state)
        self._sweep: HeadSweep = shared.get("head_sweep") or shared.setdefault("head_sweep", HeadSweep(self.loop))

    @property
    def is_left_alone(self) -> bool:
        """Whether no request is being served and uvicorn's own timer does not run."""
        idle = self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]
        return idle and self.timeout_keep_alive_task is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._waits()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sweep.waiting.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
            self.waits_since = None  # of a request before this one
        self._unanswered += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            return self._refuse(_reason(error))
        except httptools.HttpParserUpgrade as upgrade:
            if self._upgrades_to_websocket():
                self._sweep.waiting.discard(self)
                return self.handle_websocket_upgrade()
            self._pass_over(upgrade, memoryview(data))
        # Nothing of this holds for a head that came in one piece, and for bodies.
        cycle = self.cycle
        if self._unanswered or cycle is None or cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            if self._unanswered > MOST_HEAD_BYTES:
                return self._refuse(head_too_large())
            if self.waits_since is None:
                self._waits()

    def on_headers_complete(self) -> None:
        if self._unanswered > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES:
            raise head_too_large()
        self._unanswered = 0
        self.waits_since = None
        begin_request(self)
        # The list is the app's now, and trailers are no headers (RFC 9110, 6.5.1): they come from behind whatever has
        # checked the head.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """As uvicorn's, which also asks for upgrades: behind one there is no body."""
        self._unanswered = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        """Asked by uvicorn's callbacks only where the parser stops for an upgrade: from there we go on ourselves."""
        return True

    def _upgrades_to_websocket(self) -> bool:
        self.headers = cast("list[tuple[bytes, bytes]]", self.scope["headers"])
        return super()._should_upgrade()

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

    def _waits(self) -> None:
        self.waits_since = self.loop.time()
        self._sweep.watch(self)

    def _refuse(self, failure: ClientError) -> None:
        """Say why, unless an answer is on its way that this would break into, and close."""
        cycle = self.cycle
        quiet = cycle is None or cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]
        if quiet or not (cycle.response_started or self.pipeline):
            answer = error_answer(failure, "")
            headers = [*self.server_state.default_headers, *answer.headers, (b"connection", b"close")]
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self.transport.write(STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body)
        self.transport.close()


def _reason(error: httptools.HttpParserError) -> ClientError:
    """What a callback has raised, or that this is no HTTP."""
    if isinstance(error.__context__, HeadTooLarge):
        return error.__context__
    return BadRequest("This is no HTTP request that can be read.", code="invalid_http")
