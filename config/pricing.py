"""
What a call costs: `quota_for(usage, price, group_ratio)` gives whole quota and the lines it is the sum of.

Everything is exact until one rounding at the end, half up. A call that cost anything at all costs at least 1 quota.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

from msgspec import Struct

from .amounts import EXACT, QUOTA_PER_USD, ZERO, round_half_up, round_up

MAX_COUNT = 2**53 - 1
"""The largest count that every JSON reader keeps exact, and far more than any call uses."""

MAX_USD = Decimal(1_000_000_000)
MAX_DECIMALS = 18

QUOTA_PER_USD_PER_MILLION = Decimal(QUOTA_PER_USD).scaleb(-6)

OWN_PRICES = ("input", "output", "per_minute", "per_call")
FALLING_BACK = (
    "cached_input",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
)

NO_IMAGES: Mapping[str, Decimal] = MappingProxyType({})

Kind = Literal[
    "input",
    "output",
    "cached_input",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
    "per_minute",
    "per_call",
    "per_image",
]


class Usage(Struct, frozen=True):
    """
    What one call used. `input_tokens` and `output_tokens` are totals; the other token counts are parts of them.

    Parts do not overlap: an audio or image token that was read from the cache is counted in `cached_tokens` only.
    Reasoning tokens are output and cost what output costs. `image_size` ("1024x1792") and `image_quality` ("hd") are
    empty when the client left them to the vendor. `seconds` is the length of transcribed audio.
    `estimated`: counted here because the upstream did not say.

    Raises `ValueError` on a negative count. For numbers an upstream reported, use `bounded`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    seconds: Decimal = ZERO
    image_size: str = ""
    image_quality: str = ""
    estimated: bool = False

    def __post_init__(self) -> None:
        # The bitwise or of whole numbers is below 0 when one of them is; with `min` a usage took twice as long to make.
        every = (
            self.input_tokens
            | self.output_tokens
            | self.cached_tokens
            | self.cache_write_5m_tokens
            | self.cache_write_1h_tokens
            | self.input_audio_tokens
            | self.output_audio_tokens
            | self.input_image_tokens
            | self.output_image_tokens
            | self.reasoning_tokens
            | self.images
        )
        seconds = self.seconds
        if every < 0 or (seconds is not ZERO and (not seconds.is_finite() or seconds < 0)):
            raise ValueError(f"a usage is made of counts >= 0: {self}")

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @classmethod
    def bounded(
        cls,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        cache_write_5m_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        input_audio_tokens: int = 0,
        output_audio_tokens: int = 0,
        input_image_tokens: int = 0,
        output_image_tokens: int = 0,
        reasoning_tokens: int = 0,
        images: int = 0,
        seconds: Decimal = ZERO,
        image_size: str = "",
        image_quality: str = "",
        estimated: bool = False,
    ) -> Self:
        """A usage from numbers an upstream reported: below 0 becomes 0, a part is at most its total, no error."""
        total_in = _clamp(input_tokens, MAX_COUNT)
        total_out = _clamp(output_tokens, MAX_COUNT)
        return cls(
            input_tokens=total_in,
            output_tokens=total_out,
            cached_tokens=_clamp(cached_tokens, total_in),
            cache_write_5m_tokens=_clamp(cache_write_5m_tokens, total_in),
            cache_write_1h_tokens=_clamp(cache_write_1h_tokens, total_in),
            input_audio_tokens=_clamp(input_audio_tokens, total_in),
            output_audio_tokens=_clamp(output_audio_tokens, total_out),
            input_image_tokens=_clamp(input_image_tokens, total_in),
            output_image_tokens=_clamp(output_image_tokens, total_out),
            reasoning_tokens=_clamp(reasoning_tokens, total_out),
            images=_clamp(images, MAX_COUNT),
            seconds=min(seconds, Decimal(MAX_COUNT)) if seconds.is_finite() and seconds > 0 else ZERO,
            image_size=image_size,
            image_quality=image_quality,
            estimated=estimated,
        )


class PriceError(ValueError):
    """A price that cannot be charged. `model` is its row, `field` the part of the row that is wrong."""

    def __init__(self, model: str, field: str, problem: str) -> None:
        super().__init__(f"price of {model!r}: {field}: {problem}")
        self.model = model
        self.field = field


class Rate(NamedTuple):
    """A unit price as it was written, and the quota one unit costs before the group ratio."""

    usd: Decimal
    quota: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """
    The price of a model. Token prices are USD per million tokens; `per_minute` is USD per minute of audio, charged
    by the second; `per_call` is USD per request and `per_image` USD per generated image. All that apply are added.

    A token price left out is that of text: `cached_input`, `cache_write_5m`, `input_audio` and `input_image` fall
    back to `input`, `cache_write_1h` to `cache_write_5m`, `output_audio` and `output_image` to `output`.
    Keys of `per_image` are "size/quality", "size", "quality" or "default", tried in this order.

    `source`: where the price is published; `checked`: when it was last compared with that. `version` is a hash of the
    figures that were given: it stays when a price is only checked again, and in later releases.

    Raises `PriceError` on a figure that is no Decimal, negative, not finite, above 10^9 or finer than 18 decimals.
    """

    model: str
    input: Decimal = ZERO
    output: Decimal = ZERO
    cached_input: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    input_image: Decimal | None = None
    output_image: Decimal | None = None
    per_minute: Decimal = ZERO
    per_call: Decimal = ZERO
    per_image: Mapping[str, Decimal] = field(default_factory=lambda: NO_IMAGES, hash=False)
    source: str = ""
    checked: date | None = None
    version: str = field(init=False, compare=False)
    rates: Mapping[Kind, Rate] = field(init=False, repr=False, compare=False)
    image_rates: Mapping[str, Rate] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rates = self._rates()
        image_rates = {
            name: self._rate(f"per_image.{name}", usd, QUOTA_PER_USD) for name, usd in self.per_image.items()
        }
        if image_rates and "default" not in image_rates:
            raise PriceError(self.model, "per_image", 'needs a "default" for sizes that are not listed')
        object.__setattr__(self, "per_image", MappingProxyType(dict(self.per_image)))
        object.__setattr__(self, "rates", MappingProxyType(rates))
        object.__setattr__(self, "image_rates", MappingProxyType(image_rates))
        object.__setattr__(self, "version", _version(self))

    def image_rate(self, size: str, quality: str) -> Rate | None:
        """The rate of one image; None when images are not charged by the piece."""
        rates = self.image_rates
        return rates.get(f"{size}/{quality}") or rates.get(size) or rates.get(quality) or rates.get("default")

    def _rates(self) -> dict[Kind, Rate]:
        cache_write_5m = self.input if self.cache_write_5m is None else self.cache_write_5m
        per_million: dict[Kind, Decimal] = {
            "input": self.input,
            "output": self.output,
            "cached_input": self.input if self.cached_input is None else self.cached_input,
            "cache_write_5m": cache_write_5m,
            "cache_write_1h": cache_write_5m if self.cache_write_1h is None else self.cache_write_1h,
            "input_audio": self.input if self.input_audio is None else self.input_audio,
            "output_audio": self.output if self.output_audio is None else self.output_audio,
            "input_image": self.input if self.input_image is None else self.input_image,
            "output_image": self.output if self.output_image is None else self.output_image,
        }
        rates: dict[Kind, Rate] = {
            kind: self._rate(kind, usd, QUOTA_PER_USD_PER_MILLION) for kind, usd in per_million.items()
        }
        rates["per_call"] = self._rate("per_call", self.per_call, QUOTA_PER_USD)
        per_minute = self._rate("per_minute", self.per_minute, QUOTA_PER_USD)
        rates["per_minute"] = Rate(per_minute.usd, Context(prec=40).divide(per_minute.quota, Decimal(60)))
        return rates

    def _rate(self, name: str, usd: object, quota_per_usd: Decimal | int) -> Rate:
        if not isinstance(usd, Decimal):
            raise PriceError(self.model, name, f"must be a Decimal in USD, not {type(usd).__name__}")
        if not usd.is_finite():
            raise PriceError(self.model, name, f"must be a finite number, not {usd}")
        if usd < 0:
            raise PriceError(self.model, name, f"must not be negative, but is {usd}")
        if usd > MAX_USD:
            raise PriceError(self.model, name, f"must be at most {MAX_USD} USD, but is {usd}")
        exponent = usd.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
            raise PriceError(self.model, name, f"must have at most {MAX_DECIMALS} decimals, but is {usd}")
        return Rate(usd, EXACT.multiply(usd, quota_per_usd))


class Line(NamedTuple):
    """
    One line of a bill: `units` of a kind, at `usd` each, cost `quota`, unrounded and with the group ratio applied.

    `units` are tokens and `usd` is per million of them; for `per_minute` they are seconds and `usd` is per minute;
    for `per_call` and `per_image` they are calls and images and `usd` is for one.
    """

    kind: Kind
    units: int | Decimal
    usd: Decimal
    quota: Decimal


Breakdown = tuple[Line, ...]
"""The lines of a bill. Their `quota` adds up to the amount before rounding."""


def quota_for(usage: Usage, price: Price, group_ratio: Decimal) -> tuple[int, Breakdown]:
    """
    The quota a call costs, 500,000 to the dollar, and the lines it is the sum of.

    Rounded half up, once; at least 1 when anything that has a price was used. A token is charged once: where parts
    add up to more than their total, the discounted kinds are cut first.

    Raises `ValueError` on a group ratio below 0 or not finite, `QuotaOverflow` beyond 2**63 - 1.
    """
    lines = _bill(usage, price, group_ratio)
    amount = _amount(lines)
    quota = round_half_up(amount)
    return (quota if quota or not amount else 1), tuple(lines)


def reserve_quota(
    input_tokens: int,
    output_tokens: int,
    price: Price,
    group_ratio: Decimal,
    *,
    images: int = 0,
    image_size: str = "",
    image_quality: str = "",
    seconds: Decimal = ZERO,
) -> int:
    """
    The quota to hold for a call that is expected to use this much, rounded up. Raises as `quota_for` does.

    Input is taken at the plain input price: a discount is not known in advance.
    """
    expected = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        images=images,
        image_size=image_size,
        image_quality=image_quality,
        seconds=seconds,
    )
    return quota_to_hold(expected, price, group_ratio)


def quota_to_hold(expected: Usage, price: Price, group_ratio: Decimal) -> int:
    """The quota that covers a call which uses this much, rounded up. Raises as `quota_for` does."""
    return round_up(_amount(_bill(expected, price, group_ratio)))


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
    return lines


def _units(usage: Usage) -> list[tuple[Kind, int | Decimal]]:
    """Every token under exactly one kind; kinds that were not used are left out."""
    units: list[tuple[Kind, int | Decimal]] = []

    text = usage.input_tokens
    # The surcharged kinds come first, so that when parts overlap it is the cache discount that shrinks.
    parts: tuple[tuple[Kind, int], ...] = (
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


def _clamp(count: int, most: int) -> int:
    return min(max(count, 0), most)


def _version(price: Price) -> str:
    # Figures that were not given do not count, so that a kind of price added later changes no version.
    given: dict[str, Decimal] = {name: usd for name in OWN_PRICES if (usd := getattr(price, name))}
    given.update({name: usd for name in FALLING_BACK if (usd := getattr(price, name)) is not None})
    given.update({f"per_image.{name}": usd for name, usd in price.per_image.items()})
    figures = ";".join(f"{name}={EXACT.normalize(usd):f}" for name, usd in sorted(given.items()))
    return hashlib.sha256(figures.encode()).hexdigest()[:12]
