"""Log rows and hourly sums into a database of their own, after the main one has taken the charges."""

from collections import deque

from ..store import Store, charges
from ..store.batch import Batch


class LogWriter:
    """
    Batches in the order in which the main database took them. The log database has a cursor of its own, so a batch is
    written once there too; until then the journal keeps it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: deque[Batch] = deque()
        self._flushed = 0

    def add(self, batch: Batch) -> None:
        """The main database has it."""
        self.waiting.append(batch)

    async def flush(self) -> int:
        """Write what waits; the number of the last charge that both databases have. Raises `StoreError`."""
        while self.waiting:
            batch = self.waiting[0]
            await charges.flush_logs(self.store, batch)
            self.waiting.popleft()
            self._flushed = batch.upto
        return self._flushed
