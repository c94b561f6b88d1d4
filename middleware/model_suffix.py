"""Reads what a model's name says beyond the model: `o3-mini-high` is `o3-mini` with high effort."""

from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.requests.model_suffix import parse_model
from .state import state_of


class ModelSuffixMiddleware:
    """
    Rewrite `call` with the base model and the effort that the name's suffix asks for.

    Reads and writes `call`. Channels that list the full name are still found by it, and a price of the full name comes
    before the base model's. Place it inside intake and outside channel_select.

        app = IntakeMiddleware(ModelSuffixMiddleware(app))
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        call = state.call
        if call is not None and "-" in call.model:
            name = parse_model(call.model)
            if name.effort is not None:
                state.call = replace(call, base_model=name.base, effort=name.effort)
        await self.app(scope, receive, send)
