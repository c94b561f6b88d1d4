"""What a process knows about itself, read when Prometheus asks: breakers, connections, tasks, memory."""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .ledger import StoreLedger
from .process import resident_bytes
from .snapshot import Snapshot
from .upstream import Upstreams

BREAKER_STATES = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class ProcessMetrics(Collector):
    """A collector over live objects: nothing is counted on the relay's path."""

    def __init__(
        self,
        snapshot: Snapshot,
        ledger: StoreLedger,
        upstreams: Upstreams,
        trouble: Callable[[], str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._snapshot = snapshot
        self._ledger = ledger
        self._upstreams = upstreams
        self._trouble = trouble
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        breakers = GaugeMetricFamily(
            "tollway_breaker_state", "0 closed, 0.5 half open, 1 open.", labels=("channel", "key", "model")
        )
        for (channel, key, model), state in list(self._snapshot.pool.health.states(time.monotonic())):
            breakers.add_metric((str(channel), str(key), model), BREAKER_STATES[state])
        yield breakers
        stats = self._upstreams.stats()
        yield GaugeMetricFamily("tollway_upstream_connections_open", "Connections to upstreams.", value=stats.open)
        yield GaugeMetricFamily("tollway_upstream_connections_idle", "Of these, kept for later.", value=stats.idle)
        yield GaugeMetricFamily("tollway_ready", "1 while /readyz says ready.", value=not self._trouble())
        ledger = self._ledger
        yield GaugeMetricFamily("tollway_charges_pending", "Charges not yet written.", value=ledger.pending)
        yield GaugeMetricFamily(
            "tollway_flush_lag_seconds", "Age of the oldest of them.", value=ledger.lag(time.time_ns() // 1_000_000)
        )
        yield GaugeMetricFamily("tollway_journal_bytes", "Size of the journal.", value=ledger.journal.bytes_on_disk)
        yield GaugeMetricFamily("tollway_tasks", "Tasks of the event loop.", value=len(asyncio.all_tasks(self._loop)))
        yield GaugeMetricFamily("tollway_open_files", "Open file descriptors.", value=len(os.listdir("/proc/self/fd")))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield GaugeMetricFamily("tollway_cpu_seconds", "CPU time used.", value=usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("tollway_resident_bytes", "Resident memory.", value=resident_bytes())


def register_process_metrics(
    registry: CollectorRegistry,
    snapshot: Snapshot,
    ledger: StoreLedger,
    upstreams: Upstreams,
    trouble: Callable[[], str],
) -> Collector:
    """The collector, to be unregistered when the app stops: it may be started again, with other parts."""
    collector = ProcessMetrics(snapshot, ledger, upstreams, trouble, asyncio.get_running_loop())
    registry.register(collector)
    return collector
