"""
What can go wrong with the journal. Each message is one sentence that names the file.

    JournalError            a file cannot be read or written, or is in use
      JournalFull           there is no room: the disk, the quota or the journal's limit is used up
"""

import errno
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class JournalError(Exception):
    """The journal, or one of its files, cannot be used."""


class JournalFull(JournalError):
    """Nothing more can be written until there is room. What was written stands."""


def named(path: Path, error: OSError) -> JournalError:
    """The failure of the file at `path`, as ours."""
    kind = JournalFull if error.errno in NO_ROOM else JournalError
    return kind(f"The journal's {path} cannot be used: {error.strerror}")
