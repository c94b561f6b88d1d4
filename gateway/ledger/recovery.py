"""
What a dead process has left in its journal, into the database: charges that it does not have yet, and requests that
were cut off.

A process that is killed here, too, is no harm: the database's cursor moves with each batch, and whoever comes next goes
on from there. Requests that were cut off are numbered behind the last charge in the order of the journal, which is the
same each time.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec import DecodeError

from ...config.live import Live
from ...config.options import Options
from ..finishing import finished, in_thread, made
from ..store import Store, charges, leases
from ..store.batch import Batch, fitted
from ..store.records import ChargeRecord
from .journal import JournalError, Recovery, dead_holders, holders
from .records import interrupted, read_charge, read_open

log = logging.getLogger("tollway.ledger")

MOST_RECORDS = 1_000

Numbered = tuple[int, ChargeRecord]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery has done: charges that the database did not have, and requests that were cut off."""

    charges: int
    interrupted: int


class Recoverer:
    """Replays journals of this folder and installation."""

    def __init__(
        self,
        store: Store,
        log_store: Store | None,
        folder: Path,
        family: str,
        installation: str,
        options: Live[Options],
    ) -> None:
        self.store = store
        self.log_store = log_store
        self.folder = folder
        self.family = family
        """What the names of all holders on this folder have in common."""
        self.installation = installation
        self.options = options
        self._left: set[str] = set()
        """Holders whose files are not ours: said once, and left alone."""

    async def recover_all(self) -> None:
        """Every dead process of this folder. Raises `JournalError`, `StoreError`."""
        for holder in await asyncio.to_thread(dead_holders, self.folder):
            await self.recover(holder)
        # Who ended between its journal's last file and its row: everything of it is in the database. One that may live
        # has its files in a copy of this folder, made with its name.
        ours = [each.id for each in await leases.list_all(self.store) if each.expired and self._is_ours(each.id)]
        gone = set(ours) - set(await asyncio.to_thread(holders, self.folder)) if ours else set[str]()
        for holder in gone:
            await self._leave(holder)

    async def recover(self, holder: str) -> Recovered | None:
        """
        Replay a dead process's journal and take back its leases. None when it lives, or somebody else does it; one of
        another folder, which this is a copy of, lives for as long as the database has not given it up.

        Raises `JournalError`, `StoreError`; the journal then stays for the next attempt.
        """
        if holder in self._left or (not self._is_ours(holder) and await self._may_live(holder)):
            return None
        take = partial(Recovery.take, self.folder, holder, installation=self.installation)
        recovery = await made(take, _leave_alone)
        if recovery is None:
            return None
        try:
            done = await self._replay(recovery, holder)
            if recovery.owned:
                await leases.give_back_all(self.store, holder)
            await finished(in_thread(recovery.finish))
        except BaseException:
            recovery.close()
            raise
        if not recovery.owned:
            self._left.add(holder)
        else:
            await self._leave(holder)
        for damage in recovery.damages:
            log.error("the journal of %s is damaged: %s", holder, damage)
        if done.charges or done.interrupted:
            log.warning(
                "%s did not end in order: %d charges and %d requests that it left behind are written now",
                holder,
                done.charges,
                done.interrupted,
            )
        return done

    def _is_ours(self, holder: str) -> bool:
        """Whether its lock tells that it lives: this is the folder that it writes to, not a copy."""
        return f"-{self.family}-" in holder

    async def _may_live(self, holder: str) -> bool:
        row = await leases.find(self.store, holder)
        return row is not None and not row.expired

    async def _leave(self, holder: str) -> None:
        await leases.leave(self.store, holder)
        if self.log_store is not None:
            await charges.forget_logged(self.log_store, holder)

    async def _replay(self, recovery: Recovery, holder: str) -> Recovered:
        now_ms = time.time_ns() // 1_000_000
        row = await leases.find(self.store, holder)
        if row is None:
            if not recovery.owned:
                return Recovered(0, 0)
            # An older backup of the database was put back: it knows nothing of what this journal says.
            flushed = (recovery.first_sequence or 1) - 1
            await leases.rejoin(self.store, holder, host="", flushed=flushed, now_ms=now_ms)
        else:
            flushed = row.flushed
        last = recovery.last_sequence

        written = 0
        for batch in _batches(holder, flushed, self._records(recovery, flushed)):
            written += await charges.flush(self.store, batch, now_ms, with_logs=self.log_store is None) * len(
                batch.records
            )
        if self.log_store is not None:
            logged = await charges.logged(self.log_store, holder) or 0
            for batch in _batches(holder, logged, self._records(recovery, logged)):
                await charges.flush_logs(self.log_store, batch)
        cut_off = max(0, last + len(recovery.opened()) - max(last, flushed))
        return Recovered(written - cut_off, cut_off)

    def _records(self, recovery: Recovery, after: int) -> Iterator[Numbered]:
        """Charges, and requests that were cut off, with numbers above `after`."""
        what = "charge"
        number = after
        try:
            for number, _, payload in recovery.settled(after):
                yield number, read_charge(payload)
            what = "request"
            # Where damage has lost an end, a request that has ended is among them: none of them is charged then.
            charged = self.options.current.charge_interrupted and not recovery.damages
            for number, payload in enumerate(recovery.opened().values(), recovery.last_sequence + 1):
                if number > after:
                    yield number, interrupted(read_open(payload), charged=charged)
        except DecodeError as error:
            raise JournalError(
                f"{what} {number} in the journal of {recovery.holder} cannot be read, so it was left as it is: {error}"
            ) from error


def _leave_alone(recovery: Recovery | None) -> None:
    if recovery is not None:
        recovery.close()


def _batches(holder: str, after: int, records: Iterator[Numbered]) -> Iterator[Batch]:
    """Records with numbers above `after`, in runs without a gap."""
    run: list[ChargeRecord] = []
    upto = after
    for number, record in records:
        if run and (number != upto + 1 or len(run) == MOST_RECORDS):
            yield Batch(holder, after, upto, tuple(run))
            after, run = upto, []
        run.append(fitted(record))
        upto = number
    if run:
        yield Batch(holder, after, upto, tuple(run))
