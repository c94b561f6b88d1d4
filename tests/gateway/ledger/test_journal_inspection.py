"""A look at journals that are being written, or left behind: it changes nothing and sees no damage where none is."""

import io
import os
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from tollway.gateway.ledger.journal import Journal, inspect, settles_after

SEGMENT = 4096
PAYLOAD = b"p" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def create(folder: Path, holder: str) -> Journal:
    return Journal.create(folder, holder=holder, installation="here", segment_bytes=SEGMENT, limit_bytes=1000 * SEGMENT)


def test_every_holder_is_told(folder: Path) -> None:
    assert inspect(folder, installation="here") == []
    dead = create(folder, "dead")
    dead.open(1, PAYLOAD)
    for _ in range(40):
        dead.settle(0, PAYLOAD)
    dead.close()
    living = create(folder, "living")
    living.open(1, PAYLOAD)
    living.open(2, PAYLOAD)
    living.settle(1, PAYLOAD)
    before = {path: path.stat() for path in folder.iterdir()}
    first, second = inspect(folder, installation="here")
    assert {path: path.stat() for path in folder.iterdir()} == before
    assert (first.holder, first.alive, first.first_sequence, first.last_sequence) == ("dead", False, 1, 40)
    assert (first.opens, first.bytes, first.torn_bytes, first.damages) == (1, 3 * SEGMENT, 0, ())
    assert (second.holder, second.alive, second.first_sequence, second.last_sequence) == ("living", True, 1, 1)
    assert (second.opens, second.bytes, second.damages) == (1, 2 * SEGMENT, ())


def test_the_last_number_is_known_when_all_settles_are_gone(folder: Path) -> None:
    journal = create(folder, "a")
    for _ in range(17):
        journal.settle(0, PAYLOAD)
    journal.open(1, PAYLOAD)
    journal.write()
    assert inspect(folder, installation="here")[0].last_sequence == 17


def test_damage_and_files_of_others_are_told(folder: Path) -> None:
    create(folder, "a").settle(0, PAYLOAD)
    (state,) = inspect(folder, installation="there")
    assert [damage.reason for damage in state.damages][:1] == [
        "it belongs to the installation 'here': it is left as it is"
    ]


@pytest.mark.parametrize("after", [0, 1, 39, 40, 100])
def test_settles_after_a_number(folder: Path, after: int) -> None:
    journal = create(folder, "a")
    for _ in range(100):
        journal.settle(0, PAYLOAD)
    found = [settled.sequence for settled in settles_after(folder, "a", after, installation="here")]
    assert found == list(range(after + 1, 101))


def test_only_the_segments_that_matter_are_read(folder: Path) -> None:
    journal = create(folder, "a")
    for _ in range(100):
        journal.settle(0, PAYLOAD)
    oldest = min(folder.glob("*.journal"))
    os.truncate(oldest, 200)
    assert [settled.sequence for settled in settles_after(folder, "a", 90, installation="here")] == list(range(91, 101))


def test_a_segment_that_begins_between_two_looks_at_it_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = create(folder, "a")
    spare = folder / "a.00000002.journal"
    looks = 0
    really_open = Path.open

    def bytes_of(path: Path) -> bytes:
        with really_open(path, "rb") as file:
            return file.read()

    def open_and_begin(path: Path, mode: str) -> BinaryIO:
        nonlocal looks
        if path != spare:
            return cast(BinaryIO, really_open(path, mode))
        looks += 1
        before = io.BytesIO(bytes_of(path))
        while looks == 1 and not any(bytes_of(spare)):
            journal.settle(0, PAYLOAD)
        return before

    monkeypatch.setattr(Path, "open", open_and_begin)
    (state,) = inspect(folder, installation="here")
    assert looks > 1
    assert state.damages == ()
    assert state.last_sequence == journal.sequence > 0


def test_a_writer_at_full_speed_is_never_seen_damaged(folder: Path) -> None:
    """It rotates and deletes all the time; whoever looks sees each settle from some number on, without a gap."""
    journal = create(folder, "a")
    stop = threading.Event()

    def run() -> None:
        ticket = 0
        while not stop.is_set():
            ticket += 1
            journal.open(ticket, PAYLOAD)
            if ticket % 3:
                journal.write()
            journal.settle(ticket, b"%d" % ticket)
            if ticket % 50 == 0:
                journal.flushed(max(0, journal.sequence - 100))
            if ticket % 200 == 0:
                journal.sync()

    writer = threading.Thread(target=run)
    writer.start()
    try:
        seen = 0
        for _ in range(60):
            flushed = max(0, journal.sequence - 100)
            found = list(settles_after(folder, "a", flushed, installation="here"))
            assert all(settled.payload == b"%d" % settled.ticket for settled in found)
            numbers = [settled.sequence for settled in found]
            assert numbers == sorted(set(numbers))
            (state,) = inspect(folder, installation="here")
            assert state.damages == ()
            assert state.alive
            assert state.last_sequence >= seen
            seen = state.last_sequence
    finally:
        stop.set()
        writer.join()
    assert seen > 200
