"""Tariff: a price at a group's ratio, made for the one thing that is done with it for every request."""

from decimal import Decimal
from math import lcm

from .amounts import EXACT, MAX_QUOTA, QuotaOverflow
from .pricing import Kind, Price, Usage, quota_for, quota_to_hold, reserve_quota

_TEXT_KINDS: tuple[Kind, ...] = ("input", "cached_input", "output")


class Tariff:
    """
    A price at a group's ratio, in whole numbers: what `quota_for` and `reserve_quota` say, at a tenth of their cost for
    calls that used nothing but text. Everything else is left to them.
    """

    __slots__ = ("_cached", "_denominator", "_input", "_output", "_plain", "_texts", "price", "ratio", "text_only")

    def __init__(self, price: Price, ratio: Decimal) -> None:
        """Raises `ValueError` on a ratio below 0 or not finite."""
        if not ratio.is_finite() or ratio < 0:
            raise ValueError(f"a group ratio is a number >= 0, not {ratio}")
        self.price = price
        self.ratio = ratio
        rates = price.rates
        parts = [EXACT.multiply(rates[kind].quota, ratio).as_integer_ratio() for kind in _TEXT_KINDS]
        self._denominator = lcm(*(denominator for _, denominator in parts))
        self._input, self._cached, self._output = (top * (self._denominator // bottom) for top, bottom in parts)
        self._plain = not price.per_call
        self._texts = {kind: str(rates[kind].usd) for kind in _TEXT_KINDS} | {"group_ratio": str(ratio)}
        self.text_only = price.output_audio is None and price.output_image is None
        """Output has one price, whatever it is: `reserve` covers a call that sends nothing but text."""

    def quota(self, usage: Usage) -> int:
        """The quota that `quota_for` gives."""
        if not self._plain or not _is_text(usage):
            return quota_for(usage, self.price, self.ratio)[0]
        cached = min(usage.cached_tokens, usage.input_tokens)
        amount = (
            (usage.input_tokens - cached) * self._input + cached * self._cached + usage.output_tokens * self._output
        )
        quota = (2 * amount + self._denominator) // (2 * self._denominator)
        return self._bounded(quota if quota or not amount else 1)

    def reserve(
        self, input_tokens: int, output_tokens: int, *, images: int = 0, image_size: str = "", image_quality: str = ""
    ) -> int:
        """The quota that `reserve_quota` gives."""
        if images or not self._plain:
            return reserve_quota(
                input_tokens,
                output_tokens,
                self.price,
                self.ratio,
                images=images,
                image_size=image_size,
                image_quality=image_quality,
            )
        return self._bounded(-(-(input_tokens * self._input + output_tokens * self._output) // self._denominator))

    def cover(self, expected: Usage) -> int:
        """The quota that covers a call which uses this much, of any kind."""
        return quota_to_hold(expected, self.price, self.ratio)

    def bill(self, usage: Usage) -> dict[str, object]:
        """
        What `quota` is made of, ready for JSON: of each kind its units and its price in dollars (for a million tokens,
        a minute, a call, an image), and the group's ratio.
        """
        lines: dict[str, object] = {"group_ratio": self._texts["group_ratio"]}
        if not self._plain or not _is_text(usage):
            for line in quota_for(usage, self.price, self.ratio)[1]:
                units = line.units if isinstance(line.units, int) else str(line.units)
                lines[line.kind] = (units, str(line.usd))
            return lines
        cached = min(usage.cached_tokens, usage.input_tokens)
        counts = (usage.input_tokens - cached, cached, usage.output_tokens)
        for kind, units in zip(_TEXT_KINDS, counts, strict=True):
            if units:
                lines[kind] = (units, self._texts[kind])
        return lines

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
