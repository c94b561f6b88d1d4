"""
What a call costs: `quota_for(usage, price, group_ratio)` gives whole quota and the lines it is the sum of.

Everything is exact until one rounding at the end, half up. A call that cost anything at all costs at least 1 quota.
"""

from decimal import Decimal
from typing import NamedTuple

from .amounts import EXACT, ZERO, round_half_up, round_up
from .price import Price, PriceError, PriceKind, Rate
from .usage import Usage

__all__ = ["Breakdown", "Line", "Price", "PriceError", "PriceKind", "Rate", "Usage", "quota_for", "quota_to_hold"]


class Line(NamedTuple):
    """
    One line of a bill: `units` of a kind, at `usd` each, cost `quota`, unrounded and with the group ratio applied.

    `units` are tokens and `usd` is per million of them; for `per_minute` they are seconds and `usd` is per minute;
    for `per_call` and `per_image` they are calls and images and `usd` is for one; for a tool, `usd` is for 1,000 calls.
    """

    kind: PriceKind
    units: int | Decimal
    usd: Decimal
    quota: Decimal


Breakdown = tuple[Line, ...]
"""The lines of a bill. Their `quota` adds up to the amount before rounding."""


def quota_for(usage: Usage, price: Price, group_ratio: Decimal) -> tuple[int, Breakdown]:
    """
    The quota a call costs, 500,000 to the dollar, and the lines it is the sum of.

    Rounded half up, once; at least 1 when anything that has a price was used. A token is charged once: where parts
    add up to more than their total, the discounted kinds are cut first. A tool without a price costs nothing.

    Raises `ValueError` on a group ratio below 0 or not finite, `QuotaOverflow` beyond 2**63 - 1.
    """
    lines = _bill(usage, price.for_input(usage.input_tokens), group_ratio)
    amount = _amount(lines)
    quota = round_half_up(amount)
    return (quota if quota or not amount else 1), tuple(lines)


def quota_to_hold(expected: Usage, price: Price, group_ratio: Decimal) -> int:
    """
    The quota that covers a call which uses this much or less, rounded up: at the dearest of the prices that prompts up
    to this length have. Raises as `quota_for` does.
    """
    most = _amount(_bill(expected, price, group_ratio))
    for above, tier in price.tier_prices:
        if expected.input_tokens > above:
            most = max(most, _amount(_bill(expected, tier, group_ratio)))
    return round_up(most)


def _bill(usage: Usage, price: Price, group_ratio: Decimal) -> list[Line]:
    if not group_ratio.is_finite() or group_ratio < 0:
        raise ValueError(f"a group ratio is a number >= 0, not {group_ratio}")
    lines: list[Line] = []
    for kind, units in _units(usage):
        usd, quota = price.rates[kind]
        lines.append(Line(kind, units, usd, EXACT.multiply(EXACT.multiply(quota, units), group_ratio)))
    if price.per_call:
        usd, quota = price.rates["per_call"]
        lines.append(Line("per_call", 1, usd, EXACT.multiply(quota, group_ratio)))
    if usage.images and (rate := price.image_rate(usage.image_size, usage.image_quality)):
        quota = EXACT.multiply(EXACT.multiply(rate.quota, usage.images), group_ratio)
        lines.append(Line("per_image", usage.images, rate.usd, quota))
    for tool, calls in usage.tool_calls:
        if calls and tool in price.tools:
            usd, quota = price.rates[tool]
            lines.append(Line(tool, calls, usd, EXACT.multiply(EXACT.multiply(quota, calls), group_ratio)))
    return lines


def _units(usage: Usage) -> list[tuple[PriceKind, int | Decimal]]:
    """Every token under exactly one kind; kinds that were not used are left out."""
    units: list[tuple[PriceKind, int | Decimal]] = []

    text = usage.input_tokens
    # The surcharged kinds come first, so that when parts overlap it is the cache discount that shrinks.
    parts: tuple[tuple[PriceKind, int], ...] = (
        ("input_audio", usage.input_audio_tokens),
        ("input_image", usage.input_image_tokens),
        ("cache_write_1h", usage.cache_write_1h_tokens),
        ("cache_write_5m", usage.cache_write_5m_tokens),
        ("cached_input", usage.cached_tokens),
    )
    for kind, count in parts:
        if count and text:
            taken = min(count, text)
            text -= taken
            units.append((kind, taken))
    if text:
        units.append(("input", text))

    text = usage.output_tokens
    parts = (("output_audio", usage.output_audio_tokens), ("output_image", usage.output_image_tokens))
    for kind, count in parts:
        if count and text:
            taken = min(count, text)
            text -= taken
            units.append((kind, taken))
    if text:
        units.append(("output", text))

    if usage.seconds:
        units.append(("per_minute", usage.seconds))
    return units


def _amount(lines: list[Line]) -> Decimal:
    amount = ZERO
    for line in lines:
        amount = EXACT.add(amount, line.quota)
    return amount
