"""What Prometheus is told of Redis."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .limiter import RedisLimiter


class RedisMetrics(Collector):
    """A collector over the limiter: nothing is counted for it on the relay's path."""

    def __init__(self, limiter: RedisLimiter) -> None:
        self._limiter = limiter

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "tollway_redis_up", "1 while limits are counted in Redis, 0 while it is away.", value=self._limiter.is_up
        )
        yield CounterMetricFamily(
            "tollway_limits_local",
            "Requests whose limits were counted in this process, because Redis was away.",
            value=self._limiter.local_admissions,
        )
