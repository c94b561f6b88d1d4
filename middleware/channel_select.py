"""Makes the plan: every channel that can serve the call, best first."""

from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.call import Call
from ..adapters.errors import Forbidden
from .paths import relayed_operation
from .ports import ChannelPool
from .routing.affinity import conversation
from .state import Principal, missing, state_of

ANYBODY = Principal(token_id=0, user_id=0)


class ChannelSelectMiddleware:
    """
    Refuse with 403 a model that the key may not use and with 404 one that nobody serves; else write `plan`.

    Reads `call`, and `principal` if it is there (without it the group is `default`). It chooses, failover tries: the
    plan is made once, from one snapshot. Requests that are no operation pass untouched. Place it inside model_suffix
    and outside failover.

        app = IntakeMiddleware(ChannelSelectMiddleware(app, pool=MemoryChannelPool([channel])))
    """

    def __init__(self, app: ASGIApp, *, pool: ChannelPool) -> None:
        self.app = app
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        if state.call is None and relayed_operation(scope) is None:
            return await self.app(scope, receive, send)
        principal = state.principal or ANYBODY
        call = state.call = permitted(state.call or missing("call", "IntakeMiddleware"), principal)
        models = (call.model,) if call.base_model == call.model else (call.model, call.base_model)
        state.plan = self.pool.plan(
            principal, models, call.operation, affinity=lambda: conversation(call, principal.token_id)
        )
        await self.app(scope, receive, send)


def permitted(call: Call, principal: Principal) -> Call:
    """
    The call as its key may make it. Raises `Forbidden`.

    A key that may use a model may ask it for more effort. It may not use another model of that longer name, so the call
    then goes by the base name alone.
    """
    if principal.models is None or call.model in principal.models:
        return call
    if call.base_model in principal.models:
        return replace(call, model=call.base_model)
    raise Forbidden(f"This API key may not use the model {call.model!r}.", param="model", code="model_not_allowed")
