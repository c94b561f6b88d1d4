"""No room, bad disks: new work is refused, what was acknowledged stays, and it heals by itself."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tollway.gateway.ledger.journal import Journal, JournalError, JournalFull, Recovery

SEGMENT = 4096
PAYLOAD = b"p" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def create(folder: Path, segments: int = 64) -> Journal:
    return Journal.create(
        folder, holder="a", installation="here", segment_bytes=SEGMENT, limit_bytes=segments * SEGMENT
    )


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every write beyond `size` bytes of any file fails, as a full disk does, and so does taking room there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """Fails as it is told: `room` for new files, `write` for a number of bytes and then the error, `sync`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 0
        self.write = 0
        self.sync = 0
        self.short = -1
        """Bytes that the next write takes before it ends early; -1: all."""
        self.zeros = False
        """Whether zeros can be written all the same."""
        self.only = ""
        """The file whose writes fail; empty: all."""
        self._real = os.posix_fallocate, os.pwrite, os.fdatasync
        monkeypatch.setattr(os, "posix_fallocate", self._allocate)
        monkeypatch.setattr(os, "pwrite", self._pwrite)
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    def _allocate(self, fd: int, offset: int, size: int) -> None:
        if self.room:
            raise OSError(self.room, os.strerror(self.room))
        self._real[0](fd, offset, size)

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if self.short >= 0:
            data, self.short = data[: self.short], -1
        elif self.write and not (self.zeros and not any(data)) and self.only in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(self.write, os.strerror(self.write))
        return self._real[1](fd, data, offset) if data else 0

    def _fdatasync(self, fd: int) -> None:
        if self.sync:
            raise OSError(self.sync, os.strerror(self.sync))
        self._real[2](fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def recovered(folder: Path, journal: Journal) -> Recovery:
    journal.close()
    recovery = Recovery.take(folder, "a", installation="here")
    assert recovery is not None
    return recovery


def settle_until_full(journal: Journal) -> tuple[int, str]:
    """The last settle's number, and why there is no more."""
    while True:
        try:
            journal.settle(0, PAYLOAD)
        except JournalFull as full:
            return journal.sequence, str(full)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_without_room_for_the_next_segment_requests_under_way_are_still_settled(
    folder: Path, disk: Disk, error: int
) -> None:
    journal = create(folder)
    journal.settle(0, PAYLOAD)
    disk.room = error
    room = (SEGMENT * 2 - 2 * 156) // (24 + len(PAYLOAD))
    count = 1
    while not journal.full:
        count = journal.settle(0, PAYLOAD)
    assert room / 2 < count < room
    assert os.strerror(error) in journal.shortage
    count, reason = settle_until_full(journal)
    assert os.strerror(error) in reason
    assert room - 1 <= count <= room
    assert sorted(path.suffix for path in folder.iterdir()) == [".journal", ".journal", ".lock"]

    disk.room = 0
    journal.write()
    assert (journal.full, journal.shortage, journal.failing) == (False, "", "")
    assert journal.settle(0, PAYLOAD) == count + 1
    recovery = recovered(folder, journal)
    assert [settled.sequence for settled in recovery.settled()] == list(range(1, count + 2))
    assert recovery.damages == []


def test_a_limit_is_never_passed_and_ends_when_the_database_has_caught_up(folder: Path) -> None:
    journal = create(folder, segments=5)
    count, _ = settle_until_full(journal)
    assert journal.full
    assert "limit of 20480 bytes" in journal.shortage
    assert journal.bytes_on_disk == 5 * SEGMENT == sum(path.stat().st_size for path in folder.glob("*.journal"))
    journal.flushed(count // 2)
    assert not journal.full
    assert journal.settle(0, PAYLOAD) == count + 1
    assert [settled.sequence for settled in recovered(folder, journal).settled(count // 2)][-1] == count + 1


def test_a_settle_that_is_refused_leaves_its_request_open(folder: Path) -> None:
    journal = create(folder, segments=2)
    journal.open(1, b"written")
    journal.write()
    count, _ = settle_until_full(journal)
    journal.open(2, b"waiting")
    for ticket in (1, 2):
        with pytest.raises(JournalFull):
            journal.settle(ticket, PAYLOAD)
    journal.flushed(count)
    journal.sync()
    journal.flushed(count)
    journal.write()
    assert not journal.full
    recovery = recovered(folder, journal)
    assert recovery.opened() == {1: b"written", 2: b"waiting"}


def test_the_last_room_is_for_a_settle_and_not_for_an_open(folder: Path) -> None:
    journal = create(folder, segments=2)
    count, _ = settle_until_full(journal)
    fresh = create(folder.parent / "fresh", segments=2)
    for _ in range(count - 1):
        fresh.settle(0, PAYLOAD)
    fresh.open(1, PAYLOAD)
    assert fresh.settle(0, PAYLOAD) == count


def test_a_disk_that_is_really_full_heals_by_itself(folder: Path) -> None:
    journal = create(folder)
    with file_size_limit(SEGMENT // 2):
        count, reason = settle_until_full(journal)
        assert "File too large" in reason
        assert journal.full
        assert count > 10
        journal.write()
        assert journal.full
    journal.write()
    assert (journal.full, journal.failing) == (False, "")
    assert journal.settle(0, PAYLOAD) == count + 1
    recovery = recovered(folder, journal)
    assert [settled.sequence for settled in recovery.settled()] == list(range(1, count + 2))
    assert (recovery.damages, recovery.torn_bytes) == ([], 0)


SHORT = [1, 23, 24, 223, 224, 225, 447]
"""Cuts in a write of a settle and an open, 224 bytes each."""


@pytest.mark.parametrize("taken", SHORT)
def test_a_short_write_is_completed(folder: Path, disk: Disk, taken: int) -> None:
    journal = create(folder)
    journal.open(1, PAYLOAD)
    disk.short = taken
    assert journal.settle(0, PAYLOAD) == 1
    recovery = recovered(folder, journal)
    assert [settled.sequence for settled in recovery.settled()] == [1]
    assert recovery.opened() == {1: PAYLOAD}


@pytest.mark.parametrize("undone", ["at once", "later"])
@pytest.mark.parametrize("taken", [0, *SHORT])
def test_a_short_write_that_cannot_be_completed_is_undone(folder: Path, disk: Disk, taken: int, undone: str) -> None:
    journal = create(folder, segments=2)
    settle_until_full(journal)
    journal.flushed(journal.sequence)  # one segment, in which nothing is, and no other
    disk.room = errno.ENOSPC
    settled = journal.settle(0, PAYLOAD)
    while not journal.full:
        settled = journal.settle(0, PAYLOAD)
    journal.open(1, PAYLOAD)
    disk.short, disk.write, disk.zeros = taken, errno.EIO, undone == "at once"
    with pytest.raises(JournalError, match="Input/output error"):
        journal.settle(0, PAYLOAD)
    assert "Input/output error" in journal.failing

    disk.write = 0
    journal.release(1)
    journal.write()
    assert journal.failing == ""
    assert journal.settle(0, b"after") == settled + 1
    recovery = recovered(folder, journal)
    assert [item.payload for item in recovery.settled(settled)] == [b"after"]
    assert recovery.opened() == {}
    assert (recovery.damages, recovery.torn_bytes) == ([], 0)


def test_a_segment_that_cannot_be_written_is_left_for_the_next(folder: Path, disk: Disk) -> None:
    """What the failed write had left in it, a whole settle too, does not count."""
    journal = create(folder)
    journal.settle(0, PAYLOAD)
    journal.open(1, PAYLOAD)
    disk.short, disk.write, disk.only = 300, errno.EIO, "a.00000001.journal"
    assert journal.settle(0, b"elsewhere" + PAYLOAD) == 2
    assert journal.failing == ""
    recovery = recovered(folder, journal)
    assert [settled.payload for settled in recovery.settled()] == [PAYLOAD, b"elsewhere" + PAYLOAD]
    assert recovery.opened() == {1: PAYLOAD}
    assert [damage.lost for damage in recovery.damages] == [range(2, 2)]


def test_what_a_failed_sync_leaves_in_doubt_is_not_called_synced(folder: Path, disk: Disk) -> None:
    """The system tells once that it lost something; the next sync succeeds without it."""
    journal = create(folder)
    journal.settle(0, PAYLOAD)
    journal.sync()
    journal.settle(0, PAYLOAD)
    disk.sync = errno.EIO
    journal.sync()
    assert "Input/output error" in journal.failing
    disk.sync = 0
    journal.sync()
    assert journal.failing
    assert journal.synced_sequence == 1
    journal.flushed(2)
    assert journal.synced_sequence == 2
    journal.sync()
    assert journal.failing == ""
    journal.settle(0, PAYLOAD)
    journal.sync()
    assert journal.synced_sequence == 3
    assert [settled.sequence for settled in recovered(folder, journal).settled(2)] == [3]


def test_what_is_written_during_a_failed_sync_is_in_doubt_too(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = create(folder)
    journal.settle(0, PAYLOAD)

    def fail(_: int) -> None:
        journal.settle(0, PAYLOAD)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        journal.sync()
    journal.flushed(1)
    journal.sync()
    assert (journal.synced_sequence, bool(journal.failing)) == (1, True)
    journal.flushed(2)
    journal.sync()
    assert journal.failing == ""


def test_without_room_at_the_start_there_is_no_journal(folder: Path, disk: Disk) -> None:
    disk.room = errno.ENOSPC
    with pytest.raises(JournalError, match="journal cannot be used: No space left"):
        create(folder)
    assert list(folder.glob("*.journal")) == []
    disk.room = 0
    assert create(folder).settle(0, PAYLOAD) == 1
