"""
Watches for budgets and balances that run low, and tells of each crossing once, whichever process sees it first.

It asks the database for what has crossed and was not told of, so that nothing depends on who wrote the last charge, or
on whether he lives. Of balances it asks when a user is charged, or refused: the charge that made one low may have been
the last that a process wrote. A process that dies between taking a notice and sending it is the one case in which none
is sent.
"""

from ...config.amounts import dollars
from ...config.budget import Budget
from ...config.live import Live
from ...config.options import Options
from ...config.settings import Settings
from ..notifier import Notice, Notifier
from ..store import Store, StoreError, budgets, notices
from ..store.budgets import BudgetPeriod
from ..store.notices import LowBalance, NoticeKind
from .refusals import utc
from .store_ledger import StoreLedger

MINUTE_MS = 60_000
MOST_USERS = 1_000
"""Asked about at once."""


class Watch:
    """Looks when it is called, for as long as the ledger serves."""

    def __init__(self, ledger: StoreLedger, options: Live[Options], settings: Settings, notifier: Notifier) -> None:
        self.ledger = ledger
        self.options = options
        self.notifier = notifier
        self._most = settings.notify_limit_count
        self._window_ms = settings.notification_limit_minutes * MINUTE_MS

    @property
    def store(self) -> Store:
        return self.ledger.store

    async def look(self) -> None:
        """Raises `StoreError`; what was not told of then is by the next call."""
        now_ms = self.ledger.budgets.now_ms()
        if self.ledger.budgets:
            for budget, period in await budgets.crossed(self.store, now_ms):
                await self._tell_of_budget(budget, period, now_ms)
        active, self.ledger.active = self.ledger.active, set()
        if threshold := self.options.current.quota_remind_threshold:
            try:
                await self._look_at(sorted(active), threshold, now_ms)
            except StoreError:
                self.ledger.active |= active
                raise

    async def _look_at(self, user_ids: list[int], threshold: int, now_ms: int) -> None:
        for start in range(0, len(user_ids), MOST_USERS):
            part = user_ids[start : start + MOST_USERS]
            for low in await notices.low_balances(self.store, part, threshold):
                await self._tell_of_balance(low, threshold, now_ms)

    async def _tell_of_budget(self, budget: Budget, period: BudgetPeriod, now_ms: int) -> None:
        whose = (await budgets.subjects_of(self.store, [budget]))[budget.id]
        if not await self._claim(NoticeKind.BUDGET, budget.id, period.id, period.soft_limit or 0, now_ms):
            return
        begins = "begins" if period.ends_at > now_ms else "began"
        self.notifier.tell(
            Notice(
                id=f"budget-{period.id}-{period.soft_limit}",
                type="budget_soft_limit",
                title=f"{budget.soft_percent} % of a budget is used",
                content=f"The {budget.period} budget of {whose} has used {dollars(period.used_quota)} of "
                f"{dollars(period.amount)}; it {begins} anew at {utc(period.ends_at)}.",
                values={
                    "budget_id": budget.id,
                    "kind": budget.kind,
                    "subject": budget.subject,
                    "period": budget.period,
                    "amount": period.amount,
                    "used_quota": period.used_quota,
                    "soft_percent": budget.soft_percent,
                    "ends_at": period.ends_at // 1000,
                },
                at_ms=now_ms,
            )
        )

    async def _tell_of_balance(self, low: LowBalance, threshold: int, now_ms: int) -> None:
        if not await self._claim(NoticeKind.BALANCE, low.user_id, low.grant_id, 0, now_ms):
            return
        self.notifier.tell(
            Notice(
                id=f"balance-{low.user_id}-{low.grant_id}",
                type="quota_exceed",  # New API's name for it
                title="A balance runs low",
                content=f"The user {low.username} has {dollars(low.quota)} left, less than {dollars(threshold)}.",
                values={
                    "user_id": low.user_id,
                    "username": low.username,
                    "quota": low.quota,
                    "threshold": threshold,
                },
                at_ms=now_ms,
            )
        )

    async def _claim(self, kind: NoticeKind, about: int, occasion: int, level: int, now_ms: int) -> bool:
        since_ms = now_ms - self._window_ms
        return await notices.claim(
            self.store, kind, about, occasion, level, most=self._most, since_ms=since_ms, now_ms=now_ms
        )
