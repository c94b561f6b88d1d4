"""One line a request, whatever happened inside: structured, without bodies, without keys."""

import time
from collections.abc import Callable

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .state import ATTEMPT, CALL, CHARGE, PRINCIPAL, REQUEST_ID

WriteLine = Callable[[bytes], None]
CLIENT_GONE = 499


class AccessLogMiddleware:
    """
    Hand one JSON line for each HTTP request to `write`, which must not block (the gateway gathers them).

    Reads whatever the layers inside have written; alone, it logs method, path, status and time. Place it outside the
    error envelope, so that it sees the status that the client sees. The query is left out: keys may stand in it.

        app = AccessLogMiddleware(app, write=sys.stdout.buffer.write)
    """

    def __init__(self, app: ASGIApp, *, write: WriteLine) -> None:
        self.app = app
        self.write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        status = 0
        first_byte = None
        size = 0

        def watched_send(message: Message):
            nonlocal status, first_byte, size
            if message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
                status = message["status"]
                first_byte = time.perf_counter() - started
            return send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            self.write(line(scope, status or CLIENT_GONE, time.perf_counter() - started, first_byte, size))


def line(scope: Scope, status: int, duration: float, first_byte: float | None, size: int) -> bytes:
    """The line, with its newline. Durations in milliseconds, sizes in bytes; 499 means that the client left first."""
    client = scope.get("client")
    entry: dict[str, object] = {
        "time": round(time.time(), 3),
        "request_id": REQUEST_ID.find(scope),
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "duration_ms": round(duration * 1000, 2),
        "first_byte_ms": first_byte and round(first_byte * 1000, 2),
        "bytes": size,
        "address": client[0] if client else None,
    }
    if (principal := PRINCIPAL.find(scope)) is not None:
        entry["user_id"], entry["token_id"] = principal.user_id, principal.token_id
    if (call := CALL.find(scope)) is not None:
        entry["model"], entry["stream"] = call.model, call.stream
    if (attempt := ATTEMPT.find(scope)) is not None:
        entry["channel_id"], entry["attempts"] = attempt.channel.id, attempt.number
    if (charge := CHARGE.find(scope)) is not None:
        entry["input_tokens"], entry["output_tokens"] = charge.usage.input_tokens, charge.usage.output_tokens
        entry["quota"], entry["ending"] = charge.quota, charge.ending
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
