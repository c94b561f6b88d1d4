"""Workers' figures put together: what is added, what is not, and what outlives a worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tollway.gateway.data_dir import DataDirError
from tollway.gateway.worker_metrics import WorkerMetrics, shared_folder


class Worker:
    """A worker with a metric of every kind. `end` is how it ends in order, `die` how it is killed."""

    def __init__(self, folder: Path) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("tollway_requests", "h", ["model"], registry=self.registry)
        self.seconds = Histogram("tollway_request_duration_seconds", "h", buckets=(1, 2), registry=self.registry)
        self.streams = Gauge("tollway_streams_open", "h", registry=self.registry)
        self.lag = Gauge("tollway_flush_lag_seconds", "h", registry=self.registry)
        self.redis = Gauge("tollway_redis_up", "h", registry=self.registry)
        self.cpu = Gauge("tollway_cpu_seconds", "h", registry=self.registry)
        self.shared = WorkerMetrics(self.registry, folder)
        self.shared.write()

    def page(self) -> dict[str, float]:
        """What this worker answers, by name and labels."""
        families = text_string_to_metric_families(generate_latest(self.shared).decode())
        return {
            " ".join((each.name, *each.labels.values())): each.value for family in families for each in family.samples
        }

    def end(self) -> None:
        self.shared.close()

    def die(self) -> None:
        os.close(self.shared._lock_fd)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with shared_folder(tmp_path) as folder:
        yield folder


def test_whoever_is_asked_answers_for_all(folder: Path) -> None:
    workers = [Worker(folder) for _ in range(3)]
    for number, worker in enumerate(workers, start=1):
        worker.requests.labels("a").inc(number)
        worker.seconds.observe(number - 0.5)
        worker.streams.set(number)
        worker.lag.set(number)
        worker.redis.set(number != 2)
        worker.cpu.set(number)
        worker.shared.write()
    workers[2].requests.labels("b").inc()
    wanted = {
        "tollway_requests_total a": 6,
        "tollway_requests_total b": 1,
        "tollway_request_duration_seconds_bucket 1.0": 1,
        "tollway_request_duration_seconds_bucket 2.0": 2,
        "tollway_request_duration_seconds_bucket +Inf": 3,
        "tollway_request_duration_seconds_sum": 4.5,
        "tollway_request_duration_seconds_count": 3,
        "tollway_streams_open": 6,
        "tollway_flush_lag_seconds": 3,
        "tollway_redis_up": 0,
        "tollway_cpu_seconds": 6,
    }
    for worker in reversed(workers):
        page = worker.page()
        assert {name: page[name] for name in wanted} == wanted
        assert [name for name in page if name.endswith(("_total a", "_open"))] == [
            "tollway_requests_total a",
            "tollway_streams_open",
        ]


def test_a_counter_never_falls_whoever_is_asked_next(folder: Path) -> None:
    one, other = Worker(folder), Worker(folder)
    one.requests.labels("a").inc(5)
    assert one.page()["tollway_requests_total a"] == 5
    assert other.page()["tollway_requests_total a"] == 5


@pytest.mark.parametrize("how", ["end", "die"])
def test_a_worker_that_is_gone_leaves_what_it_counted_and_nothing_else(folder: Path, how: str) -> None:
    stays, goes = Worker(folder), Worker(folder)
    goes.requests.labels("a").inc(7)
    goes.streams.set(3)
    goes.cpu.set(2)
    goes.shared.write()
    getattr(goes, how)()
    for _ in range(3):
        page = stays.page()
        assert (page["tollway_requests_total a"], page["tollway_streams_open"], page["tollway_cpu_seconds"]) == (
            7,
            0,
            2,
        )
        successor = Worker(folder)
        assert successor.page()["tollway_requests_total a"] == 7
        successor.die()
    assert len(list(folder.glob("*.json"))) == 2


def test_a_damaged_file_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = Worker(folder), Worker(folder)
    other.requests.labels("a").inc()
    (folder / "1.json").write_bytes(b'[["tollway_requests"')
    one.requests.labels("a").inc()
    assert one.page()["tollway_requests_total a"] == 1
    assert "1.json" in caplog.text
    other.shared.write()
    assert one.page()["tollway_requests_total a"] == 2


def test_a_worker_that_cannot_write_still_answers(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(folder)
    (folder / "0.draft").mkdir()
    for _ in range(2):
        worker.requests.labels("a").inc()
        worker.page()
    assert worker.page()["tollway_requests_total a"] == 2
    assert caplog.text.count("do not see") == 1


def test_nobody_else_can_read_the_files_and_the_end_removes_them(tmp_path: Path) -> None:
    with shared_folder(tmp_path) as folder:
        Worker(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert list((tmp_path / "run").iterdir()) == []


def test_the_folders_of_servers_that_run_stay_and_those_of_killed_ones_go(tmp_path: Path) -> None:
    dead = tmp_path / "run" / "dead"
    dead.mkdir(parents=True)
    (dead / "0.json").write_text("[]")
    with shared_folder(tmp_path) as one, shared_folder(tmp_path) as other:
        assert {*(tmp_path / "run").iterdir()} == {one, other}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataDirError, match=r"run cannot be used"), shared_folder(tmp_path):
        pass
