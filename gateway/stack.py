"""The chain, as one list, read from top to bottom: the outermost layer first."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from ..config.settings import Settings
from ..middleware.access_log import AccessLogMiddleware, WriteLine
from ..middleware.channel_select import ChannelSelectMiddleware
from ..middleware.counting import Counting
from ..middleware.error_envelope import ErrorEnvelopeMiddleware
from ..middleware.failover import FailoverMiddleware
from ..middleware.intake import IntakeMiddleware
from ..middleware.metering import MeteringMiddleware
from ..middleware.metrics import RelayMetrics
from ..middleware.model_suffix import ModelSuffixMiddleware
from ..middleware.ports import Ledger, Limiter
from ..middleware.prometheus import PrometheusMiddleware
from ..middleware.rate_limit import RateLimitMiddleware
from ..middleware.request_id import RequestIdMiddleware
from ..middleware.token_auth import TokenAuthMiddleware
from ..middleware.token_quota import TokenQuotaMiddleware
from .cors import CorsWhenAsked
from .relay.door import Dispatch, RelayDoor
from .snapshot import Snapshot

EXPOSED = (
    "x-request-id",
    "retry-after",
    *(f"x-tollway-{name}" for name in ("attempts", "channel", "cost", "overhead-ms")),
    *(f"x-ratelimit-{name}-{what}" for name in ("limit", "remaining", "reset") for what in ("requests", "tokens")),
)
"""Headers that a script on a web page may read."""


@dataclass(frozen=True, slots=True)
class RelayParts:
    """What the layers are given, and the two apps that they lead to."""

    settings: Settings
    snapshot: Snapshot
    ledger: Ledger
    limiter: Limiter
    metrics: RelayMetrics
    write_line: WriteLine | None
    endpoint: ASGIApp
    models: ASGIApp
    counting: Counting | None = None


def relay_stack(parts: RelayParts) -> ASGIApp:
    """The relay: from a client's request to the endpoint that performs it."""
    settings, snapshot = parts.settings, parts.snapshot
    options = snapshot.options
    relayed = [
        # Reads the body; nothing outside it has to.
        Middleware(IntakeMiddleware, max_bytes=settings.max_request_bytes),
        # Outside failover: one request is one hold, however many channels it tries.
        Middleware(TokenQuotaMiddleware, ledger=parts.ledger),
        Middleware(ModelSuffixMiddleware),
        Middleware(ChannelSelectMiddleware, pool=snapshot.pool),
        Middleware(FailoverMiddleware, pool=snapshot.pool, options=options),
        # Inside failover: it sizes the hold for the channel that is tried, and a failed attempt costs nothing.
        Middleware(
            MeteringMiddleware, prices=snapshot.prices, ratios=snapshot.ratios, options=options, counting=parts.counting
        ),
    ]
    door = [
        Middleware(RequestIdMiddleware),
        *([Middleware(AccessLogMiddleware, write=parts.write_line)] if parts.write_line is not None else ()),
        Middleware(PrometheusMiddleware, metrics=parts.metrics),
        # Outside auth: a browser's preflight carries no key.
        Middleware(
            CorsWhenAsked,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        ),
        # Inside everything that counts and logs: they see the status that the client sees.
        Middleware(ErrorEnvelopeMiddleware),
        Middleware(RelayDoor),
        Middleware(TokenAuthMiddleware, tokens=snapshot.tokens, refresh=snapshot.refresh),
        # Inside auth: the limits are the key's. Outside intake: a refused request is not read.
        Middleware(RateLimitMiddleware, limiter=parts.limiter, options=options),
    ]
    return build(door, Dispatch(relayed=build(relayed, parts.endpoint), own=parts.models))


def build(layers: Sequence[Middleware], app: ASGIApp) -> ASGIApp:
    """Wrap `app` so that the first layer of the list is the outermost."""
    for layer in reversed(layers):
        app = layer.cls(app, *layer.args, **layer.kwargs)
    return app
