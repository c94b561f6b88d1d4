"""The ledger: leases in memory, an acknowledging journal, charges written down in batches."""

from .opening import open_ledger
from .store_ledger import StoreLedger

__all__ = ["StoreLedger", "open_ledger"]
