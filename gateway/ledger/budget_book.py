"""Which budgets apply to whom, and the purses of the periods that they are in; in memory, as all that requests need."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from ...adapters.errors import Unavailable
from ...config.budget import Budget, BudgetKind
from ...middleware.state import Principal
from ..store import Store, StoreError, budgets
from ..store.budgets import BudgetPeriod
from .core import Core
from .purse import Purse

K = TypeVar("K", int, str)

UNKNOWN_RETRY_S = 60.0

log = logging.getLogger("tollway.ledger")


def system_ms() -> int:
    return time.time_ns() // 1_000_000


class BudgetBook:
    """
    The budgets of users, tokens and groups. False where there are none at all.

    A request pays out of the periods in which it was admitted, however long it takes. `now_ms` is the calendar's time.
    """

    def __init__(self, store: Store, core: Core, now_ms: Callable[[], int] = system_ms) -> None:
        self.store = store
        self.core = core
        self.now_ms = now_ms
        self._users: dict[int, tuple[Budget, ...]] = {}
        self._tokens: dict[int, tuple[Budget, ...]] = {}
        self._groups: dict[str, tuple[Budget, ...]] = {}
        self._periods: dict[int, BudgetPeriod] = {}
        """By budget, the period that was needed last."""
        self._beginning = asyncio.Lock()
        self._stale: tuple[set[int], set[int]] | None = None
        self._warned: set[int] = set()
        """Budgets of which it was said that a newer version has set them."""

    def __bool__(self) -> bool:
        return bool(self._users or self._tokens or self._groups)

    async def load(self) -> None:
        """All of them. Raises `StoreError`."""
        found = await budgets.list_all(self.store)
        unknown = await budgets.of_unknown_kinds(self.store)
        for known in (self._users, self._tokens, self._groups):
            known.clear()
        self._add(found)
        for id, kind in unknown.items():
            self._warn(id, f"budget {id} is of a kind that only a newer version knows, {kind!r}: it limits nobody here")

    def changed(self, user_ids: Collection[int], token_ids: Collection[int]) -> None:
        """These users and tokens, or any group, may have other budgets now: `refresh` looks."""
        users, tokens = self._stale or (set(), set())
        self._stale = users.union(user_ids), tokens.union(token_ids)

    async def refresh(self) -> None:
        """Take over what has changed. Raises `StoreError`; it is then looked for again by the next call."""
        if self._stale is None:
            return
        (users, tokens), self._stale = self._stale, None
        try:
            found = await budgets.of_subjects(self.store, users, tokens)
        except StoreError:
            self.changed(users, tokens)
            raise
        for id in users:
            self._users.pop(id, None)
        for id in tokens:
            self._tokens.pop(id, None)
        self._groups.clear()
        self._add(found)

    def of(self, principal: Principal) -> tuple[Budget, ...]:
        """The budgets that a request of this caller pays out of."""
        return (
            self._users.get(principal.user_id, ())
            + self._tokens.get(principal.token_id, ())
            + self._groups.get(principal.group, ())
        )

    def purses(self, found: Iterable[Budget]) -> list[Purse] | None:
        """The purses of the periods that budgets are in now; None where one has yet to begin."""
        now_ms = self.now_ms()
        purses: list[Purse] = []
        for budget in found:
            period = self._periods.get(budget.id)
            if period is None or not period.starts_at <= now_ms < period.ends_at:
                return None
            purses.append(self._purse(budget, period))
        return purses

    async def begin(self, found: Iterable[Budget]) -> list[Purse]:
        """
        The same, and their periods begin if they have not. Raises `StoreError`, and `Unavailable` where one of the
        budgets cannot be kept.
        """
        now_ms = self.now_ms()
        purses: list[Purse] = []
        for budget in found:
            if trouble := budget.trouble:
                raise Unavailable(trouble, retry_after=UNKNOWN_RETRY_S)
            if (period := await self._begun(budget, now_ms)) is not None:
                purses.append(self._purse(budget, period))
        return purses

    def forget(self, period_id: int) -> None:
        """The store does not know this period: an older backup was put back."""
        self._periods = {id: period for id, period in self._periods.items() if period.id != period_id}

    def _purse(self, budget: Budget, period: BudgetPeriod) -> Purse:
        purse = self.core.budget(period.id)
        if purse.ends_at is None:
            purse.whose = budget.called
            purse.ends_at = period.ends_at
        return purse

    async def _begun(self, budget: Budget, now_ms: int) -> BudgetPeriod | None:
        async with self._beginning:  # who waits finds what the one before has begun
            period = self._periods.get(budget.id)
            if period is not None and period.starts_at <= now_ms < period.ends_at:
                return period
            period = await budgets.begin(self.store, budget.id, now_ms)
            if period is not None:
                self._periods[budget.id] = period
            return period

    def _add(self, found: Iterable[Budget]) -> None:
        for budget in found:
            if budget.trouble:
                whose = f"{budget.kind} {budget.subject}"
                self._warn(
                    budget.id,
                    f"the period of budget {budget.id} is one that only a newer version knows, {str(budget.period)!r}: "
                    f"requests of {whose} are refused until it is deleted or this version is the newer one",
                )
            match budget.kind:
                case BudgetKind.USER:
                    _append(self._users, int(budget.subject), budget)
                case BudgetKind.TOKEN:
                    _append(self._tokens, int(budget.subject), budget)
                case BudgetKind.GROUP:
                    _append(self._groups, budget.subject, budget)

    def _warn(self, id: int, message: str) -> None:
        if id not in self._warned:
            self._warned.add(id)
            log.warning("%s", message)


def _append(budgets_of: dict[K, tuple[Budget, ...]], key: K, budget: Budget) -> None:
    budgets_of[key] = (*budgets_of.get(key, ()), budget)
