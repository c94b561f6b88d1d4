"""CORS, which is a browser's question: whoever sends no `Origin` has not asked."""

from collections.abc import Awaitable
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class CorsWhenAsked:
    """Starlette's CORS layer, for requests with an `Origin`; all others pass by it. Takes its options."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self.app = app
        self.cors = CORSMiddleware(app, **options)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    return self.cors(scope, receive, send)
        return self.app(scope, receive, send)
