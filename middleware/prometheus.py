"""Counts and times every request for Prometheus."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.operations import Operation
from .paths import operation_of
from .state import ATTEMPT, CALL, CHARGE, OUTCOME, Attempt, Charge, Outcome

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
MOST_MODELS = 200


CLIENT_GONE = 499
FOLD_AT = 64


class Sample(NamedTuple):
    """What is known of a request when it is over. Durations in seconds."""

    operation: Operation | None
    model: str
    status: int
    duration: float
    first_byte: float
    attempt: Attempt | None
    charge: Charge | None
    outcome: Outcome | None


class Increments(Protocol):
    def inc(self, amount: float = 1) -> None: ...


class Observes(Protocol):
    def observe(self, amount: float) -> None: ...


class RelayMetrics(Collector):
    """
    The relay's metrics in one registry. Base units: seconds, tokens, quota (500,000 to the dollar).

    A request only leaves a sample; samples are counted 64 at a time, and before each scrape. The same work done in a
    row costs a third of what it costs in the middle of a request, with everything else's code in the processor's cache.

    The children of a label set are held: looking one up costs seven times what counting does. Models are bounded: only
    names that a channel serves become labels, at most 200 of them, and the others are `other`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0
        self._samples: list[Sample] = []
        registry.register(self)  # first, so that a scrape counts what waits before it reads the rest
        self.requests = Counter(
            "tollway_requests", "Requests.", ("operation", "dialect", "model", "channel", "status"), registry=registry
        )
        self.duration = Histogram(
            "tollway_request_duration_seconds",
            "From the request to its last byte.",
            ("operation",),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "tollway_time_to_first_token_seconds",
            "From the request to the first byte of a stream.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.inter_token = Histogram(
            "tollway_inter_token_seconds",
            "Mean time between the tokens of a stream.",
            ("model",),
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.overhead = Histogram(
            "tollway_overhead_seconds",
            "Time not spent waiting for the upstream.",
            ("operation",),
            buckets=FAST_SECONDS,
            registry=registry,
        )
        self.tokens = Counter("tollway_tokens", "Tokens charged.", ("kind", "model"), registry=registry)
        self.quota = Counter("tollway_quota", "Quota charged, 500,000 to the dollar.", ("model",), registry=registry)
        self.retries = Counter("tollway_retries", "Attempts after the first.", ("channel",), registry=registry)
        self.truncated = Counter(
            "tollway_truncated_streams", "Streams that broke off.", ("channel",), registry=registry
        )
        self.open = Gauge("tollway_streams_open", "Requests being served.", registry=registry)
        self.open.set_function(lambda: self.in_flight)
        self._children: dict[tuple[object, ...], object] = {}
        self._models: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        self.fold()
        return ()

    def describe(self) -> Iterable[Metric]:
        return ()

    def note(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Count the samples that wait. Safe beside `note` in another thread."""
        samples, self._samples = self._samples, []
        for sample in samples:
            self._count(sample)

    def _count(self, sample: Sample) -> None:
        operation, attempt, charge = sample.operation, sample.attempt, sample.charge
        name, dialect = (operation.name, operation.dialect) if operation is not None else ("other", "")
        channel = str(attempt.channel.id) if attempt is not None else ""
        # Only a name that a channel serves may become a label: clients could make up as many as they like.
        model = self.model_label(sample.model) if attempt is not None else "other" if sample.model else ""
        self.counter(self.requests, name, dialect, model, channel, str(sample.status)).inc()
        self.histogram(self.duration, name).observe(sample.duration)
        if attempt is not None and attempt.number > 1:
            self.counter(self.retries, channel).inc(attempt.number - 1)
        if (outcome := sample.outcome) is not None:
            self.histogram(self.overhead, name).observe(max(0.0, sample.duration - outcome.waited))
            if outcome.ending == "truncated":
                self.counter(self.truncated, channel).inc()
        if charge is not None:
            self._count_charge(charge, model, sample)

    def _count_charge(self, charge: Charge, model: str, sample: Sample) -> None:
        usage = charge.usage
        self.counter(self.tokens, "input", model).inc(usage.input_tokens)
        self.counter(self.tokens, "output", model).inc(usage.output_tokens)
        if usage.cached_tokens:
            self.counter(self.tokens, "cached", model).inc(usage.cached_tokens)
        self.counter(self.quota, model).inc(charge.quota)
        if charge.stream:
            self.histogram(self.first_token, model).observe(sample.first_byte)
            if usage.output_tokens > 1:
                pace = (sample.duration - sample.first_byte) / (usage.output_tokens - 1)
                self.histogram(self.inter_token, model).observe(pace)

    def model_label(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return "other"
            self._models.add(model)
        return model

    def counter(self, counter: Counter, *labels: str) -> Increments:
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        return cast(Increments, child)

    def histogram(self, histogram: Histogram, *labels: str) -> Observes:
        key = (histogram, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = histogram.labels(*labels)
        return cast(Observes, child)


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
        started = self.clock()
        status = CLIENT_GONE
        first_byte = 0.0

        def watched_send(message: Message):
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status = message["status"]
                first_byte = self.clock() - started
            return send(message)

        metrics = self.metrics
        metrics.in_flight += 1
        try:
            await self.app(scope, receive, watched_send)
        finally:
            metrics.in_flight -= 1
            call = CALL.find(scope)
            metrics.note(
                Sample(
                    operation_of(scope),
                    call.model if call is not None else "",
                    status,
                    self.clock() - started,
                    first_byte,
                    ATTEMPT.find(scope),
                    CHARGE.find(scope),
                    OUTCOME.find(scope),
                )
            )
