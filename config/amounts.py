"""Amounts of money: whole quota, 500,000 to the US dollar, and the exact Decimal arithmetic that leads to it."""

from decimal import ROUND_CEILING, ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

QUOTA_PER_USD = 500_000
MICRODOLLARS_PER_QUOTA = 1_000_000 // QUOTA_PER_USD
MAX_QUOTA = 2**63 - 1

ZERO = Decimal(0)

# Tokens (16 digits) x price (28) x ratio (28) fits several times over. The caller's own context may be set to fewer
# digits; this one raises rather than lose a digit.
EXACT = Context(prec=200, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])


class QuotaOverflow(ArithmeticError):
    """An amount beyond `MAX_QUOTA`, which the database's 64-bit columns cannot hold."""


def dollars(quota: int) -> str:
    """Quota as dollars, exactly: 1 quota is $0.000002."""
    micro = abs(quota) * MICRODOLLARS_PER_QUOTA
    text = f"{micro // 1_000_000}.{micro % 1_000_000:06d}"
    while text.endswith("0") and len(text.partition(".")[2]) > 2:
        text = text[:-1]
    return f"{'-' if quota < 0 else ''}${text}"


def round_half_up(amount: Decimal) -> int:
    """Whole quota from an exact amount >= 0. Raises `QuotaOverflow`."""
    return _whole(amount, ROUND_HALF_UP)


def round_up(amount: Decimal) -> int:
    """Whole quota that covers an exact amount >= 0. Raises `QuotaOverflow`."""
    return _whole(amount, ROUND_CEILING)


def _whole(amount: Decimal, rounding: str) -> int:
    whole = amount.to_integral_value(rounding, EXACT)
    if whole > MAX_QUOTA:
        raise QuotaOverflow(f"{amount:.6g} quota does not fit in 64 bits")
    return int(whole)
