"""
ASGILint: an ASGI app that passes everything on and holds both sides of an HTTP exchange to the ASGI 3.0 specification
(asgi.readthedocs.io, "HTTP & WebSocket"). A breach is an `AssertionError` that says which side did what.

Put one outside and one inside a layer: what the layer says to either neighbour is then checked.
"""

from collections.abc import Iterable
from typing import Any

Message = dict[str, Any]
SCOPE_TYPES = {
    "asgi": dict,
    "http_version": str,
    "method": str,
    "path": str,
    "query_string": bytes,
    "headers": Iterable,
}


class ASGILint:
    """`app = ASGILint(app)`. `streams` counts the exchanges that were checked to their end."""

    def __init__(self, app: Any, name: str = "the app") -> None:
        self.app = app
        self.name = name
        self.streams = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        check_scope(scope)
        exchange = _Exchange(self.name)

        async def checked_receive() -> Message:
            message = await receive()
            exchange.receives(message)
            return message

        async def checked_send(message: Message) -> None:
            exchange.sends(message)
            await send(message)

        await self.app(scope, checked_receive, checked_send)
        exchange.returns()
        self.streams += 1


class _Exchange:
    """One request and its answer, as the app under test sees and tells them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = False
        self.ended = False
        self.read = False
        self.gone = False

    def receives(self, message: Message) -> None:
        match message.get("type"):
            case "http.request":
                assert not self.read, "the request's body is received again behind its end"
                assert not self.gone, "http.request is received behind http.disconnect"
                assert type(message.get("body", b"")) is bytes, "the request's body must be bytes"
                assert type(message.get("more_body", False)) is bool, "more_body must be a bool"
                self.read = not message.get("more_body", False)
            case "http.disconnect":
                self.gone = True
            case other:
                raise AssertionError(f"{other!r} cannot be received over HTTP")

    def sends(self, message: Message) -> None:
        assert type(message) is dict, f"{self.name} sends {type(message)}, not a dict"
        match message.get("type"):
            case "http.response.start":
                assert not self.started, f"{self.name} starts its answer twice"
                self.started = True
                assert type(message.get("status")) is int, f"{self.name} sends no whole number as its status"
                assert 100 <= message["status"] <= 999, f"{self.name} sends the status {message['status']}"
                check_headers(message.get("headers", ()), self.name)
                assert message.keys() <= {"type", "status", "headers", "trailers"}, f"{self.name} adds {message.keys()}"
            case "http.response.body":
                assert self.started, f"{self.name} sends a body before its head"
                assert not self.ended, f"{self.name} sends a body behind its last one"
                assert type(message.get("body", b"")) is bytes, f"{self.name} sends a body that is not bytes"
                assert type(message.get("more_body", False)) is bool, f"{self.name}: more_body must be a bool"
                assert message.keys() <= {"type", "body", "more_body"}, f"{self.name} adds {message.keys()}"
                self.ended = not message.get("more_body", False)
            case other:
                raise AssertionError(f"{self.name} sends {other!r} over HTTP")

    def returns(self) -> None:
        assert self.ended or self.gone, f"{self.name} returns without having ended its answer"


def check_scope(scope: Any) -> None:
    """The fields that the specification requires, and the shape of those that it does not."""
    for name, kind in SCOPE_TYPES.items():
        assert name in scope, f"the scope has no {name!r}"
        assert isinstance(scope[name], kind), f"the scope's {name!r} is {type(scope[name])}"
    assert scope["method"] == scope["method"].upper(), "the method must be in capitals"
    check_headers(scope["headers"], "the server")
    assert isinstance(scope.get("state", {}), dict), "the scope's state must be a dict"
    root_path = scope.get("root_path", "")
    assert isinstance(root_path, str), "root_path must be text"
    assert scope["path"].startswith(root_path), "the path must begin with root_path"


def check_headers(headers: Iterable[Any], name: str) -> None:
    for header in headers:
        assert len(header) == 2, f"{name} has a header of {len(header)} parts"
        field, value = header
        assert type(field) is bytes, f"{name} has a header name that is not bytes: {field!r}"
        assert type(value) is bytes, f"{name} has a header value that is not bytes: {field!r}"
        assert field, f"{name} has a header without a name"
        assert field == field.lower(), f"{name} has a header name in capitals: {field!r}"
        assert not set(b"\r\n\0") & set(field + value), f"{name} has a line break in a header: {field!r}"
        assert value == value.strip(b" \t"), f"{name} pads the value of {field!r}"
