"""What goes wrong on the command line, as one sentence and an exit status."""

import sqlite3

from ...config.settings import SettingError


class Failure(Exception):
    """The command could not do it. Exit status 1."""

    status = 1


class Usage(Failure):
    """The command was called in a way that cannot be right. Exit status 2."""

    status = 2


def explained(error: Exception) -> Failure | None:
    """The failure that a foreseen exception means; None for a defect of ours, which keeps its traceback."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, SettingError):
        return Usage(str(error))
    # Only now, so that a wrong argument costs no import of the store.
    from ...config.groups import GroupError
    from ...config.options import OptionError
    from ..data_dir import DataDirError
    from ..ledger.journal import JournalError
    from ..secrets_at_rest import CannotDecrypt
    from ..store import StoreError, Unavailable, Unsupported

    if isinstance(error, (GroupError, OptionError)):
        return Failure(f"a stored option cannot be used: {error}; see tollway option unset")
    if isinstance(error, Unsupported):
        return Usage(f"the database cannot be used: {error}")
    if isinstance(error, Unavailable):
        return Failure(f"the database cannot be used now: {error}")
    if isinstance(error, sqlite3.DatabaseError):
        return Failure(f"the database cannot be read: {error}")
    if isinstance(error, CannotDecrypt):
        return Failure(f"CRYPTO_SECRET is not the one that was used before: {error}")
    if isinstance(error, (DataDirError, JournalError, StoreError)):
        return Failure(str(error))
    return None
