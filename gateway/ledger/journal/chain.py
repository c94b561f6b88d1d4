"""
The segments of one holder, read one after the other as what they are together; and what is wrong with them.

    a torn tail                   nothing can be read after a place in the last segment: cut, and counted
    a damaged place               what stands before and after it is used; the settles between are named by number
    a missing segment             likewise
    a file that is not ours       of another installation, another version, or no journal at all: never touched

The order of reading makes it safe beside a writer: see `_load`.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import JournalError, named
from .folder import segment_path, segments_of
from .format import (
    HEADER_LIMIT,
    HEADER_SIZE,
    LARGEST_SEGMENT,
    MAGIC,
    OPEN,
    RECORD_SIZE,
    SETTLE,
    Hole,
    Record,
    UnknownVersion,
    read_header,
    read_records,
    salt_of,
)

ANY = range(2**64)
NONE = range(0)


@dataclass(frozen=True, slots=True)
class Damage:
    """
    A place that could not be read. `record` counts from 1 in its file; 0 is the header, or the file as a whole.

    `lost` are the numbers of the settles that are gone: maybe none, and None where that cannot be told. What the
    database has already is not lost: compare with the cursor.
    """

    file: Path
    record: int
    offset: int
    reason: str
    lost: range | None

    def __str__(self) -> str:
        gone = f"; charges {self.lost[0]} to {self.lost[-1]} are lost, but for what is written" if self.lost else ""
        return f"{self.file.name}: {self.reason}{gone}"


class Settled(NamedTuple):
    sequence: int
    ticket: int
    payload: bytes


class Vanished(JournalError):
    """A file that was listed is gone: its writer lives and did not need it any more."""


class _Segment(NamedTuple):
    number: int
    path: Path
    first: int | None


class Chain:
    """
    What a holder has left. Raises `JournalError` where a file cannot be read at all, `Vanished` included.

    `damages`, `torn_bytes`, `last` and `opened` are whole after `read` has come to its end.
    """

    def __init__(self, folder: Path, holder: str, installation: str) -> None:
        self.folder = folder
        self.holder = holder
        self.installation = installation
        self.damages: list[Damage] = []
        self.torn_bytes = 0
        self.last = 0
        """The number of the last settle that is known to have been written."""
        self.opened: dict[int, bytes] = {}
        """The payloads of what was opened and has not ended, by ticket."""
        self.own: list[Path] = []
        """This holder's files, oldest first: what may be deleted."""
        self.bytes = 0
        self._segments: list[_Segment] = []
        self._expected: int | None = None  # the number of the next settle
        self._hole: tuple[_Segment, Hole] | None = None  # seen last; what it lost is known at the next record
        for number, path in segments_of(folder, holder):
            self._add(number, path)

    @property
    def first(self) -> int | None:
        """The number of the first settle these files can hold. All before must be in the database."""
        return self._segments[0].first if self._segments else None

    def settled(self, after: int = 0) -> Iterator[Settled]:
        """The settles with numbers above `after`, ascending, each once. Looks for damage no more."""
        chain = Chain(self.folder, self.holder, self.installation)
        firsts = [segment.first for segment in chain._segments]
        begin = max((index for index, first in enumerate(firsts) if first and first <= after + 1), default=0)
        del chain._segments[:begin]
        for record in chain.read():
            if record.kind == SETTLE and record.sequence > after:
                yield Settled(record.sequence, record.ticket, record.payload)

    def read(self) -> Iterator[Record]:
        """Every record, in order; settles each once. Once only."""
        for index, segment in enumerate(self._segments):
            if segment.first is not None:
                self._join(self._segments[index - 1] if index else segment, segment.number, segment.first)
            # What the next segment claims was given up here.
            claimed = next((later.first for later in self._segments[index + 1 :] if later.first is not None), 2**64)
            for item in self._items(segment, *_load(segment.path)):
                if isinstance(item, Hole):
                    self._hole = segment, item
                elif item.sequence < claimed and self._takes(segment, item):
                    yield item
        if self._hole is not None:
            hole = self._hole[1]
            self.torn_bytes += hole.end - hole.offset

    def _add(self, number: int, path: Path) -> None:
        size = _size(path)
        if size is None:
            return self._refuse(path, "it is no file")
        self.bytes += size
        if size > LARGEST_SEGMENT:
            return self._refuse(path, "it is larger than a segment can be")
        try:
            header = read_header(_read(path, HEADER_LIMIT))
            if header is None:
                # Its writer may have begun it since: the header is looked for in the same bytes as the records.
                data, end = _load(path)
                header = read_header(data[:HEADER_LIMIT])
                if header is None:
                    return self._add_without_header(_Segment(number, path, None), data, end)
        except UnknownVersion as error:
            return self._refuse(path, str(error))
        if header.installation != self.installation:
            return self._refuse(path, f"it belongs to the installation {header.installation!r}")
        if (header.holder, header.number) != (self.holder, number):
            return self._refuse(path, f"it is segment {header.number} of the holder {header.holder!r}")
        self.own.append(path)
        self._segments.append(_Segment(number, path, header.first))

    def _add_without_header(self, segment: _Segment, data: bytes, end: int) -> None:
        path = segment.path
        if end < HEADER_SIZE and data[: min(end, len(MAGIC))] == MAGIC[:end]:
            self.torn_bytes += end  # not begun, or only just
            self.own.append(path)
        elif any(isinstance(item, Record) for item in self._items(segment, data, end)):
            self.damages.append(Damage(path, 0, 0, "its header is damaged", NONE))
            self.own.append(path)
            self._segments.append(segment)
        else:
            self._refuse(path, "it is no segment of this journal, or nothing of it can be read")

    def _refuse(self, path: Path, reason: str) -> None:
        self.damages.append(Damage(path, 0, 0, f"{reason}: it is left as it is", None))

    def _items(self, segment: _Segment, data: bytes, end: int) -> Iterator[Record | Hole]:
        salt = salt_of(self.installation, self.holder, segment.number)
        first = segment.first
        sequences = ANY if first is None else range(first - 1, first + len(data) // RECORD_SIZE)
        return read_records(data, end=end, salt=salt, sequences=sequences)

    def _join(self, before: _Segment, number: int, first: int) -> None:
        """Compare where segment `number` says that it begins with where the one before it ended."""
        if before.number + 1 < number:
            self._end_hole(None)
            path = segment_path(self.folder, self.holder, before.number + 1)
            reason = f"of the segments {before.number + 1} to {number - 1} none can be used"
            lost = None if self._expected is None else range(self._expected, first)
            self.damages.append(Damage(path, 0, 0, reason, lost))
            self._expected = first
        self._reach(before.path, 0, first)

    def _takes(self, segment: _Segment, record: Record) -> bool:
        """Whether this record is news."""
        self._reach(segment.path, record.offset, record.sequence + (record.kind != SETTLE))
        if record.kind == OPEN:
            self.opened[record.ticket] = record.payload
            return True
        self.opened.pop(record.ticket, None)
        if record.kind == SETTLE:
            if self._expected is not None and record.sequence < self._expected:
                return False
            self._expected = record.sequence + 1
            self.last = max(self.last, record.sequence)
        return True

    def _reach(self, path: Path, offset: int, sequence: int) -> None:
        """At this place every settle before `sequence` has been written: those not seen are lost."""
        lost = None if self._expected is None else range(self._expected, max(self._expected, sequence))
        if self._hole is not None:
            self._end_hole(lost)
        elif lost:
            self.damages.append(Damage(path, 0, offset, "records are missing", lost))
        self._expected = max(self._expected or 0, sequence)
        self.last = max(self.last, sequence - 1)

    def _end_hole(self, lost: range | None) -> None:
        if self._hole is not None:
            segment, hole = self._hole
            self.damages.append(
                Damage(segment.path, hole.number, hole.offset, f"bytes {hole.offset} to {hole.end} are no record", lost)
            )
            self._hole = None


def _size(path: Path) -> int | None:
    """The file's size; None when it is no regular file."""
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise Vanished(f"The journal's {path} is gone") from error
    except OSError as error:
        raise named(path, error) from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise Vanished(f"The journal's {path} is gone") from error
    except OSError as error:
        raise named(path, error) from error


def _load(path: Path) -> tuple[bytes, int]:
    """
    A segment's bytes, and the place from which on there were only zeros.

    It is read twice. A writer may append while we read, and a reading can then hold late bytes without the earlier
    ones. What stands before the end that the first reading saw is whole in the second.
    """
    end = len(_read(path).rstrip(b"\0"))
    return _read(path), end
