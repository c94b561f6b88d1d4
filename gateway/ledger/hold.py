"""The hold of one request on the purses of its user, its token and their budgets."""

import time
from typing import TYPE_CHECKING

from ...middleware.state import Charge, Principal
from .purse import Purse, all_cover

if TYPE_CHECKING:
    from .store_ledger import StoreLedger


class LedgerHold:
    """See `middleware.state.Hold`. `ticket` names the request in the journal; 0 while nothing is held."""

    __slots__ = ("_budgets", "_closed", "_ledger", "_principal", "_purses", "_request_id", "_ticket", "quota")

    def __init__(
        self,
        ledger: "StoreLedger",
        purses: tuple[Purse, ...],
        principal: Principal,
        request_id: str,
        budgets: tuple[int, ...] = (),
    ) -> None:
        self._ledger = ledger
        self._purses = purses
        self._budgets = budgets
        self._principal = principal
        self._request_id = request_id
        self._closed = False
        self._ticket = 0
        self.quota = 0

    def available(self) -> int:
        """What could be held in all, by what is known of the balances: exact after a refusal, which has just asked."""
        return max(0, self.quota + min([purse.reach for purse in self._purses if purse.limited]))

    async def reserve(self, quota: int) -> None:
        more = quota - self.quota
        if more <= 0 or self._closed:
            return
        purses = self._purses
        while not all_cover(purses, more):
            await self._ledger.fund(purses, more)
        low = False
        for purse in purses:
            purse.held += more
            low = low or purse.is_low()
        self.quota = quota
        if not self._ticket:
            self._ticket = self._ledger.opened(self._principal, self._request_id, quota, self._budgets)
        if low:
            self._ledger.refill(purses)

    async def settle(self, charge: Charge) -> None:
        if self._closed:
            return
        self._close()
        await self._ledger.settle(self._ticket, charge, self._budgets)

    def release(self) -> None:
        if self._closed:
            return
        self._close()
        if self._ticket:
            self._ledger.released(self._ticket)

    def _close(self) -> None:
        self._closed = True
        now = time.monotonic()
        for purse in self._purses:
            purse.held -= self.quota
            purse.used_at = now
