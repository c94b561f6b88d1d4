"""What is due from time to time while a ledger serves: writing, syncing, telling that it lives, giving back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..store import StoreError, leases
from ..store.leases import Holder
from .purse import Purse
from .recovery import Recoverer
from .store_ledger import StoreLedger
from .watch import Watch

log = logging.getLogger("tollway.ledger")

FLUSH_EVERY_S = 0.2
RECALLED_EVERY_S = 0.25
BUDGETS_EVERY_S = 0.1
"""How soon what others have changed about budgets is looked for; the database is asked only when there is something."""
LOOK_EVERY_S = 2.0
BEAT_EVERY_S = 2.0
TIDY_EVERY_S = 5.0
IDLE_S = 10.0
"""A lease that nobody has used for so long goes back to the balance."""
FORGET_AFTER_S = 600.0
DEAD_AFTER_S = 90.0
"""
A process whose heartbeat has stood still for so long, on this one's clock, is dead: see `store_ledger.TRUST_S`.

Only time in which this one looked counts. While the database was away nobody could beat, and who looks first once it is
back must not take all others for dead; nor must who stood still himself.
"""


class Upkeep:
    """Runs a ledger's duties until it is cancelled. No duty waits for another, and none ends because one failed."""

    def __init__(self, ledger: StoreLedger, recoverer: Recoverer, watch: Watch, *, sync_every_s: float) -> None:
        self.ledger = ledger
        self.watch = watch
        self.recoverer = recoverer
        self.sync_every_s = sync_every_s
        self._seen: dict[str, tuple[int, float]] = {}
        """Of other processes, the heartbeat and for how long it has stood still."""
        self._looked_at = ledger.clock()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            group.create_task(_every(self.sync_every_s, self.sync))
            group.create_task(_every(RECALLED_EVERY_S, self.give_back_recalled))
            group.create_task(_every(BUDGETS_EVERY_S, self.ledger.budgets.refresh))
            group.create_task(_every(LOOK_EVERY_S, self.watch.look))
            group.create_task(_every(BEAT_EVERY_S, self.ledger.beat))
            group.create_task(_every(TIDY_EVERY_S, self.tidy))

    async def sync(self) -> None:
        """Make durable what stands in the journal."""
        self.ledger.retry_unsafe()
        journal = self.ledger.journal
        journal.write()
        if journal.synced_sequence < journal.sequence:
            await self.ledger.sync()

    async def give_back_recalled(self) -> None:
        """Other processes need quota that is not used here."""
        ledger = self.ledger
        for subject in await leases.recalled(ledger.store, ledger.core.holder):
            purse = ledger.core.purse(subject)
            if purse is None:  # a lease that an earlier move of unknown outcome has left here
                purse = ledger.core.adopt(subject)
            await ledger.give_back(purse)

    async def tidy(self) -> None:
        """Idle leases go back; the leases of the dead are taken back, and their journals are replayed."""
        ledger, now = self.ledger, self.ledger.clock()
        await ledger.sync()  # what keeps an old segment alive may have been written again: then it can go
        idle: list[Purse] = [purse for purse in ledger.core.purses() if purse.is_idle(now, IDLE_S)]
        for purse in idle if ledger.in_touch(now) else ():
            await ledger.give_back(purse)
        ledger.tidy(now, FORGET_AFTER_S)
        await self.recoverer.recover_all()
        await self._expire_dead(now)

    async def _expire_dead(self, now: float) -> None:
        ledger = self.ledger
        seen: dict[str, tuple[int, float]] = {}
        passed = min(now - self._looked_at, 2 * TIDY_EVERY_S)
        self._looked_at = now
        for other in await leases.suspects(ledger.store):
            if other.id != ledger.core.holder:
                heartbeat, still = self._seen.get(other.id, (-1, 0.0))
                still = still + passed if heartbeat == other.heartbeat else 0.0
                seen[other.id] = other.heartbeat, still
                if still >= DEAD_AFTER_S:
                    await self._expire(other)
        self._seen = seen

    async def _expire(self, other: Holder) -> None:
        if await leases.expire(self.ledger.store, other):
            log.warning("%s has not been heard of for %d s: its leases are taken back", other.id, DEAD_AFTER_S)

    async def _write(self) -> None:
        """Flush every 200 ms, or as soon as many charges wait."""
        wanted = self.ledger.wanted
        while True:
            try:
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await wanted.wait()
            except TimeoutError:
                pass
            wanted.clear()
            await _attempt(self.ledger.flush)


async def _every(seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _attempt(duty)


async def _attempt(duty: Callable[[], Awaitable[object]]) -> None:
    try:
        await duty()
    except StoreError:
        pass  # the flush says once that the store is away, and /readyz for as long as it is
    except Exception:
        log.exception("%s failed, and is tried again", getattr(duty, "__name__", "a duty"))
