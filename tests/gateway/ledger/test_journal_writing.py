"""What a living journal promises: numbers, one write per settle, files that go when nothing needs them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tollway.gateway.ledger.journal import Journal, JournalError, Recovery, dead_holders

SEGMENT = 4096
PAYLOAD = b"p" * 200

Writes = list[int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal.create(folder, holder="a-1", installation="here", segment_bytes=SEGMENT, limit_bytes=64 * SEGMENT)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    """The sizes of all writes."""
    sizes: Writes = []
    pwrite = os.pwrite

    def counted(fd: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    return sizes


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.journal"))


def left_by_a_crash(folder: Path, tmp_path: Path, holder: str = "a-1") -> Recovery:
    """What another process would find now."""
    copy = tmp_path / "after the crash"
    copy.mkdir()
    for path in folder.glob("*.journal"):
        (copy / path.name).write_bytes(path.read_bytes())
    recovery = Recovery.take(copy, holder, installation="here")
    assert recovery is not None
    return recovery


def test_settles_are_numbered_from_one(journal: Journal) -> None:
    assert [journal.settle(ticket, PAYLOAD) for ticket in (7, 0, 0, 9)] == [1, 2, 3, 4]


def test_a_settle_is_one_write_with_all_that_waits(journal: Journal, writes: Writes) -> None:
    for ticket in range(1, 6):
        journal.open(ticket, PAYLOAD)
    assert writes == []
    journal.settle(99, PAYLOAD)
    assert len(writes) == 1
    journal.release(2)
    journal.settle(98, PAYLOAD)
    assert len(writes) == 2


@pytest.mark.parametrize(
    ("end", "records"),
    [
        pytest.param(lambda journal: journal.release(1), 0, id="a release and its open vanish"),
        pytest.param(lambda journal: journal.settle(1, PAYLOAD), 1, id="a settle needs no open"),
    ],
)
def test_what_ends_before_it_is_written_costs_little(
    journal: Journal, writes: Writes, end: Callable[[Journal], object], records: int
) -> None:
    journal.open(1, PAYLOAD)
    end(journal)
    journal.write()
    assert len(writes) == records
    assert sum(writes) == records * (24 + len(PAYLOAD))


def test_an_end_is_taken_once(journal: Journal, folder: Path, tmp_path: Path) -> None:
    journal.open(1, PAYLOAD)
    journal.write()
    journal.settle(1, PAYLOAD)
    journal.release(1)
    journal.release(1)
    journal.release(5)
    journal.write()
    assert left_by_a_crash(folder, tmp_path).opened() == {}


def test_what_is_needed_survives_and_what_is_not_goes(journal: Journal, folder: Path) -> None:
    for _ in range(100):
        journal.settle(0, PAYLOAD)
    many = len(segments(folder))
    assert many > 5
    journal.sync()
    journal.flushed(50)
    some = len(segments(folder))
    assert 2 < some < many
    journal.flushed(100)
    assert len(segments(folder)) == 2
    assert journal.bytes_on_disk == 2 * SEGMENT == sum(path.stat().st_size for path in folder.glob("*.journal"))


def test_settles_the_database_does_not_have_are_never_deleted(journal: Journal, folder: Path, tmp_path: Path) -> None:
    for _ in range(100):
        journal.settle(0, PAYLOAD)
    journal.sync()
    journal.flushed(61)
    recovery = left_by_a_crash(folder, tmp_path)
    assert [settled.sequence for settled in recovery.settled(61)] == list(range(62, 101))
    assert recovery.first_sequence is not None
    assert recovery.first_sequence <= 62
    assert recovery.damages == []


def test_a_long_request_does_not_keep_old_segments(journal: Journal, folder: Path, tmp_path: Path) -> None:
    journal.open(1, b"a long one")
    for _ in range(20):
        for _ in range(15):
            journal.settle(0, PAYLOAD)
        journal.flushed(journal.sequence)
        journal.sync()
        journal.flushed(journal.sequence)
        assert len(segments(folder)) <= 3
    assert left_by_a_crash(folder, tmp_path).opened() == {1: b"a long one"}
    journal.settle(1, PAYLOAD)
    journal.flushed(journal.sequence)
    journal.close()
    assert list(folder.iterdir()) == []


def test_an_open_that_is_written_again_is_on_disk_before_the_old_one_goes(journal: Journal, folder: Path) -> None:
    journal.open(1, b"a long one")
    for _ in range(30):
        journal.settle(0, PAYLOAD)
    oldest = segments(folder)[0]
    journal.flushed(journal.sequence)
    journal.flushed(journal.sequence)
    assert segments(folder)[0] == oldest
    journal.sync()
    journal.flushed(journal.sequence)
    assert segments(folder)[0] != oldest


def test_an_open_that_is_written_again_hides_no_younger_one(journal: Journal, folder: Path, tmp_path: Path) -> None:
    journal.open(1, b"in the first segment")
    for _ in range(20):
        journal.settle(0, PAYLOAD)
    journal.open(2, b"in the second segment")
    for _ in range(20):
        journal.settle(0, PAYLOAD)
    for flushed in (20, 40):
        journal.flushed(flushed)
        journal.sync()
        journal.flushed(flushed)
    assert len(segments(folder)) == 2
    opened = left_by_a_crash(folder, tmp_path).opened()
    assert opened == {1: b"in the first segment", 2: b"in the second segment"}


def test_many_long_requests_are_not_copied_for_ever(journal: Journal, folder: Path, writes: Writes) -> None:
    """Their opens fill more than a segment: copying them with every flush would only write, and free nothing."""
    for ticket in range(1, 41):
        journal.open(ticket, PAYLOAD)
    journal.write()
    settled = 0
    for _ in range(100):
        journal.settle(0, PAYLOAD)
        settled += 24 + len(PAYLOAD)
        journal.sync()
        journal.flushed(journal.sequence)
    assert sum(writes) < 3 * (settled + 40 * (24 + len(PAYLOAD)))
    assert journal.bytes_on_disk < 64 * SEGMENT
    assert not journal.full


def test_more_may_wait_than_a_segment_holds(journal: Journal, folder: Path, tmp_path: Path) -> None:
    for ticket in range(1, 101):
        journal.open(ticket, b"%d" % ticket + PAYLOAD)
    assert journal.settle(0, PAYLOAD) == 1
    assert left_by_a_crash(folder, tmp_path).opened() == {ticket: b"%d" % ticket + PAYLOAD for ticket in range(1, 101)}


def test_the_largest_payload_fits_and_a_larger_one_is_refused(journal: Journal, folder: Path, tmp_path: Path) -> None:
    largest = bytes(journal.payload_limit)
    journal.settle(0, largest)
    for refused in (journal.open, journal.settle):
        with pytest.raises(ValueError, match="payloads at most"):
            refused(1, largest + b"x")
    assert [settled.payload for settled in left_by_a_crash(folder, tmp_path).settled()] == [largest]


@pytest.mark.parametrize("ticket", [0, -1, 2**64])
def test_a_ticket_that_cannot_be_written_is_refused_at_once(journal: Journal, ticket: int) -> None:
    with pytest.raises(ValueError, match="tickets are below"):
        journal.open(ticket, PAYLOAD)
    journal.open(2**64 - 1, PAYLOAD)
    assert journal.settle(2**64 - 1, PAYLOAD) == 1


def test_the_database_cannot_be_ahead(journal: Journal) -> None:
    journal.settle(0, PAYLOAD)
    with pytest.raises(ValueError, match="last settle is 1"):
        journal.flushed(2)


def test_synced_tells_what_is_on_disk_or_in_the_database(journal: Journal) -> None:
    for _ in range(60):
        journal.settle(0, PAYLOAD)
    assert journal.synced_sequence == 0
    journal.sync()
    assert journal.synced_sequence == 60
    for _ in range(60):
        journal.settle(0, PAYLOAD)
    assert journal.synced_sequence == 60
    journal.flushed(100)
    assert journal.synced_sequence == 100


@pytest.mark.parametrize("unfinished", ["", "settle", "written open", "waiting open"])
def test_close_leaves_what_somebody_must_recover(journal: Journal, folder: Path, unfinished: str) -> None:
    for _ in range(60):
        journal.settle(0, PAYLOAD)
    journal.flushed(60)
    if unfinished == "settle":
        journal.settle(0, PAYLOAD)
    elif unfinished:
        journal.open(1, PAYLOAD)
    if unfinished == "written open":
        journal.write()
    journal.close()
    assert dead_holders(folder) == (["a-1"] if unfinished else [])
    if unfinished:
        recovery = Recovery.take(folder, "a-1", installation="here")
        assert recovery is not None
        assert [settled.sequence for settled in recovery.settled(60)] == ([61] if unfinished == "settle" else [])
        assert recovery.opened() == ({1: PAYLOAD} if "open" in unfinished else {})
        recovery.finish()
    assert list(folder.iterdir()) == []


def test_only_the_owner_can_read_it(journal: Journal, folder: Path) -> None:
    journal.settle(0, PAYLOAD)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_no_file_stays_open(folder: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for holder in ("a", "b"):
        journal = Journal.create(
            folder, holder=holder, installation="here", segment_bytes=SEGMENT, limit_bytes=64 * SEGMENT
        )
        for _ in range(100):
            journal.settle(0, PAYLOAD)
        journal.sync()
        journal.flushed(100 if holder == "a" else 50)
        journal.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"holder": "Upper"}, "a holder has"),
        ({"holder": ""}, "a holder has"),
        ({"holder": "../x"}, "a holder has"),
        ({"installation": ""}, "an installation has"),
        ({"installation": "é"}, "an installation has"),
        ({"installation": "x" * 65}, "an installation has"),
        ({"segment_bytes": 100}, "a segment has"),
        ({"segment_bytes": 2**30}, "a segment has"),
        ({"limit_bytes": SEGMENT}, "two segments"),
    ],
)
def test_what_cannot_be_a_journal_is_refused(folder: Path, change: dict[str, object], words: str) -> None:
    usual = {"holder": "a", "installation": "here", "segment_bytes": SEGMENT, "limit_bytes": 64 * SEGMENT}
    with pytest.raises(ValueError, match=words):
        Journal.create(folder, **{**usual, **change})  # pyright: ignore[reportArgumentType]
    assert not folder.exists()


def test_a_holder_begins_once(journal: Journal, folder: Path) -> None:
    with pytest.raises(JournalError, match=r"a-1\.lock is held by another process"):
        Journal.create(folder, holder="a-1", installation="here", limit_bytes=2**24)
    journal.settle(0, PAYLOAD)
    journal.close()
    with pytest.raises(JournalError, match="those of an earlier process"):
        Journal.create(folder, holder="a-1", installation="here", limit_bytes=2**24)
    assert dead_holders(folder) == ["a-1"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalError, match="file/journal cannot be used: Not a directory"):
        Journal.create(tmp_path / "file" / "journal", holder="a", installation="here", limit_bytes=2**24)
