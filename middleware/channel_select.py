"""Makes the plan: every channel that can serve the call, best first."""

from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.errors import Forbidden
from .ports import ChannelPool
from .routing.affinity import conversation
from .state import CALL, PLAN, PRINCIPAL, Principal

ANYBODY = Principal(token_id=0, user_id=0)


class ChannelSelectMiddleware:
    """
    Refuse with 403 a model that the key may not use and with 404 one that nobody serves; else write PLAN.

    Reads CALL, and PRINCIPAL if it is there (without it the group is `default`). It chooses, failover tries: the plan
    is made once, from one snapshot. Place it inside model_suffix and outside failover.

        app = IntakeMiddleware(ChannelSelectMiddleware(app, pool=MemoryChannelPool([channel])))
    """

    def __init__(self, app: ASGIApp, *, pool: ChannelPool) -> None:
        self.app = app
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        call = CALL.get(scope)
        principal = PRINCIPAL.find(scope) or ANYBODY
        models = (call.model,) if call.base_model == call.model else (call.model, call.base_model)
        if principal.models is not None and principal.models.isdisjoint(models):
            raise Forbidden(
                f"This API key may not use the model {call.model!r}.", param="model", code="model_not_allowed"
            )
        affinity = conversation(call, principal.token_id)
        PLAN.set(scope, self.pool.plan(principal, models, call.operation, affinity=affinity))
        await self.app(scope, receive, send)
