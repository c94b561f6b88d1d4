"""
Budgets: what a user, a token or a group may spend in a day, a week or a month, and until when something lasts.

Pure: the time is passed in. Times are milliseconds since 1970; periods are those of the calendar in UTC.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import NamedTuple

DAY_MS = 86_400_000
PACE_MS = 7 * DAY_MS
"""The pace of spending is that of so long a time."""
FAR_MS = 36_525 * DAY_MS
EPOCH = date(1970, 1, 1).toordinal()


class BudgetKind(StrEnum):
    """Whose spending counts. A request is of the group that routes and prices it."""

    USER = "user"
    TOKEN = "token"
    GROUP = "group"


CALLED = {BudgetKind.USER: "this user", BudgetKind.TOKEN: "this key", BudgetKind.GROUP: "the group {}"}


class Period(StrEnum):
    """How long until a budget begins anew: at midnight, on Monday (ISO 8601), or on the first of the month."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class UnknownPeriod(str):
    """One that a newer version has written: nobody here knows how long it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """
    At most `amount` quota in each period. `subject`: the id of the user or token in decimal, or the group's name.

    Of an `UnknownPeriod` the budget cannot be kept: what it covers is refused, for it may be used up.
    `soft_percent`: from this share of the amount on (1 to 100) the operator is told, once a period; 0: never.
    """

    id: int
    kind: BudgetKind
    subject: str
    period: Period | UnknownPeriod
    amount: int
    soft_percent: int

    @property
    def called(self) -> str:
        """How a caller is told of it, at the beginning of a sentence."""
        return f"The {self.period} budget of {CALLED[self.kind].format(self.subject)}"

    @property
    def trouble(self) -> str:
        """Why nothing may be spent of it; empty when something may."""
        if isinstance(self.period, UnknownPeriod):
            return f"{self.called} was set by a newer version of the gateway, and this one cannot keep it."
        return ""

    def ends_at(self, now_ms: int) -> int | None:
        """When the period ends that a moment lies in, if that is known."""
        return None if isinstance(self.period, UnknownPeriod) else span_of(self.period, now_ms).ends_at


def period_of(text: str) -> Period | UnknownPeriod:
    """A period as it is stored."""
    try:
        return Period(text)
    except ValueError:
        return UnknownPeriod(text)


class Span(NamedTuple):
    """From `starts_at` on, and before `ends_at`."""

    starts_at: int
    ends_at: int


def span_of(period: Period, now_ms: int) -> Span:
    """The period that a moment lies in. For moments of the years 1 to 9998."""
    day = now_ms // DAY_MS
    match period:
        case Period.DAILY:
            first, end = day, day + 1
        case Period.WEEKLY:
            first = day - (day + 3) % 7  # the first day of 1970 was a Thursday
            end = first + 7
        case Period.MONTHLY:
            today = date.fromordinal(EPOCH + day)
            first = today.replace(day=1).toordinal() - EPOCH
            end = date(today.year + today.month // 12, today.month % 12 + 1, 1).toordinal() - EPOCH
    return Span(first * DAY_MS, end * DAY_MS)


def soft_limit(amount: int, percent: int) -> int | None:
    """The quota from which on `percent` of the amount is used; None for 0 percent."""
    return -(-amount * percent // 100) if percent else None


def runs_out(left: int, used: int, now_ms: int, ends_at: int | None = None) -> date | None:
    """
    The day (UTC) on which `left` quota is gone if it goes on at the pace of the last 7 days, in which `used` was spent.

    None when nothing is used, when it lasts until `ends_at`, and when it lasts for more than a century.
    """
    if used <= 0:
        return None
    gone_at = now_ms + max(0, left) * PACE_MS // used
    if gone_at >= (now_ms + FAR_MS if ends_at is None else ends_at):
        return None
    return date.fromordinal(EPOCH + gone_at // DAY_MS)
