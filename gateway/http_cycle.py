"""One request and its answer on a connection: uvicorn's cycle, with the work of each message done in fewer steps."""

import asyncio
from collections.abc import Iterable
from itertools import chain
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ..adapters.outgoing import TOKEN

BODILESS = frozenset({204, 304})
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
"""Headers that say how the answer ends, and what becomes of the connection; the last is the server's own to write."""
JOIN_UP_TO = 64 * 1024
"""Bytes of a body that are copied behind their head, so that both are one write."""
MOST_KEPT = 1024


class _Prefixes(dict[bytes, bytes]):
    """What stands before a header's value on the wire, by the header's name, which is checked when it is first seen."""

    def __missing__(self, name: bytes) -> bytes:
        if not TOKEN.fullmatch(name):
            raise RuntimeError("Invalid HTTP header name.")
        prefix = b"\r\n" + name.lower() + b": "
        if len(self) < MOST_KEPT:
            self[name] = prefix
        return prefix


PREFIXES = _Prefixes()


class Cycle(RequestResponseCycle):
    """
    What the app sees as `receive` and `send`. An answer's head goes out with the first bytes of its body, in one write,
    as ASGI 3.0 has it.
    """

    # Defaults stand on the class: most of them are never anything else.
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    ends_with_connection = False
    """The answer has no length and no chunks: its end is the connection's."""
    waiting = 0
    """Bytes of `parts`."""
    head = b""
    """The answer's head, as long as it has not been sent."""

    def __init__(self, connection: HttpToolsProtocol, *, keep_alive: bool) -> None:
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.default_headers = connection.server_state.default_headers
        self.message_event = asyncio.Event()
        self.waiting_for_100_continue = connection.expect_100_continue
        self.keep_alive = keep_alive
        self.on_response = connection.on_response_complete
        self.parts: list[bytes] = []
        """What has come of the request's body since the app last asked."""

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            event = self.message_event
            if not event.is_set():
                await event.wait()
            event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        parts, self.parts, self.waiting = self.parts, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started and not self.response_complete:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self.head = self._head_of(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"The ASGI message {kind!r} has no place here.")

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Raises RuntimeError for what is no header, or would end one."""
        parts = [STATUS_LINE[status][:-2]]
        for name, value in chain(self.default_headers, headers):
            if name in FRAMING:
                self._note_framing(name, value)
                if name == b"connection":
                    continue
            parts.append(PREFIXES[name])
            parts.append(value)
        lines = len(parts) // 2 + 2
        if not self.keep_alive:
            parts.append(b"\r\nconnection: close")
            lines += 1
        if self.scope["method"] == "HEAD":
            self.chunked_encoding = False  # whatever its headers say of the body that another method would get
        elif self.chunked_encoding is None and status not in BODILESS:
            if self.scope["http_version"] == "1.0":  # it knows no chunks (RFC 9112, 6.1)
                self.ends_with_connection = True
            else:
                self.chunked_encoding = True
                parts.append(b"\r\ntransfer-encoding: chunked")
                lines += 1
        parts.append(b"\r\n\r\n")
        head = b"".join(parts)
        # Counting the line breaks of the whole is one pass in C, where a check of each value costs a call a header.
        if head.count(b"\n") != lines or head.count(b"\r") != lines or 0 in head:
            raise RuntimeError("Invalid HTTP header value.")
        return head

    def _note_framing(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if self.chunked_encoding is None:
                self.chunked_encoding = False
                self.expected_content_length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() == b"chunked":
                self.chunked_encoding = True
                self.expected_content_length = 0
        elif b"close" in [token.strip().lower() for token in value.split(b",")]:
            self.keep_alive = False

    def _send_body(self, body: bytes, more: bool) -> None:
        """Raises RuntimeError when the body is longer or shorter than its head has said."""
        head = self.head
        if head:
            self.head = b""
        if self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif not self.ends_with_connection:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if len(body) > JOIN_UP_TO:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body if head else body)
        if not more:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
