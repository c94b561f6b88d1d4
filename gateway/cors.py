"""CORS, which is a browser's question: whoever sends no `Origin` has not asked."""

from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class CorsWhenAsked:
    """Starlette's CORS layer, for requests with an `Origin`; all others pass by it. Takes its options."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self.app = app
        self.cors = CORSMiddleware(app, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    return await self.cors(scope, receive, send)
        await self.app(scope, receive, send)
