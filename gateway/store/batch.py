"""A batch of charges, and the log rows that it makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from msgspec.structs import replace
from sqlalchemy import String

from . import json_text
from .records import ChargeRecord
from .schema import logs
from .sums import Sums, sums_of

NO_COLUMNS = {"breakdown", "other", "unlimited", "budgets"}
PLAIN = tuple(name for name in ChargeRecord.__struct_fields__ if name not in NO_COLUMNS)
COLUMNS = ("charge_id", *PLAIN, "breakdown", "other")
TEXTS = tuple(
    (column.name, column.type.length)
    for column in logs.columns
    if column.name in PLAIN and isinstance(column.type, String) and column.type.length
)
"""Columns of text and the most characters that they take."""

_plain_values = attrgetter(*PLAIN)


@dataclass(frozen=True)
class Batch:
    """
    Charges of a holder that follow number `after`; the last of `records` is number `upto`.

    There are fewer records than numbers only where some were lost: the batch then begins with the gap.
    """

    holder: str
    after: int
    upto: int
    records: tuple[ChargeRecord, ...]

    def number(self, index: int) -> int:
        """The number of `records[index]`."""
        return self.upto - len(self.records) + 1 + index

    @cached_property
    def sums(self) -> Sums:
        """What the records add up to."""
        return sums_of(self.records)


def fitted(record: ChargeRecord) -> ChargeRecord:
    """
    The record with texts that every engine takes: clients and upstreams choose some of them, and one that a server
    refuses would keep all charges behind it from being written.
    """
    wrong = {
        name: value.replace("\0", "?")[:most]
        for name, most in TEXTS
        if len(value := getattr(record, name)) > most or "\0" in value
    }
    return replace(record, **wrong) if wrong else record


def row_of(batch: Batch, index: int) -> tuple[Any, ...]:
    """The values of a log row, in the order of `COLUMNS`."""
    record = batch.records[index]
    breakdown = json_text.dump(record.breakdown) if record.breakdown else None
    return (f"{batch.holder}-{batch.number(index)}", *_plain_values(record), breakdown, _other(record))


def payers(other: Mapping[str, Any]) -> tuple[bool, tuple[int, ...]]:
    """Whether the token only counted what it used, and the periods of budgets that paid, by a row's `other`."""
    return not other.get("limited", False), tuple(other.get("budgets", ()))


def _other(record: ChargeRecord) -> str | None:
    """With who has paid beside the user, for whom there is no column: corrections are for the same."""
    other = dict(record.other or {})
    if record.token_id and not record.unlimited:
        other["limited"] = True
    if record.budgets:
        other["budgets"] = record.budgets
    return json_text.dump(other) if other else None
