"""What a request is told whose purse has too little."""

from datetime import UTC, datetime

from ...adapters.errors import InsufficientQuota
from ...config.amounts import dollars
from ..store.leases import BalanceKind
from .purse import Purse

CODES = {
    BalanceKind.USER: "insufficient_quota",
    BalanceKind.TOKEN: "token_quota_exhausted",
    BalanceKind.BUDGET: "budget_exceeded",
}
WHOSE = {BalanceKind.USER: "The balance", BalanceKind.TOKEN: "The key's quota"}


def refusal(purse: Purse, quota: int, now_ms: int) -> InsufficientQuota:
    """That it does not cover `quota`, and when it will again, if that is known."""
    whose = purse.whose or WHOSE[purse.subject.kind]
    message = f"{whose} does not cover this: it may cost {dollars(quota)}, of {dollars(max(0, purse.reach))} left."
    if quota == 1:
        message = f"{whose} is used up."
    retry_after = None
    if purse.ends_at is not None:
        message = f"{message} It begins anew at {utc(purse.ends_at)}."
        retry_after = max(1.0, (purse.ends_at - now_ms) / 1000)
    return InsufficientQuota(message, code=CODES[purse.subject.kind], retry_after=retry_after)


def utc(milliseconds: int) -> str:
    """A time as 2026-12-31T00:00:00Z."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().replace("+00:00", "Z")
