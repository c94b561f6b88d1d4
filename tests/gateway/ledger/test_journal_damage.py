"""Every byte of a small journal cut and flipped: never a wrong record, and what is not hit is found."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tollway.gateway.ledger.journal import Damage, Recovery
from tollway.gateway.ledger.journal.format import OPEN, RELEASE, SETTLE, Entry, Header, encode, salt_of

HOLDER, INSTALLATION = "a-1", "here"
ZEROS = 24

# Three segments. Opens 1 and 2 are settled, 3 is released, 4 and 5 live on.
CONTENTS: list[list[Entry]] = [
    [(OPEN, 1, b"one"), (SETTLE, 0, b"first\0\0"), (OPEN, 2, b"two"), (SETTLE, 1, b"second")],
    [(OPEN, 3, b"three"), (SETTLE, 2, b"\xf5s\xf5o"), (OPEN, 4, b"four"), (RELEASE, 3, b"")],
    [(SETTLE, 0, b""), (OPEN, 5, b"five"), (SETTLE, 0, b"fifth"), (SETTLE, 0, b"sixth")],
]
SETTLED = {
    1: (0, b"first\0\0"),
    2: (1, b"second"),
    3: (2, b"\xf5s\xf5o"),
    4: (0, b""),
    5: (0, b"fifth"),
    6: (0, b"sixth"),
}
OPENED = {4: b"four", 5: b"five"}


@dataclass
class Place:
    """A record: from `start` to `end` of its file; `sequence` is 0 unless it is a settle."""

    start: int
    end: int
    sequence: int


def build() -> tuple[list[bytes], list[list[Place]]]:
    files: list[bytes] = []
    places: list[list[Place]] = []
    last = 0
    for number, entries in enumerate(CONTENTS, 1):
        data = Header(INSTALLATION, HOLDER, number, last + 1).encode()
        places.append([])
        for entry in entries:
            salt = salt_of(INSTALLATION, HOLDER, number)
            record, _ = encode([entry], salt=salt, offset=len(data), limit=2**20, last=last)
            last += entry[0] == SETTLE
            places[-1].append(Place(len(data), len(data) + len(record), last if entry[0] == SETTLE else 0))
            data += record
        files.append(data + bytes(ZEROS))
    return files, places


FILES, PLACES = build()


@dataclass
class Found:
    settled: dict[int, tuple[int, bytes]]
    opened: dict[int, bytes]
    damages: list[Damage]
    torn_bytes: int

    @property
    def lost(self) -> set[int]:
        return {sequence for damage in self.damages for sequence in damage.lost or ()}


def recover(folder: Path, files: list[bytes]) -> Found:
    for number, data in enumerate(files, 1):
        path = folder / f"{HOLDER}.{number:08}.journal"
        if not path.exists() or path.read_bytes() != data:
            path.unlink(missing_ok=True)  # some file systems sync a file that is truncated and written again
            path.write_bytes(data)
    recovery = Recovery.take(folder, HOLDER, installation=INSTALLATION)
    assert recovery is not None
    settled = list(recovery.settled())
    assert [item.sequence for item in settled] == sorted({item.sequence for item in settled})
    recovery.close()
    return Found(
        {item.sequence: (item.ticket, item.payload) for item in settled},
        recovery.opened(),
        recovery.damages,
        recovery.torn_bytes,
    )


def changed(number: int, data: bytes) -> list[bytes]:
    return [data if index == number else original for index, original in enumerate(FILES)]


def every_byte(number: int) -> Iterator[tuple[int, Place | None]]:
    for index in range(len(FILES[number])):
        yield index, next((place for place in PLACES[number] if place.start <= index < place.end), None)


def test_a_whole_journal_is_found_whole(tmp_path: Path) -> None:
    assert recover(tmp_path, FILES) == Found(SETTLED, OPENED, [], 0)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
@pytest.mark.parametrize("number", range(3))
def test_a_byte_that_is_flipped_costs_at_most_its_own_record(tmp_path: Path, number: int, flip: int) -> None:
    for index, hit in every_byte(number):
        data = bytearray(FILES[number])
        data[index] ^= flip
        found = recover(tmp_path, changed(number, bytes(data)))

        gone = {hit.sequence} - {0} if hit else set[int]()
        assert found.settled == {sequence: item for sequence, item in SETTLED.items() if sequence not in gone}, index
        last = number == 2 and (index >= PLACES[2][-1].start)
        if last:
            assert found.torn_bytes > 0
            assert found.damages == []
        else:
            assert found.lost == gone, index
            assert [damage.file.name for damage in found.damages] == [f"{HOLDER}.{number + 1:08}.journal"]
        # Opens are none but those that were made, and all that live, unless theirs is the record that was hit.
        assert found.opened.items() <= {1: b"one", 2: b"two", 3: b"three", **OPENED}.items()
        if hit is None or hit.sequence:
            assert found.opened.items() >= OPENED.items()


@pytest.mark.parametrize("cut", ["truncated", "zeros"])
def test_a_last_write_that_is_cut_anywhere_is_no_damage(tmp_path: Path, cut: str) -> None:
    data = FILES[2]
    for length in range(len(data)):
        rest = b"" if cut == "truncated" else bytes(len(data) - length)
        found = recover(tmp_path, changed(2, data[:length] + rest))
        whole = {
            place.sequence
            for place in PLACES[2]
            if place.end <= length or (cut == "zeros" and not any(data[length : place.end]))
        }
        assert found.settled == {number: item for number, item in SETTLED.items() if number <= 3 or number in whole}
        assert found.damages == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_cut_in_an_earlier_segment_names_what_it_lost(tmp_path: Path, number: int) -> None:
    for length in range(len(FILES[number])):
        found = recover(tmp_path, changed(number, FILES[number][:length]))
        assert found.settled.items() <= SETTLED.items()
        missing = set(SETTLED) - set(found.settled)
        assert missing <= {place.sequence for place in PLACES[number] if length < place.end}
        # The first segment's own beginning is told by its header alone: without it the caller's cursor tells.
        if number == 1 or length >= PLACES[0][0].start:
            assert found.lost == missing


def test_two_bytes_hit_in_neighbours_are_one_gap(tmp_path: Path) -> None:
    data = bytearray(FILES[2])
    data[PLACES[2][0].start] ^= 1
    data[PLACES[2][2].end - 1] ^= 1
    found = recover(tmp_path, changed(2, bytes(data)))
    assert set(found.settled) == {1, 2, 3, 6}
    assert found.lost == {4, 5}


def test_a_page_of_zeros_in_the_middle_is_a_gap(tmp_path: Path) -> None:
    start, end = PLACES[1][1].start, PLACES[1][1].end
    data = FILES[1][:start] + bytes(end - start) + FILES[1][end:]
    found = recover(tmp_path, changed(1, data))
    assert found.lost == {3} == set(SETTLED) - set(found.settled)
    assert found.damages[0].record == 2
    assert found.damages[0].offset == start


def test_records_of_another_place_or_file_are_not_believed(tmp_path: Path) -> None:
    """A segment whose bytes were moved, or taken from another holder's file, holds no records."""
    header, body = FILES[2][: PLACES[2][0].start], FILES[2][PLACES[2][0].start :]
    assert set(recover(tmp_path, changed(2, header + b"\0" + body)).settled) == {1, 2, 3}
    other = encode(CONTENTS[2], salt=salt_of(INSTALLATION, "a-2", 3), offset=len(header), limit=2**20, last=3)[0]
    assert set(recover(tmp_path, changed(2, header + other)).settled) == {1, 2, 3}


def test_what_was_given_up_for_the_next_segment_does_not_count(tmp_path: Path) -> None:
    """A write failed, but its bytes reached the disk; the settle was written again in the next segment."""
    salt = salt_of(INSTALLATION, HOLDER, 1)
    end = PLACES[0][-1].end
    ghost = encode([(SETTLE, 9, b"ghost"), (OPEN, 4, b"four")], salt=salt, offset=end, limit=2**20, last=2)[0]
    found = recover(tmp_path, changed(0, FILES[0][:end] + ghost))
    assert found == Found(SETTLED, OPENED, [], 0)


def test_noise_full_of_marks_is_read_in_reasonable_time(tmp_path: Path) -> None:
    noise = b"\xf5s\xff\xff" * 100_000
    found = recover(tmp_path, changed(2, FILES[2] + noise))
    assert found.settled == SETTLED
    assert found.torn_bytes > len(noise)
