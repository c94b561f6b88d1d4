"""Names each request, so that a client, a log line and a charge can be put side by side."""

import itertools
import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .state import state_of

ACCEPTED = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIds:
    """Ids that no other process makes: the time, a random part and a counter. In order, and much cheaper than UUIDs."""

    def __init__(self) -> None:
        self._prefix = f"req_{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"
        self._counter = itertools.count()

    def next(self) -> str:
        return f"{self._prefix}{next(self._counter):08x}"


class RequestIdMiddleware:
    """
    Honour the client's `X-Request-Id`, or mint one; show it in the answer. Writes `request_id` and `started`.

    Outermost, so that everything inside can name the request. An id with characters beyond `[A-Za-z0-9._:/+=-]` or
    longer than 128 is replaced, for it will stand in logs. Inside another one of its kind, such as that of an app which
    mounts the gateway, it keeps the id that the request has.

        app = RequestIdMiddleware(app)
    """

    def __init__(self, app: ASGIApp, *, header: str = "x-request-id") -> None:
        self.app = app
        self.header = header.lower().encode()
        self.ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        name = self.header
        state = state_of(scope)
        request_id = state.request_id or self.named(scope) or self.ids.next()
        state.request_id = request_id
        state.started = time.perf_counter()
        shown = (name, request_id.encode())

        def send_with_id(message: Message):
            if message["type"] == "http.response.start":
                headers = [header for header in message.get("headers", ()) if header[0] != name]
                headers.append(shown)
                message = {**message, "headers": headers}
            return send(message)

        await self.app(scope, receive, send_with_id)

    def named(self, scope: Scope) -> str:
        """The client's id for the request; "" where it has none, or none that is harmless."""
        name = self.header
        for key, value in scope["headers"]:
            if key == name and ACCEPTED.fullmatch(value):
                return value.decode()
        return ""
