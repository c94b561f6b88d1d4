"""The model lists: what the caller's key can use now, in OpenAI's shape."""

from urllib.parse import unquote

import orjson
from starlette.types import Receive, Scope, Send

from ...adapters.errors import NotFound
from ...adapters.operations import MODEL_PREFIX
from ...adapters.providers.registry import PROVIDERS
from ...adapters.requests.model_suffix import parse_model
from ...config.live import Live
from ...config.options import Options
from ...middleware.memory import MemoryChannelPool
from ...middleware.paths import route_path
from ...middleware.ports import Prices
from ...middleware.state import Principal, missing, state_of

CREATED = 1626777600
"""One date for every model: vendors' own are not known, and clients want a number."""


class ModelsEndpoint:
    """
    `GET /v1/models` and `GET /v1/models/{model}`: only models that would be served. A channel serves them to the
    caller's group, and they have a price, unless `accept_unknown_models` is on.
    """

    def __init__(self, *, pool: MemoryChannelPool, prices: Prices, options: Live[Options]) -> None:
        self.pool = pool
        self.prices = prices
        self.options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = state_of(scope).principal or missing("principal", "TokenAuthMiddleware")
        path = route_path(scope)
        models = self._models(principal)
        if path.startswith(MODEL_PREFIX):
            name = unquote(path.removeprefix(MODEL_PREFIX))
            if name not in models:
                raise NotFound(
                    f"The model {name[:200]!r} does not exist or is not open to you.",
                    param="model",
                    code="model_not_found",
                )
            document = self._describe(principal, name)
        else:
            document = {"object": "list", "data": [self._describe(principal, name) for name in models]}
        body = orjson.dumps(document)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _models(self, principal: Principal) -> list[str]:
        models = self.pool.index.models_of(principal.group)
        if principal.models is not None:
            models = [name for name in models if name in principal.models]
        if self.options.current.accept_unknown_models:
            return models
        return [name for name in models if self.prices.price_for(name, parse_model(name).base) is not None]

    def _describe(self, principal: Principal, name: str) -> dict[str, object]:
        first = self.pool.index.serving(principal.group, name)[0]
        owner = PROVIDERS[first.type].name.lower()
        return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}
