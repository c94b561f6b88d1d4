"""
What is done once for all processes of an installation: forgetting old changes and old log rows.

Every process looks now and then whether a job is due that nobody has (see `store.jobs`); who takes it does it in small
steps, with a pause after each, so that nobody who writes has to wait for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..config.budget import DAY_MS
from ..config.live import Live
from ..config.options import Options
from .store import Store, StoreError, changes, jobs, logs
from .store.sums import HOUR_MS

log = logging.getLogger("tollway.jobs")

LOOK_EVERY_S = 30.0
PAUSE_S = 0.05
ROWS_AT_ONCE = 500
"""Rows deleted in one transaction: a few milliseconds, and 10,000 rows a second at most with the pauses."""


@dataclass(frozen=True, slots=True)
class Job:
    """`step` does a part and returns whether there is more to do. It bears to be cut short and to be done again."""

    name: str
    every_ms: int
    step: Callable[[int], Awaitable[bool]]
    """Given the time, in milliseconds since 1970."""


class Jobs:
    """Does what is due until it is cancelled. `holder`: this process, as `holders` knows it."""

    def __init__(
        self,
        store: Store,
        holder: str,
        work: Sequence[Job],
        *,
        look_every_s: float = LOOK_EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.holder = holder
        self.work = work
        self.look_every_s = look_every_s
        self.clock = clock
        self._known: set[str] = set()

    async def run(self) -> None:
        while True:
            for job in self.work:
                try:
                    await self.attempt(job)
                except StoreError as error:
                    log.warning("the job %s goes on later: %s", job.name, error)
                except Exception:
                    log.exception("the job %s failed, and is tried again", job.name)
            await asyncio.sleep(self.look_every_s)

    async def attempt(self, job: Job) -> bool:
        """Do a job if it is due and nobody has it; whether it was done. Raises `StoreError`."""
        if job.name not in self._known:
            await jobs.add(self.store, job.name)
            self._known.add(job.name)
        term = await jobs.claim(self.store, job.name, self.holder, now_ms=self._now_ms(), every_ms=job.every_ms)
        if term is None:
            return False
        while await job.step(self._now_ms()):
            await asyncio.sleep(PAUSE_S)
            if not await jobs.has(self.store, job.name, term):
                return False
        return await jobs.finish(self.store, job.name, term, due_ms=self._now_ms() + job.every_ms)

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)


def housekeeping(store: Store, log_store: Store | None, options: Live[Options]) -> tuple[Job, ...]:
    """The jobs of every installation. Hourly sums are kept for ever."""

    async def forget_changes(now_ms: int) -> bool:
        await changes.trim(store, now_ms=now_ms)
        return False

    async def forget_logs(now_ms: int) -> bool:
        days = options.current.log_retention_days
        if not days:
            return False
        before_ms = now_ms - days * DAY_MS
        return await logs.trim(log_store or store, before_ms=before_ms, limit=ROWS_AT_ONCE) == ROWS_AT_ONCE

    return Job("forget-changes", HOUR_MS, forget_changes), Job("forget-logs", HOUR_MS, forget_logs)
