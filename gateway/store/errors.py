"""What the store raises. Each engine's file says which of its driver's exceptions become which of these."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias


class StoreError(Exception):
    """Base of everything the store raises on purpose. No message holds a password."""


class Unsupported(StoreError):
    """A database URL that cannot be served: unknown, unreadable, or with an option that is not understood."""


class Conflict(StoreError):
    """A value that must be unique is taken, such as a username."""


class BrokenReference(StoreError):
    """A row names another row that does not exist, such as a token of an unknown user."""


class BadValue(StoreError):
    """A value that its column cannot hold: text too long or with a forbidden character, a number out of range."""


class Unreadable(StoreError):
    """A row with a value that this version does not know: a newer one wrote it."""


class Unavailable(StoreError):
    """
    The database cannot answer now: unreachable, locked for too long, full, read-only, without rights or no database.

    The transaction was not committed. Only where the connection broke at the very moment of the commit nobody can
    tell; whoever gives the work again must make sure that it counts once.
    """


class Contended(Unavailable):
    """The server ended this transaction in favour of another. It left nothing; the same work may succeed again."""


class SchemaTooNew(StoreError):
    """The database was written by a newer Tollway. Nothing was changed."""


class ForeignDatabase(StoreError):
    """The database already holds another program's tables. Nothing was changed."""


Meaning: TypeAlias = Callable[[BaseException], StoreError | None]
"""What a driver's exception means; None for a defect of ours."""


@contextmanager
def translated(meaning: Meaning) -> Generator[None]:
    """Turn the driver's exceptions into the store's. An error of our own SQL passes as it is."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        found = meaning(error)
        if found is None:
            raise
        raise found from error
