"""
The append-only journal: what a process holds and has charged, on disk before an answer ends.

`Journal` writes, `Recovery` takes over what a dead process left, `inspect` and `settles_after` only look. The files
are described in `format`. They need a Unix and a folder that belongs to one machine.
"""

from .chain import Damage, Settled
from .errors import JournalError, JournalFull
from .folder import dead_holders, holders, live_holders
from .inspection import HolderState, inspect, settles_after
from .journal import Journal
from .recovery import Recovery

__all__ = [
    "Damage",
    "HolderState",
    "Journal",
    "JournalError",
    "JournalFull",
    "Recovery",
    "Settled",
    "dead_holders",
    "holders",
    "inspect",
    "live_holders",
    "settles_after",
]
