"""The store: tables, migrations and one repository a resource. The only part that speaks to the database."""

from .errors import (
    BadValue,
    BrokenReference,
    Conflict,
    ForeignDatabase,
    SchemaTooNew,
    StoreError,
    Unavailable,
    Unreadable,
    Unsupported,
)
from .store import Session, Store, Transaction

__all__ = [
    "BadValue",
    "BrokenReference",
    "Conflict",
    "ForeignDatabase",
    "SchemaTooNew",
    "Session",
    "Store",
    "StoreError",
    "Transaction",
    "Unavailable",
    "Unreadable",
    "Unsupported",
]
