"""The ledger: balances in memory, charges written down in batches."""

from .store_ledger import StoreLedger

__all__ = ["StoreLedger"]
