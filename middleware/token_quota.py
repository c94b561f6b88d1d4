"""Opens the hold on the caller's money, and guarantees that it is closed, whatever happens inside."""

from starlette.types import ASGIApp, Receive, Scope, Send

from .ports import Ledger
from .state import missing, state_of


class TokenQuotaMiddleware:
    """
    Refuse with 402 a caller whose user or token has nothing left; hold, for the others, what the request may cost.

    Reads `principal`, writes `hold`. The hold is opened at 0: metering, further in, knows the price and sizes it. If
    nobody settles it, it is released: a request that fails costs nothing, and no hold outlives its request.

    Place it inside token_auth and outside metering.

        app = TokenQuotaMiddleware(app, ledger=MemoryLedger(users={1: 500_000}))
    """

    def __init__(self, app: ASGIApp, *, ledger: Ledger) -> None:
        self.app = app
        self.ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        principal = state.principal or missing("principal", "TokenAuthMiddleware")
        hold = state.hold = await self.ledger.open(principal, state.request_id)
        try:
            await self.app(scope, receive, send)
        finally:
            hold.release()
