"""
Corrections: what charges of the past cost more, or less, than was charged. Each is a log row of its own, filed under
the charge that it is about (its `request_id` is that charge's id); the charge's row stays as it was.

They are written as charges are, by a holder that is no process and has no journal: `HOLDER`, whose number in the
database counts all corrections there ever were. Whoever corrects reads it first, then what has been charged, and writes
a batch that is taken only if the number has not moved. So two at the same time correct nothing twice, nor does one who
was killed and begins again.

Where logs have a database of their own, its number decides, and its rows say what is still to be charged: whoever comes
next does that first.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from sqlalchemy import func, select

from . import charges, json_text, leases, logs
from .batch import Batch, payers
from .charges import Misplaced
from .errors import Conflict, StoreError
from .logs import LogFilter
from .records import ChargeRecord, LogRow, LogType
from .schema import logs as table
from .store import Row, Session, Store

HOLDER = "correction"
MOST_ROWS = 250
"""Rows of one batch."""


class Overtaken(StoreError):
    """Somebody else corrects charges at the same time. What was not written yet is not written."""

    def __init__(self) -> None:
        super().__init__("charges are being corrected by another command: try again when it has ended")


class _Numbers(NamedTuple):
    """The last correction that the database, and that of the logs, have."""

    charged: int
    logged: int


@asynccontextmanager
async def correcting(store: Store, log_store: Store | None, now_ms: int) -> AsyncGenerator["Corrections"]:
    """
    Corrections to add to. What somebody who was killed has logged only is charged first. Raises `StoreError`.

    Who is killed in here leaves nothing that a server or the next one does not put right.
    """
    if await leases.find(store, HOLDER) is None:
        with suppress(Conflict):
            await leases.join(store, HOLDER, host="", now_ms=now_ms)
    corrections = Corrections(store, log_store, await _numbers(store, log_store))
    await corrections.charge_logged()
    try:
        yield corrections
    finally:
        holder = await leases.find(store, HOLDER)
        if holder is not None:
            await leases.expire(store, holder)


class Corrections:
    """See `correcting`."""

    def __init__(self, store: Store, log_store: Store | None, numbers: _Numbers) -> None:
        self.store = store
        self.log_store = log_store
        self._numbers = numbers

    async def charge_logged(self) -> None:
        """Charge what stands in a log database alone. Raises `Overtaken`, `StoreError`."""
        charged, logged = self._numbers
        while charged < logged:
            upto = min(logged, charged + MOST_ROWS)
            records = await _logged(self.log_store or self.store, charged, upto)
            await self._charge(Batch(HOLDER, charged, upto, records))
            charged = upto
        self._numbers = _Numbers(charged, logged)

    async def add(self, records: tuple[ChargeRecord, ...]) -> None:
        """Charge these, all or none. Raises `Overtaken` where others were added since the last call, `StoreError`."""
        charged, logged = self._numbers
        upto = charged + len(records)
        if self.log_store is not None:
            try:
                new = await charges.flush_logs(self.log_store, Batch(HOLDER, logged, upto, records))
            except (Misplaced, Conflict):
                raise Overtaken from None
            if not new:
                raise Overtaken
        await self._charge(Batch(HOLDER, charged, upto, records))
        self._numbers = _Numbers(upto, upto)

    async def _charge(self, batch: Batch) -> None:
        try:
            new = await charges.flush(self.store, batch, None, with_logs=self.log_store is None)
        except Misplaced:
            raise Overtaken from None
        # What is in a log database already is this batch, whoever has charged it.
        if not new and self.log_store is None:
            raise Overtaken
        await leases.beat(self.store, HOLDER)
        await leases.give_back_all(self.store, HOLDER)


async def corrected(session: Session, rows: Sequence[LogRow]) -> dict[str, int]:
    """What was charged for these in addition, by the id of the charge; those without a correction are left out."""
    ids = [row.charge_id for row in rows if row.charge_id]
    total = func.sum(table.c.quota).label("quota")
    wanted = table.c.type == int(LogType.CORRECTION), table.c.request_id.in_(ids)
    found = await session.all(select(table.c.request_id, total).where(*wanted).group_by(table.c.request_id))
    return {row["request_id"]: int(row["quota"]) for row in found}


async def of(session: Session, rows: Sequence[LogRow]) -> tuple[LogRow, ...]:
    """The corrections of charges, newest first."""
    ids = [row.charge_id for row in rows if row.charge_id]
    found = [await logs.find(session, LogFilter(type=int(LogType.CORRECTION), request_id=id)) for id in ids]
    return tuple(sorted((row for rows in found for row in rows), key=lambda row: row.id, reverse=True))


async def waiting(store: Store, log_store: Store | None) -> int:
    """Corrections that were logged and not charged, for whoever made them was killed in between."""
    numbers = await _numbers(store, log_store)
    return max(0, numbers.logged - numbers.charged)


async def _numbers(store: Store, log_store: Store | None) -> _Numbers:
    holder = await leases.find(store, HOLDER)
    charged = 0 if holder is None else holder.flushed
    logged = None if log_store is None else await charges.logged(log_store, HOLDER)
    return _Numbers(charged, charged if logged is None else logged)


async def _logged(session: Session, after: int, upto: int) -> tuple[ChargeRecord, ...]:
    """What the log rows say of corrections that are still to be charged."""
    ids = [f"{HOLDER}-{number}" for number in range(after + 1, upto + 1)]
    wanted = table.c.type == int(LogType.CORRECTION), table.c.charge_id.in_(ids)
    # They are the last ones that were written: an index on the time finds them, there is none on the id.
    newest = select(table).where(*wanted).order_by(table.c.created_at.desc()).limit(len(ids))
    return tuple(map(_record, await session.all(newest)))


def _record(row: Row) -> ChargeRecord:
    unlimited, budgets = payers(json_text.load_object(row["other"]))
    return ChargeRecord(
        row["created_at"],
        row["user_id"],
        row["quota"],
        token_id=row["token_id"],
        unlimited=unlimited,
        channel_id=row["channel_id"],
        type=row["type"],
        budgets=budgets,
    )
