"""
The journal of one process: what it holds and what it has charged, written down before an answer ends.

    open     money is held for a request         waits in memory for the next write
    settle   the request was charged             written at once, together with all that waits
    release  it ended without a charge           waits; together with an open that still waits, both vanish

The database takes the settles in their order, and `flushed` tells how far it is. A segment goes when the database has
all its settles and none of its opens lives. Opens that outlive everything else of their segments are written again
into the current one. Segments always go from the oldest on, so that a hole in their numbers means a lost file.

One segment beyond the current one always has its room on the disk already. When the next one cannot have it the
journal is `full`: no new request may begin, and what room there is belongs to the settles of those under way.
"""

from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final

from .errors import JournalError, JournalFull, named
from .folder import HOLDER, HolderLock, segment_path, segments_of, sync_folder
from .format import (
    HEADER_SIZE,
    LARGEST_SEGMENT,
    OPEN,
    PAYLOAD_LIMIT,
    RECORD_SIZE,
    RELEASE,
    SETTLE,
    SMALLEST_SEGMENT,
    Entry,
    Header,
)
from .segment import Segment
from .syncer import Syncer

SEGMENT_BYTES: Final = 4 * 1024 * 1024

WORTH_CARRYING: Final = 4
"""Opens are written again when that frees at least so many times their size."""


class Journal:
    """
    The journal of one holder, from `create` to `close`.

    All methods belong to one thread, but for `sync`, which any thread may call at any time.
    """

    def __init__(
        self, lock: HolderLock, folder: Path, *, holder: str, installation: str, segment_bytes: int, limit_bytes: int
    ) -> None:
        self.folder = folder
        self.holder = holder
        self.installation = installation
        self.segment_bytes = segment_bytes
        self.limit_bytes = limit_bytes
        self.payload_limit = min(PAYLOAD_LIMIT, segment_bytes - HEADER_SIZE - RECORD_SIZE)
        """The largest payload, in bytes."""
        self.sequence = 0
        """The number of the last settle."""
        self._lock = lock
        self._waiting: dict[int, Entry] = {}  # opens and releases that are not written, by ticket
        # Opens that are written and have not ended, with the number of their segment, in ascending order of it.
        self._live: dict[int, tuple[int, Entry]] = {}
        self._flushed = 0
        self._carries = 0
        self._write_error = ""
        self._shortage = ""
        self._spare: Segment | None = None
        self._closed: list[Segment] = []  # segments before the current one that are still needed, oldest first
        self._current = Segment.allocate(segment_path(folder, holder, 1), segment_bytes)
        self._current.begin(self._header(1))
        self._syncer = Syncer(folder, self._current)
        self._make_spare()

    @classmethod
    def create(
        cls, folder: Path, *, holder: str, installation: str, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES
    ) -> "Journal":
        """
        A new journal in `folder` (made if missing, mode 0700).

        `holder` is unique for each start of a process. `limit_bytes` bounds this holder's files together: at least two
        segments. Raises `ValueError`, `JournalError`.
        """
        if not HOLDER.fullmatch(holder):
            raise ValueError("a holder has 1 to 64 of the characters a-z, 0-9 and -")
        if not (installation.isascii() and installation.isprintable() and 0 < len(installation) <= 64):
            raise ValueError("an installation has 1 to 64 printable ASCII characters")
        if not SMALLEST_SEGMENT <= segment_bytes <= LARGEST_SEGMENT:
            raise ValueError(f"a segment has {SMALLEST_SEGMENT} to {LARGEST_SEGMENT} bytes")
        if limit_bytes < 2 * segment_bytes:
            raise ValueError(f"a journal needs room for two segments, {2 * segment_bytes} bytes")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise named(folder, error) from error
        lock = HolderLock.take_new(folder, holder)
        if lock is None:
            raise JournalError(f"The journal's {folder / holder}.lock is held by another process")
        try:
            if segments_of(folder, holder):
                raise JournalError(f"The journal's {folder / holder}.*.journal are those of an earlier process")
            return cls(
                lock,
                folder,
                holder=holder,
                installation=installation,
                segment_bytes=segment_bytes,
                limit_bytes=limit_bytes,
            )
        except OSError as error:
            lock.release(delete=False)
            raise named(segment_path(folder, holder, 1), error) from error
        except JournalError:
            lock.release(delete=False)
            raise

    def open(self, ticket: int, payload: bytes) -> None:
        """Money is held for request `ticket`: 1 to 2**64 - 1, never used again. Raises `ValueError`."""
        if not ticket or ticket >> 64 or len(payload) > self.payload_limit:
            raise self._refused(ticket, payload)
        self._waiting[ticket] = (OPEN, ticket, payload)

    def settle(self, ticket: int, payload: bytes) -> int:
        """
        Request `ticket` is charged; 0 when it was never opened. The settle's sequence number: 1, 2, 3 ...

        When this returns, the settle has left the process: it survives its death, and after the next `sync` that of
        the machine. Raises `JournalError`, and then the request is as open as before; `ValueError`.
        """
        if ticket >> 64 or len(payload) > self.payload_limit:
            raise self._refused(ticket, payload)
        waiting = self._waiting
        own = waiting.pop(ticket, None)  # an open that is followed by its settle need not be written
        settle = (SETTLE, ticket, payload)  # the first to be written: the others can wait if there is no room
        before = self.sequence
        try:
            self._place([settle, *waiting.values()] if waiting else [settle])
        except JournalError:
            if self.sequence == before:
                if own is not None:
                    waiting[ticket] = own
                raise
        return self.sequence

    def release(self, ticket: int) -> None:
        """Request `ticket` ended without a charge. Nothing happens when it has ended before."""
        if self._waiting.pop(ticket, None) is None and self._live.pop(ticket, None) is not None:
            self._waiting[ticket] = (RELEASE, ticket, b"")

    def write(self) -> None:
        """Write what waits, and try to get room if there is none. What goes wrong shows in `failing` and `full`."""
        if self._spare is None:
            self._make_spare()
        if self._write_error:
            self._waiting[0] = (RELEASE, 0, b"")  # nobody's: it only shows whether writing works again
        if self._waiting:
            with suppress(JournalError):
                self._place(list(self._waiting.values()))

    def sync(self) -> None:
        """Make all that was written durable. May take long. What goes wrong shows in `failing`."""
        self._syncer.sync(lambda: (self.sequence, self._carries))

    def flushed(self, sequence: int) -> None:
        """The database has every settle up to `sequence`. Deletes what is not needed any more."""
        if sequence > self.sequence:
            raise ValueError(f"the last settle is {self.sequence}: the database cannot have {sequence}")
        self._flushed = max(self._flushed, sequence)
        if self._syncer.flushed(sequence) and self._spare is not None:
            with suppress(JournalError):
                self._begin_next(None)  # nothing more goes into a file that could not be synced
        # Opens that were written again must be on disk before the older copy goes.
        if self._syncer.synced_carries == self._carries:
            self._delete_unneeded()
            self._carry_opens()
        if self._spare is None:
            self._make_spare()

    def close(self) -> bool:
        """
        Write and sync all. Deletes the files when nothing in them is needed, else leaves them for recovery; whether
        they are gone. What is settled later is refused. Raises `JournalError`.
        """
        self.write()
        self.sync()
        finished = self._flushed == self.sequence and not self._live and not self._waiting
        self._syncer.close()
        try:
            if self._spare is not None:
                self._spare.close()
                self._spare.path.unlink()
            if finished:
                for segment in (*self._closed, self._current):
                    segment.path.unlink()
            self._lock.release(delete=finished)
            sync_folder(self.folder)
        except OSError as error:
            raise named(self.folder, error) from error
        return finished

    @property
    def bytes_on_disk(self) -> int:
        """What this holder's segments take, with the room that is reserved."""
        return self.segment_bytes * (len(self._closed) + 1 + (self._spare is not None))

    @property
    def full(self) -> bool:
        """Whether there is no room beyond the current segment: no new request may begin."""
        return self._spare is None

    @property
    def shortage(self) -> str:
        """Why the journal is `full`, in a sentence; empty while it is not."""
        return self._shortage if self._spare is None else ""

    @property
    def failing(self) -> str:
        """Why the journal cannot be written or made durable now, in a sentence; empty while it can."""
        return self._write_error or self._syncer.error

    @property
    def synced_sequence(self) -> int:
        """Every settle up to it is on disk, or in the database."""
        return max(self._syncer.synced, self._flushed)

    def _place(self, entries: list[Entry]) -> None:
        """
        Write `entries`, going on in the next segment when the current one is full or cannot be written.

        Raises `JournalError`; some of them, from the first, may then have been written.
        """
        failure: JournalError | None = None
        while True:
            try:
                taken = self._append(entries)
            except OSError as error:
                if failure is not None:
                    raise self._failed(self._current, error) from error
                taken, failure = 0, self._failed(self._current, error)
            if taken == len(entries):
                return
            entries = entries[taken:]
            self._begin_next(failure)

    def _append(self, entries: list[Entry]) -> int:
        """Write what fits of `entries` into the current segment; how many. Raises `OSError`, and then none is."""
        segment = self._current
        taken = segment.append(entries, self.sequence)
        for entry in entries if taken == len(entries) else entries[:taken]:
            kind, ticket, _ = entry
            if kind == SETTLE:
                self.sequence += 1
                self._live.pop(ticket, None)
            else:
                self._waiting.pop(ticket, None)
                if kind == OPEN:
                    self._live.pop(ticket, None)  # so that it goes to the end
                    self._live[ticket] = (segment.number, entry)
        if taken:
            self._write_error = ""
        return taken

    def _begin_next(self, failure: JournalError | None) -> None:
        """
        Go on in the next segment, and get room for the one after.

        Raises `JournalError`: `failure`, which was why, if there is no next one.
        """
        if self._spare is None:
            self._make_spare()
        if self._spare is None:
            raise failure or JournalFull(self._shortage)
        try:
            self._spare.begin(self._header(self._current.number + 1))
        except OSError as error:
            raise self._failed(self._spare, error) from error
        self._current.last = self.sequence
        self._closed.append(self._current)
        self._current, self._spare = self._spare, None
        self._syncer.began(self._current)
        self._make_spare()

    def _make_spare(self) -> None:
        if self.bytes_on_disk + self.segment_bytes > self.limit_bytes:
            self._shortage = f"The journal has reached its limit of {self.limit_bytes} bytes"
            return
        path = segment_path(self.folder, self.holder, self._current.number + 1)
        try:
            self._spare = Segment.allocate(path, self.segment_bytes)
        except OSError as error:
            self._shortage = str(named(path, error))

    def _delete_unneeded(self) -> None:
        """Delete the oldest segments as long as the database has their settles and none of their opens lives."""
        oldest_live = next((number for number, _ in self._live.values()), self._current.number)
        while self._closed and self._closed[0].last <= self._flushed and self._closed[0].number < oldest_live:
            try:
                self._closed[0].path.unlink(missing_ok=True)
            except OSError as error:
                self._failed(self._closed[0], error)
                return
            del self._closed[0]

    def _carry_opens(self) -> None:
        """Write opens again if they are all that keeps the oldest segments; these go after the next sync."""
        held = list(takewhile(lambda segment: segment.last <= self._flushed, self._closed))
        if not held:
            return
        opens = [entry for _, entry in takewhile(lambda live: live[0] <= held[-1].number, self._live.values())]
        size = sum(RECORD_SIZE + len(payload) for _, _, payload in opens)
        room = self._current.room + (0 if self._spare is None else self.segment_bytes)
        if opens and size * WORTH_CARRYING <= len(held) * self.segment_bytes and size * 2 <= room:
            with suppress(JournalError):
                self._place(opens)
            self._carries += 1

    def _header(self, number: int) -> Header:
        return Header(self.installation, self.holder, number, first=self.sequence + 1)

    def _refused(self, ticket: int, payload: bytes) -> ValueError:
        limit = self.payload_limit
        return ValueError(
            f"ticket {ticket}, {len(payload)} bytes: tickets are below 2**64, payloads at most {limit} bytes"
        )

    def _failed(self, segment: Segment, error: OSError) -> JournalError:
        failure = named(segment.path, error)
        self._write_error = str(failure)
        return failure
