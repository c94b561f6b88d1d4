"""What a process that died has left, taken over by exactly one other."""

from collections.abc import Iterator
from pathlib import Path

from .chain import Chain, Damage, Settled
from .errors import named
from .folder import HolderLock, segments_of, sync_folder


class Recovery:
    """
    The journal of a dead holder, ours until `finish` or `close`.

    Take what `settled` and `opened` give into the database, and then call `finish`: it deletes the files, but keeps
    those with damage under the name `*.damaged`. After `close`, or when this process dies, another one may take it.
    """

    def __init__(self, lock: HolderLock, chain: Chain) -> None:
        self.holder = chain.holder
        self._lock = lock
        self._chain = chain
        for _ in chain.read():
            pass

    @classmethod
    def take(cls, folder: Path, holder: str, *, installation: str) -> "Recovery | None":
        """The holder's journal; None when it lives, somebody else has it, or it left none. Raises `JournalError`."""
        lock = HolderLock.take(folder, holder)
        if lock is None:
            return None
        try:
            if segments_of(folder, holder):
                return cls(lock, Chain(folder, holder, installation))
        except BaseException:
            lock.release(delete=False)
            raise
        lock.release(delete=True)
        return None

    @property
    def damages(self) -> list[Damage]:
        """What could not be read."""
        return self._chain.damages

    @property
    def owned(self) -> bool:
        """Whether there are files of this installation; those of another one, or of a newer version, are left alone."""
        return bool(self._chain.own)

    @property
    def torn_bytes(self) -> int:
        """Bytes of a last write that did not come to its end. Nobody was told that it had."""
        return self._chain.torn_bytes

    @property
    def first_sequence(self) -> int | None:
        """The first settle these files can hold; None if unknown. The database must have all before."""
        return self._chain.first

    @property
    def last_sequence(self) -> int:
        """The last settle that is known to have been written, 0 for none."""
        return self._chain.last

    def settled(self, after: int = 0) -> Iterator[Settled]:
        """The settles with numbers above `after`, ascending, each once."""
        return self._chain.settled(after)

    def opened(self) -> dict[int, bytes]:
        """
        The payloads of the requests that were neither settled nor released, by ticket.

        Where damage lost a settle or a release, a request that has ended may be among them.
        """
        return dict(self._chain.opened)

    def finish(self) -> None:
        """Everything is in the database. Raises `JournalError`: `close` then leaves the rest for another time."""
        damaged = {damage.file for damage in self.damages}
        try:
            for path in self._chain.own:  # oldest first: if we die here, it looks as if the holder had deleted them
                if path in damaged:
                    path.rename(path.with_name(f"{path.name}.damaged"))
                else:
                    path.unlink()
            self._lock.release(delete=True)
            sync_folder(self._chain.folder)
        except OSError as error:
            raise named(self._chain.folder, error) from error

    def close(self) -> None:
        """Leave all as it is, for another time. Nothing to do after `finish`."""
        self._lock.release(delete=False)
