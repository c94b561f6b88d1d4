"""
What the log says that a model's past charges would cost at the price it has now, and the corrections that make it so.

A correction costs what the charge with its earlier corrections lacks, so that it can be done again, at another price or
after it was cut off. It is paid by those who paid the charge: the user, the token and the budgets of that time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..config import repricing
from ..config.price import Price
from .store import Session, logs
from .store.batch import payers
from .store.corrections import MOST_ROWS, Corrections, corrected
from .store.logs import LogFilter
from .store.records import ChargeRecord, LogRow, LogType


@dataclass(slots=True)
class OfUser:
    """Charges of a user that cost something else, and by how much quota in all; below 0 it is given back."""

    username: str
    charges: int = 0
    quota: int = 0


@dataclass(slots=True)
class Repricing:
    """`looked_at`: charges there are. `users`: by id, those whose charges cost something else."""

    looked_at: int = 0
    users: dict[int, OfUser] = field(default_factory=dict[int, OfUser])

    @property
    def charges(self) -> int:
        return sum(user.charges for user in self.users.values())

    @property
    def quota(self) -> int:
        return sum(user.quota for user in self.users.values())

    def count(self, records: Sequence[ChargeRecord]) -> None:
        for record in records:
            user = self.users.setdefault(record.user_id, OfUser(record.username))
            user.charges += 1
            user.quota += record.quota


async def reprice(
    log_store: Session, listed: Price, wanted: LogFilter, now_ms: int, corrections: Corrections | None = None
) -> Repricing:
    """
    Compare the charges that are wanted, all of one model, with its price. Where `corrections` are given they are made.

    Raises `QuotaOverflow`, `StoreError`; batches that were written until then stay.
    """
    done = Repricing()
    before = None
    while rows := await logs.find(log_store, wanted, limit=MOST_ROWS, before=before):
        earlier = await corrected(log_store, rows)
        made = [correction(row, listed, earlier.get(row.charge_id or "", 0), now_ms) for row in rows]
        differing = tuple(record for record in made if record is not None)
        if differing and corrections is not None:
            await corrections.add(differing)
        done.looked_at += len(rows)
        done.count(differing)
        before = rows[-1].id
    return done


def correction(row: LogRow, listed: Price, earlier: int, now_ms: int) -> ChargeRecord | None:
    """
    What a charge costs in addition, by the price at the time of the call; None where that is nothing. `earlier`: the
    quota of the corrections that it has.
    """
    price = listed.at((row.created_at - row.duration_ms) / 1000)
    more = repricing.reprice(row, price) - earlier
    if not more:
        return None
    unlimited, budgets = payers(row.other)
    return ChargeRecord(
        created_at=now_ms,
        user_id=row.user_id,
        quota=more,
        username=row.username,
        token_id=row.token_id,
        token_name=row.token_name,
        unlimited=unlimited,
        channel_id=row.channel_id,
        channel_name=row.channel_name,
        model=row.model,
        upstream_model=row.upstream_model,
        operation=row.operation,
        group=row.group,
        request_id=row.charge_id or "",
        status=row.status,
        price_version=price.version,
        breakdown=repricing.tariff_of(row, price).bill(repricing.billed_usage(row)),
        outcome="corrected",
        attempts=0,
        other={"request_id": row.request_id, "charged": row.quota + earlier + more},
        type=LogType.CORRECTION,
        budgets=budgets,
    )
