"""One line a request, whatever happened inside: structured, without bodies, without keys."""

import time
from collections.abc import Callable

import orjson
from msgspec import Struct
from msgspec.structs import asdict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .paths import address_of
from .state import Attempt, Charge, Failure, Principal, state_of

CLIENT_GONE, DEFECT = 499, 500


class Line(Struct, frozen=True):
    """
    What is logged of a request; `str` and `bytes` make one line of JSON of it, the latter with its end.

    `time` is seconds since the epoch, at the request's end. `duration` and `first_byte` (None: no byte was sent) are in
    seconds, `size` in bytes. The line is made by whoever writes it: a request is not held up by its own log.
    """

    time: float
    request_id: str
    method: str
    path: str
    status: int
    duration: float
    first_byte: float | None
    size: int
    address: str
    principal: Principal | None
    model: str
    stream: bool
    attempt: Attempt | None
    charge: Charge | None
    error: str
    failures: tuple[Failure, ...]

    def __bytes__(self) -> bytes:
        entry: dict[str, object] = {
            "time": round(self.time, 3),
            "request_id": self.request_id or None,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "duration_ms": round(self.duration * 1000, 2),
            "first_byte_ms": self.first_byte and round(self.first_byte * 1000, 2),
            "bytes": self.size,
            "address": self.address or None,
        }
        if (principal := self.principal) is not None:
            entry["user_id"], entry["token_id"] = principal.user_id, principal.token_id
        if self.model:
            entry["model"], entry["stream"] = self.model, self.stream
        if (attempt := self.attempt) is not None:
            entry["channel_id"], entry["attempts"] = attempt.channel.id, attempt.number
        if (charge := self.charge) is not None:
            entry["input_tokens"], entry["output_tokens"] = charge.usage.input_tokens, charge.usage.output_tokens
            entry["quota"], entry["ending"] = charge.quota, charge.ending
        if self.error:
            entry["error_code"] = self.error
        if self.failures:
            entry["failures"] = [asdict(failure) for failure in self.failures]
        return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)

    def __str__(self) -> str:
        return bytes(self).decode().rstrip("\n")


WriteLine = Callable[[Line], object]


class AccessLogMiddleware:
    """
    Hand one `Line` for each HTTP request to `write`, which must not block (the gateway gathers them).

    Reads whatever the layers inside have written; alone, it logs method, path, status and time. Status 499 means that
    the client left first. Place it outside the error envelope, so that it sees the status that the client sees. The
    query is left out: keys may stand in it.

        app = AccessLogMiddleware(app, write=print)
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
        except Exception:
            status = status or DEFECT  # what the server will say
            raise
        finally:
            state = state_of(scope)
            call = state.call
            self.write(
                Line(
                    time.time(),
                    state.request_id,
                    scope["method"],
                    scope["path"],
                    status or CLIENT_GONE,
                    time.perf_counter() - started,
                    first_byte,
                    size,
                    address_of(scope),
                    state.principal,
                    call.model if call is not None else "",
                    call.stream if call is not None else False,
                    state.attempt,
                    state.charge,
                    state.error,
                    state.failures,
                )
            )
