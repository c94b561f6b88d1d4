"""One segment that is being written: a file with its room already taken, and one end."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from .format import HEADER_SIZE, Entry, Header, encode, salt_of


class Segment:
    """
    A file of `size` bytes. `allocate` takes the room, `begin` makes it a segment, `append` fills it.

    Positions are explicit (pwrite): a write that failed leaves the end where it was, and the next one goes over it.
    """

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.size = size
        self.number = 0
        self.last = 0
        """The number of the last settle when the segment was closed."""
        self.offset = 0
        self._salt = 0
        self._spoilt = 0  # bytes behind the end that a write left which failed

    @classmethod
    def allocate(cls, path: Path, size: int) -> "Segment":
        """An empty file that has its room on the disk. Raises `OSError`, and then there is no file."""
        # Truncated, for an earlier attempt may not have been able to delete it; the name is this process's alone.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                path.unlink()
            raise
        return cls(path, fd, size)

    def begin(self, header: Header) -> None:
        """Write the header. Raises `OSError`."""
        self.number = header.number
        self._salt = salt_of(header.installation, header.holder, header.number)
        self.offset = 0
        self._write(header.encode())
        self.offset = HEADER_SIZE

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return self.size - self.offset

    def append(self, entries: list[Entry], last: int) -> int:
        """
        Write as many of `entries`, from the first, as there is room for, with one write; how many.

        `last` is the number of the last settle so far. Raises `OSError`, and then none is written.
        """
        data, count = encode(entries, salt=self._salt, offset=self.offset, limit=self.size, last=last)
        if count:
            self._write(data)
            self.offset += len(data)
        return count

    def close(self) -> None:
        """Nothing can be written any more."""
        fd, self.fd = self.fd, -1  # the number may soon be another file's, and must not be written to by mistake
        os.close(fd)

    def _write(self, data: bytes) -> None:
        if self._spoilt:
            self._erase()
        done = 0
        try:
            done = os.pwrite(self.fd, data, self.offset)
            while done < len(data):
                done += _some(os.pwrite(self.fd, data[done:], self.offset + done))
        except OSError:
            self._spoilt = len(data)
            with suppress(OSError):
                self._erase()
            raise

    def _erase(self) -> None:
        """Whole records may stand in what was written in vain, and what is written next may be shorter."""
        done = 0
        while done < self._spoilt:
            done += _some(os.pwrite(self.fd, bytes(self._spoilt - done), self.offset + done))
        self._spoilt = 0


def _some(written: int) -> int:
    if not written:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return written
