"""What the store raises, and the one place where a driver's exceptions become these."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

# https://www.sqlite.org/rescode.html: the low byte is the primary code.
BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB = 5, 6, 8, 10, 11, 13, 14, 26
UNAVAILABLE = frozenset({BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB})


class StoreError(Exception):
    """Base of everything the store raises on purpose."""


class Unsupported(StoreError):
    """A database URL that cannot be served: unknown, unreadable, or its driver is not installed."""


class Conflict(StoreError):
    """A value that must be unique is taken, such as a username."""


class BrokenReference(StoreError):
    """A row names another row that does not exist, such as a token of an unknown user."""


class Unavailable(StoreError):
    """The database cannot answer now: locked for too long, disk full, file gone or no database. Nothing was written."""


class SchemaTooNew(StoreError):
    """The database was written by a newer Tollway. Nothing was changed."""


class ForeignDatabase(StoreError):
    """The database already holds another program's tables. Nothing was changed."""


@contextmanager
def translated() -> Generator[None]:
    """Turn the driver's exceptions into the store's. An error of our own SQL passes as it is."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError) as exc:
        meaning = _meaning(exc.orig if isinstance(exc, DBAPIError) else exc)
        if meaning is None:
            raise
        raise meaning from exc


def _meaning(exc: BaseException | None) -> StoreError | None:
    match exc:
        case sqlite3.IntegrityError(sqlite_errorname="SQLITE_CONSTRAINT_UNIQUE" | "SQLITE_CONSTRAINT_PRIMARYKEY"):
            return Conflict(str(exc))
        case sqlite3.IntegrityError(sqlite_errorname="SQLITE_CONSTRAINT_FOREIGNKEY"):
            return BrokenReference(str(exc))
        case sqlite3.Error(sqlite_errorcode=code) if code & 0xFF in UNAVAILABLE:
            return Unavailable(str(exc))
        case OSError():
            return Unavailable(f"{exc.filename}: {exc.strerror}")
        case _:
            return None
