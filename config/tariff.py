"""Tariff: a price at a group's ratio, made for the one thing that is done with it for every request."""

from decimal import Decimal
from math import lcm
from typing import Any

from .amounts import EXACT, MAX_QUOTA, QuotaOverflow
from .pricing import Price, PriceKind, Usage, quota_for, quota_to_hold

_TEXT_KINDS: tuple[PriceKind, ...] = ("input", "cached_input", "output")


class Tariff:
    """
    A price at a group's ratio, in whole numbers: what `quota_for` says, and `quota_to_hold` at the dearest input, at a
    tenth of their cost for calls that used nothing but text. Everything else is left to them.

    `price` is the one in force at the time of the call; `cache_ratio`, where it is given, replaces what the price says
    of cached input: a cached token then costs this share (0 to 1) of what an input token costs.
    """

    __slots__ = (
        "_cached",
        "_charged",
        "_dearest",
        "_dearest_hour",
        "_denominator",
        "_held",
        "_input",
        "_output",
        "_ratios",
        "_stepped",
        "_texts",
        "_tiers",
        "cache_ratio",
        "price",
        "ratio",
        "sells_hours",
        "sells_more",
        "text_only",
    )

    def __init__(self, price: Price, ratio: Decimal, cache_ratio: Decimal | None = None) -> None:
        """Raises `ValueError` on a ratio below 0 or not finite, `PriceError` on a cache ratio that is not 0 to 1."""
        if not ratio.is_finite() or ratio < 0:
            raise ValueError(f"a group ratio is a number >= 0, not {ratio}")
        self.price = price
        self.ratio = ratio
        self.cache_ratio = cache_ratio
        charged = self._charged = price if cache_ratio is None else price.with_cache_ratio(cache_ratio)
        rates = charged.rates
        self._dearest, self._dearest_hour = charged.dearest(), charged.dearest(hour=True)
        each = (*(rates[kind] for kind in _TEXT_KINDS), self._dearest.rates["input"])
        parts = [EXACT.multiply(rate.quota, ratio).as_integer_ratio() for rate in each]
        self._denominator = lcm(*(denominator for _, denominator in parts))
        self._input, self._cached, self._output, self._held = (
            top * (self._denominator // bottom) for top, bottom in parts
        )
        self._tiers = tuple((above, Tariff(tier, ratio)) for above, tier in charged.tier_prices)
        self._stepped = bool(price.per_call or self._tiers)
        self._texts = {kind: str(rates[kind].usd) for kind in _TEXT_KINDS}
        self._ratios = {"group_ratio": str(ratio)}
        if cache_ratio is not None:
            self._ratios["cache_ratio"] = str(cache_ratio)
        every = (price, *(tier for _, tier in price.tier_prices))
        self.text_only = all(each.output_audio is None and each.output_image is None for each in every)
        """Output has one price, whatever it is: `reserve` covers a call that sends nothing but text."""
        self.sells_hours = any(each.cache_write_1h is not None for each in every)
        """An hour in a cache has a price of its own."""
        self.sells_more = "web_search" in price.tools or self.sells_hours
        """A request may ask for what `reserve` does not cover: searches, or an hour in a cache."""

    def quota(self, usage: Usage) -> int:
        """The quota that `quota_for` gives."""
        if (self._stepped or usage.tool_calls) and (quota := self._special_quota(usage)) is not None:
            return quota
        if not _is_text(usage):
            return quota_for(usage, self._charged, self.ratio)[0]
        cached = min(usage.cached_tokens, usage.input_tokens)
        amount = (
            (usage.input_tokens - cached) * self._input + cached * self._cached + usage.output_tokens * self._output
        )
        quota = (2 * amount + self._denominator) // (2 * self._denominator)
        return self._bounded(quota if quota or not amount else 1)

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        """The quota that `cover` gives for a call of nothing but text."""
        if self._stepped:
            return self.cover(Usage(input_tokens, output_tokens))
        amount = input_tokens * self._held + output_tokens * self._output
        return min(-(-amount // self._denominator), MAX_QUOTA)

    def cover(self, expected: Usage) -> int:
        """
        The quota that covers a call which uses this much, of any kind, whatever of its input is written to a cache, or
        read from one; for an hour only if `expected` has such tokens. `MAX_QUOTA`, which nobody has, beyond it.
        """
        price = self._dearest_hour if expected.cache_write_1h_tokens else self._dearest
        try:
            return quota_to_hold(expected, price, self.ratio)
        except QuotaOverflow:
            return MAX_QUOTA

    def bill(self, usage: Usage) -> dict[str, Any]:
        """
        What `quota` is made of, ready for JSON: of each kind its units and its price in dollars (for a million tokens,
        a minute, a call, an image, a thousand calls of a tool), the size and quality of images where they were asked
        for, the group's ratio, the cache ratio if one replaced the price's, and as `tier` the length of prompts above
        which these prices hold.
        """
        for above, tariff in self._tiers:
            if usage.input_tokens > above:
                return tariff.bill(usage) | self._ratios | {"tier": above}
        lines: dict[str, Any] = self._ratios.copy()
        if self.price.per_call or usage.tool_calls or not _is_text(usage):
            for line in quota_for(usage, self._charged, self.ratio)[1]:
                units = line.units if isinstance(line.units, int) else str(line.units)
                lines[line.kind] = (units, str(line.usd))
            if usage.images:
                named = (("image_size", usage.image_size), ("image_quality", usage.image_quality))
                lines |= {name: text for name, text in named if text}
            return lines
        cached = min(usage.cached_tokens, usage.input_tokens)
        counts = (usage.input_tokens - cached, cached, usage.output_tokens)
        for kind, units in zip(_TEXT_KINDS, counts, strict=True):
            if units:
                lines[kind] = (units, self._texts[kind])
        return lines

    def _special_quota(self, usage: Usage) -> int | None:
        """The quota of a call that is not charged by the rates of text alone; None for one that may be."""
        for above, tariff in self._tiers:
            if usage.input_tokens > above:
                return tariff.quota(usage)
        if self.price.per_call or usage.tool_calls:
            return quota_for(usage, self._charged, self.ratio)[0]
        return None

    def _bounded(self, quota: int) -> int:
        if quota > MAX_QUOTA:
            raise QuotaOverflow(f"{quota} quota does not fit in 64 bits")
        return quota


def _is_text(usage: Usage) -> bool:
    return not (
        usage.images
        or usage.seconds
        or usage.input_audio_tokens
        or usage.output_audio_tokens
        or usage.input_image_tokens
        or usage.output_image_tokens
        or usage.cache_write_5m_tokens
        or usage.cache_write_1h_tokens
    )
