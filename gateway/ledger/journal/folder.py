"""The journal's folder: how its files are called, which holders it has, and which of them live."""

import fcntl
import os
import re
import time
from pathlib import Path
from typing import Final, NamedTuple

from .errors import JournalError, named

SEGMENT: Final = re.compile(r"([a-z0-9-]{1,64})\.(\d{8,10})\.journal")
LOCK: Final = re.compile(r"([a-z0-9-]{1,64})\.lock")
HOLDER: Final = re.compile(r"[a-z0-9-]{1,64}")

TRIES: Final = 200
PAUSE: Final = 0.002


class SegmentFile(NamedTuple):
    number: int
    path: Path


def segment_path(folder: Path, holder: str, number: int) -> Path:
    return folder / f"{holder}.{number:08}.journal"


def segments_of(folder: Path, holder: str) -> list[SegmentFile]:
    """The holder's segments by number. Raises `JournalError`."""
    found = (SEGMENT.fullmatch(name) for name in _names(folder))
    return sorted(
        SegmentFile(int(match[2]), folder / match[0]) for match in found if match is not None and match[1] == holder
    )


def holders(folder: Path) -> list[str]:
    """Every holder that has left a segment or a lock, sorted. Raises `JournalError`."""
    found = (SEGMENT.fullmatch(name) or LOCK.fullmatch(name) for name in _names(folder))
    return sorted({match[1] for match in found if match is not None})


def dead_holders(folder: Path) -> list[str]:
    """The holders whose process has ended, sorted. Raises `JournalError`."""
    return [holder for holder in holders(folder) if not is_alive(folder, holder)]


def live_holders(folder: Path) -> list[str]:
    """The holders whose process runs, sorted. Raises `JournalError`."""
    return [holder for holder in holders(folder) if is_alive(folder, holder)]


def is_alive(folder: Path, holder: str) -> bool:
    """Whether some process has the holder's lock: the holder itself, or one that recovers it."""
    path = folder / f"{holder}.lock"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return not _shared(fd)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise named(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed and deleted in it durable. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class HolderLock:
    """
    The lock of one holder, held until it is released or the process ends.

    Who only looks takes it shared for an instant. So a lock that is taken exclusively has an owner, and one that is
    shared is merely looked at: `take` waits for it.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, folder: Path, holder: str) -> "HolderLock | None":
        """The lock, made if there is none; None when somebody else has it. Raises `JournalError`."""
        path = folder / f"{holder}.lock"
        try:
            for _ in range(TRIES):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                if _exclusive(fd):
                    if _is_at(fd, path):
                        return cls(path, fd)
                    os.close(fd)  # its owner was done with it and deleted it, after we opened it
                    continue
                only_looked_at = _shared(fd)
                os.close(fd)
                if not only_looked_at:
                    return None
                time.sleep(PAUSE)
        except OSError as error:
            raise named(path, error) from error
        raise JournalError(f"The journal's {path} cannot be locked: others look at it all the time")

    @classmethod
    def take_new(cls, folder: Path, holder: str) -> "HolderLock | None":
        """
        As `take`, for a holder that begins. Who looked in the instant between the making of the lock and its locking
        takes the holder for dead, finds that it left nothing, and gives it back: that is waited for.
        """
        for _ in range(TRIES):
            lock = cls.take(folder, holder)
            if lock is not None or segments_of(folder, holder):
                return lock
            time.sleep(PAUSE)
        return None

    def release(self, *, delete: bool) -> None:
        """Give it up, unless that was done before; with `delete`, nothing is left of it. Raises `OSError`."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            if delete:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(fd)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []  # nothing was ever written
    except OSError as error:
        raise named(folder, error) from error


def _exclusive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shared(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
