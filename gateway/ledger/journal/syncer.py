"""What of a journal is on the disk: called from a thread of its own, beside the one that writes."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from .errors import named
from .folder import sync_folder
from .segment import Segment


class Syncer:
    """
    Makes segments durable, and tells up to which settle they are.

    When the system could not write something it forgets so after it has told once. So a failed `sync` leaves
    everything that was written until then in doubt, until the database has it.
    """

    def __init__(self, folder: Path, current: Segment) -> None:
        self.folder = folder
        self.error = ""
        self.synced = 0
        """The last settle that is on disk, with all before it."""
        self.synced_carries = 0
        """How many carries (opens that were written again) are on disk."""
        self._current = current
        self._closed: list[Segment] = []
        self._folder_changed = True
        self._flushed = 0
        self._doubtful = 0
        self._guard = Lock()  # over the fields; never held during I/O, for the writing thread takes it too
        self._one_at_a_time = Lock()

    def began(self, segment: Segment) -> None:
        """From now on `segment` grows. The file before it is closed with the next sync, deleted or not."""
        with self._guard:
            self._closed.append(self._current)
            self._current = segment
            self._folder_changed = True

    def flushed(self, sequence: int) -> bool:
        """The database has every settle up to `sequence`. Whether this ends a doubt."""
        with self._guard:
            ends_doubt = bool(self.error) and self._flushed < self._doubtful <= sequence
            self._flushed = max(self._flushed, sequence)
        return ends_doubt

    def sync(self, position: Callable[[], tuple[int, int]]) -> None:
        """Make durable what has been written. `position` tells the last settle and the carries so far."""
        with self._one_at_a_time:
            sequence, carries = position()  # before the look at the files: these hold at least so much
            with self._guard:
                folder_changed, self._folder_changed = self._folder_changed, False
                closed, self._closed = self._closed, []
                current = self._current
            try:
                for segment in (*closed, current):
                    os.fdatasync(segment.fd)
                if folder_changed:
                    sync_folder(self.folder)
            except OSError as error:
                with self._guard:
                    self.error = str(named(self.folder, error))
                    self._folder_changed |= folder_changed
                    self._doubtful = position()[0]  # what came while we synced may be lost as well
            else:
                with self._guard:
                    if self._doubtful <= self._flushed:
                        self.error = ""
                        self.synced = max(self.synced, sequence)
                        self.synced_carries = carries
            finally:
                for segment in closed:
                    segment.close()

    def close(self) -> None:
        """Close the files. Nothing may be written or synced after it."""
        for segment in (*self._closed, self._current):
            segment.close()
