"""The relay's door: which requests are operations at all, and which of them the gateway answers itself."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from ...adapters.errors import MethodNotAllowed, NotFound
from ...adapters.operations import BY_PATH, operation_at
from ...middleware.paths import operation_of, route_path

NOT_SERVED_YET = {
    "responses": "responses are",
    "files": "files are",
    "batches": "batches are",
    "realtime": "realtime is",
    "messages": "Anthropic's dialect is",
}
"""By what stands behind /v1/: what clients may well ask for, and the README says is missing."""


class RelayDoor:
    """
    Refuse unknown paths with 404 and wrong methods with 405, before anything is asked of the caller.

    Has nothing to do once it has opened, so it is no coroutine: one less to wake for each event of a stream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            method, operation = scope["method"], operation_of(scope)
            if operation is None:
                raise NotFound(f"Unknown URL: {method} {scope['path'][:200]}{_hint(scope)}", code="unknown_url")
            if method != operation.method:
                raise MethodNotAllowed(
                    f"{operation.path} takes {operation.method}.", headers=((b"allow", operation.method.encode()),)
                )
        elif scope["type"] == "websocket":
            # No operation speaks WebSocket yet. Closing before accepting is answered with 403 (ASGI 3.0).
            return send({"type": "websocket.close", "code": 1008})
        return self.app(scope, receive, send)


def _hint(scope: Scope) -> str:
    """For a base URL that lacks its end, the commonest mistake of all, or goes beyond it; and for what is missing."""
    path = route_path(scope)
    if operation_at(f"/v1{path}") or operation_at(path.removeprefix("/v1")) or _has_an_operation_before(path):
        once = " once" if path.startswith("/v1/v1/") else ""
        return f": the base URL must end in {scope['path'].removesuffix(path)}/v1{once}"
    if path.startswith("/v1beta/"):
        return ": Gemini's dialect is not served yet"
    missing = NOT_SERVED_YET.get(path.removeprefix("/v1/").partition("/")[0])
    return f": {missing} not served yet" if missing else ""


def _has_an_operation_before(path: str) -> bool:
    """Whether one operation follows another: the base URL was the whole address of the first."""
    return any(operation_at(f"/v1{path.removeprefix(first)}") for first in BY_PATH if path.startswith(f"{first}/"))


class Dispatch:
    """Send the operations that are relayed down the chain, and the others to the gateway's own endpoint."""

    def __init__(self, *, relayed: ASGIApp, own: ASGIApp) -> None:
        self.relayed = relayed
        self.own = own

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        operation = operation_of(scope)
        app = self.own if operation is not None and not operation.relayed else self.relayed
        return app(scope, receive, send)
