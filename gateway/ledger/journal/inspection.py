"""A look at the journals of all holders, living and dead, that changes and locks nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .chain import Chain, Damage, Settled, Vanished
from .folder import holders, is_alive

TRIES = 20
"""How often a holder's files may vanish while they are read: a segment goes once in thousands of requests."""


@dataclass(frozen=True, slots=True)
class HolderState:
    """
    One holder's journal as it stood for an instant.

    `first_sequence` is the first settle the files can hold (None: unknown, or there are none), `last_sequence` the
    last one written (0: none); `bytes` what the segments take; `opens` the requests without an end.
    """

    holder: str
    alive: bool
    first_sequence: int | None
    last_sequence: int
    bytes: int
    opens: int
    torn_bytes: int
    damages: tuple[Damage, ...]


def inspect(folder: Path, *, installation: str) -> list[HolderState]:
    """Every holder in `folder`, by name. Raises `JournalError` for a file that cannot be read."""
    return [_state(folder, holder, installation) for holder in holders(folder)]


def settles_after(folder: Path, holder: str, sequence: int, *, installation: str) -> Iterator[Settled]:
    """
    The holder's settles with numbers above `sequence`, ascending, each once; it may live and go on writing.

    What it deletes meanwhile is left out: the database has that. Raises `JournalError`.
    """
    for attempt in range(TRIES):
        try:
            for settled in Chain(folder, holder, installation).settled(sequence):
                yield settled
                sequence = settled.sequence
            return
        except Vanished:
            if attempt == TRIES - 1:
                raise


def _state(folder: Path, holder: str, installation: str) -> HolderState:
    for _ in range(TRIES - 1):
        try:
            return _try_state(folder, holder, installation)
        except Vanished:
            continue
    return _try_state(folder, holder, installation)


def _try_state(folder: Path, holder: str, installation: str) -> HolderState:
    alive = is_alive(folder, holder)
    chain = Chain(folder, holder, installation)
    for _ in chain.read():
        pass
    return HolderState(
        holder=holder,
        alive=alive,
        first_sequence=chain.first,
        last_sequence=chain.last,
        bytes=chain.bytes,
        opens=len(chain.opened),
        torn_bytes=chain.torn_bytes,
        damages=tuple(chain.damages),
    )
