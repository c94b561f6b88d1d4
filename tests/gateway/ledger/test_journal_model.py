"""Random operations and a crash at any byte of the last write: what is recovered is what a simple model says."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tollway.gateway.ledger.journal import Journal, Recovery

SEGMENT = 4096

Operation: TypeAlias = tuple[str, int]
"""What is done, and a number: which of the requests under way, the size of a payload, how far the database lags."""

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 1500)),
        st.tuples(st.just("settle"), st.integers(0, 1500)),
        st.tuples(st.just("release"), st.integers(0, 50)),
        st.tuples(st.sampled_from(["write", "sync"]), st.just(0)),
        st.tuples(st.just("flushed"), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=40,
)


@dataclass
class Model:
    """What must be on disk. Opens and releases that only wait may be lost, and so may nothing else."""

    settled: dict[int, tuple[int, bytes]] = field(default_factory=dict[int, tuple[int, bytes]])
    written: dict[int, bytes] = field(default_factory=dict[int, bytes])
    waiting: dict[int, bytes] = field(default_factory=dict[int, bytes])
    released: set[int] = field(default_factory=set[int])
    """Of those that were written: releases that wait."""
    flushed: int = 0

    def write(self) -> None:
        self.written |= self.waiting
        self.waiting.clear()
        for ticket in self.released:
            del self.written[ticket]
        self.released.clear()

    def under_way(self) -> list[int]:
        return sorted({*self.written, *self.waiting} - self.released)


class Recorder:
    """The last write: its file, its place, its size."""

    def __init__(self) -> None:
        self.last: tuple[str, int, int] | None = None
        self._pwrite = os.pwrite

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.last = os.readlink(f"/proc/self/fd/{fd}"), offset, len(data)
        return self._pwrite(fd, data, offset)


def apply(journal: Journal, model: Model, operation: Operation, ticket: int) -> None:
    kind, number = operation
    payload = b"%d" % ticket + b"\0" * number
    under_way = model.under_way()
    chosen = under_way[number % len(under_way)] if under_way else 0
    if kind == "open":
        journal.open(ticket, payload)
        model.waiting[ticket] = payload
    elif kind == "settle":
        sequence = journal.settle(chosen, payload)
        assert sequence == len(model.settled) + 1
        model.settled[sequence] = (chosen, payload)
        model.waiting.pop(chosen, None)
        model.write()
        model.written.pop(chosen, None)
    elif kind == "release":
        journal.release(chosen)
        if model.waiting.pop(chosen, None) is None and chosen:
            model.released.add(chosen)
    elif kind == "flushed":
        model.flushed = max(model.flushed, len(model.settled) - number)
        journal.flushed(max(0, len(model.settled) - number))
    elif kind == "write":
        journal.write()
        model.write()
    else:
        journal.sync()


def crash(folder: Path, into: Path, cut: tuple[str, int, int] | None, kept: float) -> Recovery:
    """A copy of the files as they were when so much of the last write had reached them, recovered."""
    into.mkdir()
    for path in folder.glob("*.journal"):
        data = bytearray(path.read_bytes())
        if cut is not None and cut[0] == str(path):
            _, offset, size = cut
            begin = offset + round(size * kept)
            data[begin : offset + size] = bytes(offset + size - begin)
        (into / path.name).write_bytes(data)
    recovery = Recovery.take(into, "a", installation="here")
    assert recovery is not None
    return recovery


def check(recovery: Recovery, before: Model, after: Model) -> None:
    """What was there before the operation is found, unless it ended it; and nothing but what it wrote besides."""
    assert recovery.damages == []
    found = {item.sequence: (item.ticket, item.payload) for item in recovery.settled()}
    assert found.items() <= after.settled.items()
    assert found.items() >= {key: item for key, item in before.settled.items() if key > after.flushed}.items()
    assert sorted(found) == list(range(min(found, default=1), max(found, default=0) + 1))
    opened = recovery.opened()
    # A release that waits may be lost; or, with its segment, the open that it ends.
    ended = before.written.keys() - after.written.keys() | after.released
    assert opened.items() >= {key: item for key, item in before.written.items() if key not in ended}.items()
    assert opened.items() <= {**before.written, **before.waiting, **after.written}.items()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=OPERATIONS, kept=st.floats(0, 1))
@example(
    operations=[("open", 1400)] * 3 + [("settle", 1)] + [("settle", 1400), ("flushed", 0), ("sync", 0)] * 4, kept=0
)
def test_a_crash_loses_only_what_was_not_yet_written(operations: list[Operation], kept: float) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        recorder = Recorder()
        patch.setattr(os, "pwrite", recorder.pwrite)
        for sync in ("fsync", "fdatasync"):
            patch.setattr(os, sync, lambda fd: None)  # only the process dies here: thousands of them would take long
        folder = Path(name) / "journal"
        journal = Journal.create(
            folder, holder="a", installation="here", segment_bytes=SEGMENT, limit_bytes=400 * SEGMENT
        )
        model = before = Model()
        for ticket, operation in enumerate(operations, 1):
            recorder.last = None
            before = Model(
                dict(model.settled), dict(model.written), dict(model.waiting), set(model.released), model.flushed
            )
            apply(journal, model, operation, ticket)
        check(crash(folder, Path(name) / "cut", recorder.last, kept), before, model)
        check(crash(folder, Path(name) / "whole", None, 1), model, model)
        journal.close()
