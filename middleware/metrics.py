"""The relay's metrics: what requests leave behind, counted in batches, shown to Prometheus."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from math import inf
from threading import Lock
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..adapters.operations import Operation
from .state import Attempt, Charge, Outcome

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
MOST_MODELS = 200
FOLD_AT = 64


class Sample(NamedTuple):
    """What is known of a request when it is over. Durations in seconds."""

    operation: Operation | None
    model: str
    status: int
    duration: float
    first_byte: float
    waited: float
    attempt: Attempt | None
    charge: Charge | None
    outcome: Outcome | None


class Distribution:
    """A histogram: how many values lie in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def merge(self, other: "Distribution") -> None:
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus' form: each bucket counts everything below its bound."""
        found: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == inf else str(float(bound)), total))
        return found


class Series:
    """Everything counted of the requests that have the same labels."""

    __slots__ = (
        "cached",
        "channel",
        "charges",
        "duration",
        "first_token",
        "input",
        "inter_token",
        "model",
        "operation",
        "output",
        "overhead",
        "quota",
        "requests",
        "retries",
        "status",
        "truncated",
    )

    def __init__(self, operation: Operation | None, model: str, channel: str, status: int) -> None:
        self.operation = operation
        self.model = model
        self.channel = channel
        self.status = status
        self.requests = self.retries = self.truncated = 0
        self.charges = self.input = self.output = self.cached = self.quota = 0
        self.duration = Distribution(SECONDS)
        self.overhead = Distribution(FAST_SECONDS)
        self.first_token = Distribution(SECONDS)
        self.inter_token = Distribution(FAST_SECONDS)

    @property
    def name(self) -> str:
        return self.operation.name if self.operation is not None else "other"

    @property
    def dialect(self) -> str:
        return self.operation.dialect if self.operation is not None else ""

    def count(self, sample: Sample) -> None:
        self.requests += 1
        self.duration.observe(sample.duration)
        if (attempt := sample.attempt) is not None and attempt.number > 1:
            self.retries += attempt.number - 1
        if (outcome := sample.outcome) is not None:
            if sample.first_byte:
                self.overhead.observe(max(0.0, sample.first_byte - sample.waited))
            if outcome.ending == "truncated":
                self.truncated += 1
        if (charge := sample.charge) is not None:
            usage = charge.usage
            self.charges += 1
            self.input += usage.input_tokens
            self.output += usage.output_tokens
            self.cached += usage.cached_tokens
            self.quota += charge.quota
            if charge.stream:
                self.first_token.observe(sample.first_byte)
                if usage.output_tokens > 1:
                    self.inter_token.observe((sample.duration - sample.first_byte) / (usage.output_tokens - 1))


class RelayMetrics(Collector):
    """
    The relay's metrics in one registry. Base units: seconds, tokens, quota (500,000 to the dollar).

    A request only leaves a sample; samples are counted 64 at a time, and before each scrape. The same work done in a
    row costs a third of what it costs in the middle of a request, with everything else's code in the processor's cache.

    Models are bounded: only names that a channel serves become labels, at most 200 of them, and the others are `other`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.in_flight = 0
        self._samples: list[Sample] = []
        self._series: dict[tuple[str, str, int, int], Series] = {}
        self._models: set[str] = set()
        self._lock = Lock()
        registry.register(self)

    def note(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Count the samples that wait. Safe beside `note` and `fold` in other threads."""
        with self._lock:
            samples, self._samples = self._samples, []
            for sample in samples:
                self._series_of(sample).count(sample)

    def _series_of(self, sample: Sample) -> Series:
        operation, attempt = sample.operation, sample.attempt
        # Only a name that a channel serves may become a label: clients could make up as many as they like.
        model = self._model_label(sample.model) if attempt is not None else "other" if sample.model else ""
        channel = attempt.channel.id if attempt is not None else 0
        key = (operation.name if operation is not None else "", model, channel, sample.status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(operation, model, str(channel) if channel else "", sample.status)
        return series

    def _model_label(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return "other"
            self._models.add(model)
        return model

    def describe(self) -> Iterable[Metric]:
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        self.fold()
        with self._lock:
            return list(self._families(list(self._series.values())))

    def _families(self, series: list[Series]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tollway_requests", "Requests.", labels=("operation", "dialect", "model", "channel", "status")
        )
        for each in series:
            labels = (each.name, each.dialect, each.model, each.channel, str(each.status))
            requests.add_metric(labels, each.requests)
        yield requests
        yield _histogram(
            "tollway_request_duration_seconds", "From the request to its last byte.", "operation", series, _durations
        )
        yield _histogram(
            "tollway_overhead_seconds",
            "Time to the answer's first byte, without what upstreams took.",
            "operation",
            series,
            _overheads,
        )
        charged = [each for each in series if each.charges]
        streams = [each for each in charged if each.first_token.sum]
        yield _histogram(
            "tollway_time_to_first_token_seconds",
            "From the request to the first byte of a stream.",
            "model",
            streams,
            lambda each: (each.model, each.first_token),
        )
        yield _histogram(
            "tollway_inter_token_seconds",
            "Mean time between the tokens of a stream.",
            "model",
            streams,
            lambda each: (each.model, each.inter_token),
        )
        yield _tokens(charged)
        yield _counter(
            "tollway_quota",
            "Quota charged, 500,000 to the dollar.",
            "model",
            ((each.model, each.quota) for each in charged),
        )
        yield _counter(
            "tollway_retries",
            "Attempts after the first.",
            "channel",
            ((each.channel, each.retries) for each in series if each.retries),
        )
        yield _counter(
            "tollway_truncated_streams",
            "Streams that broke off.",
            "channel",
            ((each.channel, each.truncated) for each in series if each.truncated),
        )
        yield GaugeMetricFamily("tollway_streams_open", "Requests being served.", value=self.in_flight)


def _durations(series: Series) -> tuple[str, Distribution]:
    return series.name, series.duration


def _overheads(series: Series) -> tuple[str, Distribution]:
    return series.name, series.overhead


def _histogram(
    name: str, help: str, label: str, series: list[Series], choose: Callable[[Series], tuple[str, Distribution]]
) -> Metric:
    merged: dict[str, Distribution] = {}
    for value, distribution in map(choose, series):
        if value not in merged:
            merged[value] = Distribution(distribution.bounds)
        merged[value].merge(distribution)
    family = HistogramMetricFamily(name, help, labels=(label,))
    for value, distribution in merged.items():
        family.add_metric((value,), distribution.buckets(), distribution.sum)
    return family


def _counter(name: str, help: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    sums: dict[str, int] = {}
    for value, count in counts:
        sums[value] = sums.get(value, 0) + count
    family = CounterMetricFamily(name, help, labels=(label,))
    for value, count in sums.items():
        family.add_metric((value,), count)
    return family


def _tokens(series: list[Series]) -> Metric:
    sums: dict[tuple[str, str], int] = {}
    for each in series:
        for kind, count in (("input", each.input), ("output", each.output), ("cached", each.cached)):
            if count or kind != "cached":
                sums[kind, each.model] = sums.get((kind, each.model), 0) + count
    family = CounterMetricFamily("tollway_tokens", "Tokens charged.", labels=("kind", "model"))
    for labels, count in sums.items():
        family.add_metric(labels, count)
    return family
