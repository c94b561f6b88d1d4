"""One line a request, whatever happened inside: structured, without bodies, without keys."""

import time
from collections.abc import Callable

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .paths import address_of
from .state import Failure, state_of

CLIENT_GONE, DEFECT = 499, 500


class Line(Struct, frozen=True, omit_defaults=True):
    """
    What is logged of a request, as it is logged; `str` makes one line of JSON of it, without its end.

    `time` is seconds since the epoch, at the request's end. `first_byte_ms` is null where no byte was sent, `bytes` the
    size of the body. What has a default here is left out where no layer has written it. The JSON is made by whoever
    writes the line (with msgspec, many at a time): a request is not held up by its own log.
    """

    time: float
    request_id: str | None
    method: str
    path: str
    status: int
    duration_ms: float
    first_byte_ms: float | None
    bytes: int
    address: str | None
    user_id: int | None = None
    token_id: int | None = None
    model: str | None = None
    stream: bool | None = None
    channel_id: int | None = None
    attempts: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    quota: int | None = None
    ending: str | None = None
    error_code: str | None = None
    failures: tuple[Failure, ...] | None = None

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


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
            self.write(line_of(scope, status or CLIENT_GONE, time.perf_counter() - started, first_byte, size))


def line_of(scope: Scope, status: int, duration: float, first_byte: float | None, size: int) -> Line:
    """The line of a request that is over. `duration` and `first_byte` are in seconds."""
    state = state_of(scope)
    principal, call, attempt, charge = state.principal, state.call, state.attempt, state.charge
    return Line(
        int(time.time() * 1000) / 1000,
        state.request_id or None,
        scope["method"],
        scope["path"],
        status,
        milliseconds(duration),
        None if first_byte is None else milliseconds(first_byte),
        size,
        address_of(scope) or None,
        principal.user_id if principal is not None else None,
        principal.token_id if principal is not None else None,
        call.model if call is not None else None,
        call.stream if call is not None else None,
        attempt.channel.id if attempt is not None else None,
        attempt.number if attempt is not None else None,
        charge.usage.input_tokens if charge is not None else None,
        charge.usage.output_tokens if charge is not None else None,
        charge.quota if charge is not None else None,
        charge.ending if charge is not None else None,
        state.error or None,
        state.failures or None,
    )


def milliseconds(seconds: float) -> float:
    """With two digits behind the point."""
    return int(seconds * 100_000 + 0.5) / 100
