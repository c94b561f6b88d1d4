"""
The ledger of one process: it reserves and settles in memory, and writes the charges to the store in batches.

    balance in memory = balance in the row - charges not yet written

A charge leaves the balance at once and the row with its batch, so both agree again after each flush. One lock keeps
flushes and reloads apart: a row that was read before a flush must not be believed after it.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Iterable, Mapping

from ...adapters.errors import Unavailable
from ...middleware.memory import Account, MemoryLedger
from ...middleware.state import Charge, Hold, Principal
from ..store import Store, StoreError, charges
from ..store.records import ChargeRecord, TokenRow, UserRow
from .records import record_of

log = logging.getLogger("tollway.ledger")

FLUSH_EVERY = 0.2
FLUSH_AT = 1_000
MOST_PENDING = 200_000
"""Charges that may wait for a store that cannot be written; beyond it new work is refused."""


class StoreLedger(MemoryLedger):
    """Opens holds from memory. `run` writes charges for as long as the process serves; `close` writes the rest."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.lock = asyncio.Lock()
        self._pending: list[tuple[str, Charge]] = []
        self._writing: list[ChargeRecord] = []
        """The batch that is being written, or that could not be and is written again."""
        self.failing = False
        """Whether the last attempt to write charges came to nothing."""
        self._full = asyncio.Event()
        # Unique over processes and restarts, so that a batch that is written twice is charged once; and in the order
        # of time, which keeps the index's new entries together.
        self._prefix = f"{time.time_ns() // 1_000_000:011x}{os.urandom(5).hex()}"
        self._counter = itertools.count()

    async def open(self, principal: Principal, request_id: str) -> Hold:
        if len(self._pending) + len(self._writing) > MOST_PENDING:
            raise Unavailable("Charges cannot be written now. Try again later.", retry_after=5.0)
        return await super().open(principal, request_id)

    @property
    def pending(self) -> int:
        """Charges that have not been written yet."""
        return len(self._pending) + len(self._writing)

    def unwritten(self) -> list[ChargeRecord]:
        """The charges that have not been written yet, in their order."""
        return [*self._writing, *(record_of(charge_id, charge) for charge_id, charge in self._pending)]

    def load(self, users: Iterable[UserRow], tokens: Iterable[TokenRow]) -> None:
        """Take over balances as they stand in the store. Hold `lock` from reading them until this returns."""
        owed_users, owed_tokens = self._unwritten()
        for user in users:
            account = self.users.setdefault(user.id, Account(0))
            account.balance = user.quota - owed_users.get(user.id, 0)
        for token in tokens:
            account = self.tokens.setdefault(token.id, Account(0))
            account.limited = not token.unlimited
            account.balance = token.remain_quota - owed_tokens.get(token.id, 0)

    async def run(self) -> None:
        """Flush every 200 ms, or as soon as 1,000 charges wait."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_EVERY):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            try:
                await self.flush()
            except Exception:
                # The batch is kept and written again: whatever this is, it must not end the writing.
                self.failing = True
                log.exception("%d charges wait", self.pending)

    async def flush(self) -> bool:
        """Write what waits, in one transaction; False when the store could not. Nothing is lost by a failure."""
        async with self.lock:
            while self._writing or self._pending:
                if not self._writing:
                    batch = self._pending[:FLUSH_AT]
                    self._writing = [record_of(charge_id, charge) for charge_id, charge in batch]
                    del self._pending[: len(batch)]
                try:
                    balances = await charges.flush(self.store, self._writing, int(time.time() * 1000))
                except StoreError as error:
                    if not self.failing:  # said once, not five times a second; /readyz and a metric go on saying it
                        log.error("%d charges wait, for the store cannot be written: %s", self.pending, error)
                    self.failing = True
                    return False
                self._writing = []
                self._agree(balances.users, balances.tokens)
            if self.failing:
                log.warning("the store can be written again: no charge waits any more")
            self.failing = False
        return True

    def _settled(self, charge: Charge) -> None:
        self._pending.append((f"{self._prefix}{next(self._counter):08x}", charge))
        if len(self._pending) >= FLUSH_AT:
            self._full.set()

    def _agree(self, users: Mapping[int, int], tokens: Mapping[int, int]) -> None:
        """Take over the balances that a flush left in the rows, less what has been charged meanwhile."""
        owed_users, owed_tokens = self._unwritten()
        for id, quota in users.items():
            if (account := self.users.get(id)) is not None:
                account.balance = quota - owed_users.get(id, 0)
        for id, quota in tokens.items():
            if (account := self.tokens.get(id)) is not None:
                account.balance = quota - owed_tokens.get(id, 0)

    def _unwritten(self) -> tuple[dict[int, int], dict[int, int]]:
        users: dict[int, int] = {}
        tokens: dict[int, int] = {}
        for record in self._writing:
            users[record.user_id] = users.get(record.user_id, 0) + record.quota
            tokens[record.token_id] = tokens.get(record.token_id, 0) + record.quota
        for _, charge in self._pending:
            if (principal := charge.principal) is not None:
                users[principal.user_id] = users.get(principal.user_id, 0) + charge.quota
                tokens[principal.token_id] = tokens.get(principal.token_id, 0) + charge.quota
        return users, tokens
