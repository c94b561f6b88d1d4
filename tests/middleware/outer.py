"""What the tests of the outer layers share, beyond `inner`: a clock to set, whole scopes, charges, apps that act."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from tollway.config.pricing import Usage
from tollway.middleware.state import Charge, RelayState, state_of

from .inner import CHAT, Client, Message, scope_of

HELLO = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}'
JSON = (b"content-type", b"application/json")


class Clock:
    """Stands still until somebody moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Setting:
    """An app that writes these fields of the request's state, as inner layers do, moves a clock, and answers."""

    def __init__(self, clock: Clock | None = None, before: float = 0.0, after: float = 0.0, **fields: Any) -> None:
        self.clock = clock or Clock()
        self.before = before
        self.after = after
        self.fields = fields

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for name, value in self.fields.items():
            setattr(state_of(scope), name, value)
        self.clock.now += self.before
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.clock.now += self.after
        await send({"type": "http.response.body", "body": b"{}"})


def raising(failure: BaseException, *, after: int = 0) -> Any:
    """An app that raises: at once, behind its head (after=1), or behind a part of its body (after=2)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if after > 1:
            await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        raise failure

    return app


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """An app that finds that the client has left, and returns."""


class Waiting:
    """An app that is inside until it is told to go on."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with it, using neither of the fields that ASGI lets an app leave out."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})


def starlette_app() -> ASGIApp:
    async def chat(request: Request) -> JSONResponse:
        return JSONResponse({"model": (await request.json())["model"], "url": str(request.url)})

    async def health(request: Request) -> StreamingResponse:
        return StreamingResponse(iter(("one ", "two")), status_code=203)

    return Starlette(routes=[Route(CHAT.path, chat, methods=["POST"]), Route("/health", health)])


def fastapi_app() -> ASGIApp:
    app = FastAPI()

    @app.post(CHAT.path)
    async def chat(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        return {"model": body["model"], "url": str(request.url)}

    @app.get("/health")
    async def health() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "one "
            yield "two"

        return StreamingResponse(parts(), status_code=203)

    return app


async def call(layer: Any, scope: Message | None = None, client: Client | None = None) -> Client:
    """One request through a layer. Returns the client, which has kept the answer."""
    client = client or Client.sending(HELLO)
    await layer(scope_of() if scope is None else scope, client.receive, client.send)
    return client


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until this holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a condition may be anything
            await asyncio.sleep(0)


def whole_scope(path: str = CHAT.path, *headers: tuple[bytes, bytes], **given: Any) -> Message:
    """A scope with everything that a server must put into it."""
    scope = scope_of(path, *headers)
    return scope | {"asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http"} | given


def state_with(**fields: Any) -> Message:
    """What `scope["state"]` holds when layers further out have written these fields."""
    return {"tollway": RelayState(**fields)}


def charge_of(input_tokens: int = 10, output_tokens: int = 5, **given: Any) -> Charge:
    values = {
        "quota": 7,
        "usage": Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        "tariff": None,
        "ending": "completed",
        "operation": CHAT.name,
        "model": "gpt-4o",
        "stream": False,
        "status": 200,
        "started_at": 0.0,
        "duration": 1.0,
        "first_byte": 0.5,
        "request_id": "",
        "address": "",
        "principal": None,
        "attempt": None,
    }
    return Charge(**(values | given))
