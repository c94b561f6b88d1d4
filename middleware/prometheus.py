"""Counts and times every request for Prometheus."""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import RelayMetrics, Sample
from .paths import operation_of
from .state import state_of

CLIENT_GONE, DEFECT = 499, 500


class PrometheusMiddleware:
    """
    Count one request as one, whatever happened inside, with its status, time and tokens.

    Reads whatever the layers inside have written; alone, it counts by path and status. Place it outside the error
    envelope.

        app = PrometheusMiddleware(app, metrics=RelayMetrics(prometheus_client.REGISTRY))
    """

    def __init__(self, app: ASGIApp, *, metrics: RelayMetrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self.app = app
        self.metrics = metrics
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # Now: an app inside that mounts its own changes the scope. A browser's question whether it may ask is no use of
        # the operation, and would look like a fast success.
        operation = None if scope["method"] == "OPTIONS" else operation_of(scope)
        clock = self.clock
        started = clock()
        status = CLIENT_GONE
        first_byte = 0.0

        def watched_send(message: Message):
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status = message["status"]
                first_byte = clock() - started
            return send(message)

        metrics = self.metrics
        metrics.in_flight += 1
        try:
            await self.app(scope, receive, watched_send)
        except Exception:
            if status == CLIENT_GONE:
                status = DEFECT  # what the server will say
            raise
        finally:
            metrics.in_flight -= 1
            state = state_of(scope)
            call = state.call
            metrics.note(
                Sample(
                    operation,
                    call.model if call is not None else "",
                    status,
                    clock() - started,
                    first_byte,
                    state.waited,
                    state.attempt,
                    state.charge,
                    state.outcome,
                )
            )
