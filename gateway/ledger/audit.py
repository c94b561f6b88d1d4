"""
The proof that money adds up: grants, balances, leases and charges; counters, hours and log rows; journals and database.

It changes nothing and may run beside processes that serve. What a journal has and the database has not yet is no
difference: it is what waits.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...config.options import Options
from ..store import Store, audits, charges, corrections, hourly, leases, options
from ..store.audits import Imbalance
from ..store.records import ChargeRecord
from .journal import inspect, settles_after
from .records import read_charge

TRIES, TRY_AGAIN_S = 20, 0.07
"""For a moment without charges between two databases; a server that has some writes them five times a second."""


@dataclass(slots=True)
class Audit:
    """
    `differences` is empty where everything adds up. `waiting`: charges that are only in a journal yet, and corrections
    that are only in a log database. `notes`: what could not be compared, and why.
    """

    differences: list[Imbalance] = field(default_factory=list[Imbalance])
    damages: list[str] = field(default_factory=list[str])
    waiting: int = 0
    notes: list[str] = field(default_factory=list[str])

    @property
    def clean(self) -> bool:
        return not self.differences and not self.damages


async def audit(store: Store, log_store: Store | None, journal: Path) -> Audit:
    """Everything. Raises `StoreError`, `JournalError`."""
    found = Audit()
    found.differences += await audits.balances(store)
    if log_store is None:
        found.differences += await audits.counters(store)
    else:
        await _compare_counters(found, store, log_store)
    days = Options.parse(await options.list_all(store)).log_retention_days
    kept_from = hourly.kept_from(days, time.time_ns() // 1_000_000)
    found.differences += await audits.aggregates(log_store or store, kept_from)
    found.waiting += await corrections.waiting(store, log_store)
    await _audit_journals(found, store, log_store, journal, kept_from)
    found.damages += [f"{name}: set aside when it was replayed" for name in _set_aside(journal)]
    return found


async def _compare_counters(found: Audit, store: Store, log_store: Store) -> None:
    for _ in range(TRIES):
        differences = await audits.counters_apart(store, log_store)
        if differences is not None:
            found.differences += differences
            return
        await asyncio.sleep(TRY_AGAIN_S)
    found.notes.append("counters were not compared with hours: one database has charges that the other has not yet")


async def _audit_journals(found: Audit, store: Store, log_store: Store | None, folder: Path, kept_from: int) -> None:
    installation = await leases.installation_id(store)
    for state in inspect(folder, installation=installation):
        found.damages += [str(damage) for damage in state.damages]
        # Asked after the journal was read, the database can only have more of it.
        holder = await leases.find(store, state.holder)
        flushed = holder.flushed if holder is not None else state.last_sequence
        found.waiting += max(0, state.last_sequence - flushed)
        if holder is not None and flushed < (state.first_sequence or 1) - 1:
            found.differences.append(
                Imbalance(state.holder, "journal begins where the database stands", flushed, state.first_sequence or 1)
            )
        if log_store is not None:
            flushed = await charges.logged(log_store, state.holder) or 0
        journaled = {
            f"{state.holder}-{number}": (record.quota, record.created_at)
            for number, record in _charges(folder, state.holder, installation)
            if number <= flushed
        }
        await _compare(found, log_store or store, journaled, kept_from)


async def _compare(found: Audit, store: Store, journaled: dict[str, tuple[int, int]], kept_from: int) -> None:
    """Charges that the journal still has and the database has taken must say the same, for as long as rows are kept."""
    since = min((created_at for _, created_at in journaled.values()), default=0)
    logged = await audits.logged(store, list(journaled), since)
    # Asked after the rows were: those that are missing and younger have not gone meanwhile.
    kept_since = await audits.kept_since(store, time.time_ns() // 1_000_000, kept_from)
    for charge_id, (quota, created_at) in journaled.items():
        cost = logged.get(charge_id)
        if cost != quota and (cost is not None or created_at > kept_since):
            found.differences.append(Imbalance(f"charge {charge_id}", "journal = log row", quota, cost or 0))


def _set_aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.damaged"))


def _charges(folder: Path, holder: str, installation: str) -> Iterator[tuple[int, ChargeRecord]]:
    for settled in settles_after(folder, holder, 0, installation=installation):
        yield settled.sequence, read_charge(settled.payload)
