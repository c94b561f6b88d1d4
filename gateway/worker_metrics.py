"""
`/metrics` over all workers of a server: whichever is asked answers for all.

Each worker keeps its figures in a file of the folder that they share, written once a second, before each of its own
answers and when it ends; who is asked adds the others' files to its own figures. Because it writes its own down before
it answers, no counter is ever seen to fall, whoever is asked next.

A worker has a number, `N.json` and `N.lock`, which is locked (flock) for as long as it lives. One that takes a dead
one's place takes its number, and counts on from where its file stands.
"""

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from secrets import token_hex
from threading import Lock

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .data_dir import DataDirError

log = logging.getLogger("tollway.metrics")

WRITE_EVERY_S = 1.0

ADD: Callable[[float, float], float] = float.__add__
RULES: Mapping[str, Callable[[float, float], float]] = {
    "tollway_flush_lag_seconds": max,
    "tollway_breaker_state": max,  # the worst: open for one of the workers
    "tollway_ready": min,
    "tollway_redis_up": min,
}
"""How two workers' gauges become one where it is not by adding them."""
LASTING_KINDS = {"counter", "histogram"}
LASTING_GAUGES = {"tollway_cpu_seconds"}
"""What counts up although it is a gauge: it outlives its worker, as counters do."""

Labels = tuple[tuple[str, str], ...]


class Point(msgspec.Struct, array_like=True, frozen=True):
    """One line of the page."""

    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, array_like=True, frozen=True):
    """A metric with all its lines."""

    name: str
    help: str
    kind: str
    points: list[Point]

    @property
    def is_lasting(self) -> bool:
        return self.kind in LASTING_KINDS or self.name in LASTING_GAUGES


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Family]).decode


class WorkerMetrics(Collector):
    """One worker's figures, and with `collect` those of all. Safe to use from threads."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._number, self._lock_fd = _take_number(folder)
        self._before = lasting(_read(folder / f"{self._number}.json"))
        self._turn = Lock()
        self._failing = False
        self._closed = False

    def collect(self) -> Iterable[Metric]:
        """For `prometheus_client.generate_latest`."""
        return [_metric(family) for family in merged([self.write(), *self._others()])]

    def write(self) -> list[Family]:
        """Put this worker's figures into its file; what they are."""
        with self._turn:
            own = merged([map(_family, self._registry.collect()), self._before])
            if not self._closed:
                self._put(_encode(own))
            return own

    def close(self) -> None:
        """The worker ends: its last figures stay."""
        self.write()
        with self._turn:
            self._closed = True
            os.close(self._lock_fd)

    def _put(self, data: bytes) -> None:
        path, draft = self._folder / f"{self._number}.json", self._folder / f"{self._number}.draft"
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            draft.replace(path)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("the other workers do not see this one's metrics: %s", error)
            self._failing = True

    def _others(self) -> Iterator[list[Family]]:
        with _locked(self._folder, fcntl.LOCK_SH):
            for path in self._folder.glob("*.json"):
                if path.stem != str(self._number):
                    found = _read(path)
                    # What is not counted up, a dead worker has no more of: connections, memory...
                    yield found if _is_alive(path.with_suffix(".lock")) else lasting(found)


@asynccontextmanager
async def sharing(registry: CollectorRegistry, folder: Path) -> AsyncGenerator[WorkerMetrics]:
    """A worker's metrics, kept up to date in `folder` until the block ends."""
    metrics = WorkerMetrics(registry, folder)
    task = asyncio.create_task(_keep_writing(metrics))
    try:
        yield metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        metrics.close()


async def _keep_writing(metrics: WorkerMetrics) -> None:
    while True:
        await asyncio.to_thread(metrics.write)
        await asyncio.sleep(WRITE_EVERY_S)


@contextmanager
def shared_folder(data_dir: Path) -> Generator[Path]:
    """
    A new folder in DATA_DIR/run for the workers of one server, removed at the end with everything in it.

    Folders of servers that were killed go as well. Raises `DataDirError`.
    """
    run = data_dir / "run"
    try:
        folder, lock = _new_folder(run)
    except OSError as error:
        raise DataDirError(f"the folder {run} cannot be used: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_folder(run: Path) -> tuple[Path, int]:
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = run / token_hex(8)
    with _locked(run, fcntl.LOCK_EX):  # a folder that is being made has no lock yet
        for other in run.iterdir():
            if not _is_alive(other / "server"):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder, _lock(folder / "server")


def merged(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """The figures of several workers as one's."""
    families: dict[str, Family] = {}
    points: dict[str, dict[tuple[str, Labels], Point]] = {}
    for family in (family for part in parts for family in part):
        families.setdefault(family.name, family)
        found = points.setdefault(family.name, {})
        combine = RULES.get(family.name, ADD)
        for point in family.points:
            key = (point.name, point.labels)
            before = found.get(key)
            found[key] = point if before is None else Point(*key, combine(before.value, point.value))
    return [
        Family(family.name, family.help, family.kind, list(points[name].values())) for name, family in families.items()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """Of a worker that has ended, what still counts."""
    return [family for family in families if family.is_lasting]


def _family(metric: Metric) -> Family:
    points = [Point(each.name, tuple(each.labels.items()), float(each.value)) for each in metric.samples]
    return Family(metric.name, metric.documentation, metric.type, points)


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.help, family.kind)
    for point in family.points:
        metric.add_sample(point.name, dict(point.labels), point.value)
    return metric


def _read(path: Path) -> list[Family]:
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the metrics of a worker in %s are left out: %s", path, error)
        return []


def _take_number(folder: Path) -> tuple[int, int]:
    """The lowest number that no living worker has, and the descriptor that keeps it locked."""
    with _locked(folder, fcntl.LOCK_EX):  # nobody looks meanwhile, which takes the lock for a moment
        number = 0
        while _is_alive(folder / f"{number}.lock"):
            number += 1
        return number, _lock(folder / f"{number}.lock")


def _lock(path: Path) -> int:
    """The locked descriptor of a file, which is made. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_alive(path: Path) -> bool:
    """Whether some process has the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(folder: Path, how: int) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
