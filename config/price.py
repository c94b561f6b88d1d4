"""
Price: what the things that a call can use cost, and how that goes by the length of its prompt and by its date.

`pricing.py` charges by it, `price_rows.py` reads it from a price file.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Context, Decimal, InvalidOperation
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, NamedTuple, cast, get_args

from .amounts import EXACT, QUOTA_PER_USD, ZERO

ONE = Decimal(1)
MAX_USD = Decimal(1_000_000_000)
MAX_DECIMALS = 40
MAX_RATIO_DECIMALS = 18

QUOTA_PER_USD_PER_MILLION = Decimal(QUOTA_PER_USD).scaleb(-6)
QUOTA_PER_USD_PER_THOUSAND = Decimal(QUOTA_PER_USD).scaleb(-3)

OWN_PRICES = ("input", "output", "per_minute", "per_call")
FALLING_BACK: Mapping["TokenKind", "TokenKind"] = MappingProxyType(
    {
        "cached_input": "input",
        "cache_write_5m": "input",
        "cache_write_1h": "cache_write_5m",
        "input_audio": "input",
        "output_audio": "output",
        "input_image": "input",
        "output_image": "output",
    }
)
"""The prices that may be left out, and which holds in their place."""
TIER_FIELDS = frozenset({"input", "output", *FALLING_BACK})
"""The prices that can depend on the length of the prompt: those of tokens."""

Tool = Literal[
    "web_search",
    "web_search_preview",
    "x_search",
    "google_search",
    "google_maps",
    "file_search",
    "code_interpreter",
    "image_generation",
]
TOOLS: tuple[Tool, ...] = get_args(Tool)
"""The vendors' own tools that can have a price, by the names that the vendors give them."""

NO_FIGURES: Mapping[str, Decimal] = MappingProxyType({})

TokenKind = Literal[
    "input",
    "output",
    "cached_input",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
]
PriceKind = TokenKind | Literal["per_minute", "per_call", "per_image"] | Tool


class PriceError(ValueError):
    """A price that cannot be charged. `model` is its row, `field` the part of the row that is wrong."""

    def __init__(self, model: str, field: str, problem: str) -> None:
        super().__init__(f"price of {model!r}: {field}: {problem}")
        self.model = model
        self.field = field
        self.problem = problem


class Rate(NamedTuple):
    """A unit price as it was written, and the quota one unit costs before the group ratio."""

    usd: Decimal
    quota: Decimal


NOTHING = Rate(ZERO, ZERO)


@dataclass(frozen=True, slots=True)
class Tier:
    """
    Token prices of calls with more than `above` input tokens in all; they hold for the whole call.

    `figures` has those that differ from the row's, by the names of `Price`'s fields.
    """

    above: int
    figures: Mapping[str, Decimal] = field(hash=False)


@dataclass(frozen=True, slots=True)
class PricePeriod:
    """A time in which another price is in force: from `since` on, until just before `until`. None: for all time."""

    since: datetime | None
    until: datetime | None
    price: "Price"

    def holds(self, now: float) -> bool:
        return not (self.since and now < self.since.timestamp()) and not (self.until and now >= self.until.timestamp())


@dataclass(frozen=True, slots=True)
class Price:
    """
    The price of a model. Token prices are USD per million tokens; `per_minute` is USD per minute of audio, charged
    by the second; `per_call` is USD per request, `per_image` USD per generated image and `tools` USD per 1,000 calls
    of a tool. All that apply are added.

    A token price left out is that of text: `cached_input`, `cache_write_5m`, `input_audio` and `input_image` fall
    back to `input`, `cache_write_1h` to `cache_write_5m`, `output_audio` and `output_image` to `output`. In place of
    `cached_input` there may be `prompt_cache_ratio`, the share of `input` (0 to 1) that a cached token costs.
    Keys of `per_image` are "size/quality", "size", "quality" or "default", tried in this order.

    `tiers`: other prices for longer prompts, the shortest first. `periods`: other prices for certain times; `at` gives
    the one in force. `max_output`: the most output tokens of one answer, or None if that is not known.

    `source`: where the price is published; `checked`: when it was last compared with that; `currency`: what it is
    published in, of which one unit was taken for `usd_per_unit`. `version` is a hash of the figures that were given:
    it stays when a price is only checked again, and in later releases.

    Raises `PriceError` on a figure that is no Decimal, negative, not finite, above 10^9 or finer than 40 decimals, on
    an unknown tool, and on tiers or periods that overlap.
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
    per_image: Mapping[str, Decimal] = field(default_factory=lambda: NO_FIGURES, hash=False)
    source: str = ""
    checked: date | None = None
    prompt_cache_ratio: Decimal | None = None
    tools: Mapping[str, Decimal] = field(default_factory=lambda: NO_FIGURES, hash=False)
    tiers: tuple[Tier, ...] = ()
    periods: tuple[PricePeriod, ...] = ()
    max_output: int | None = None
    currency: str = "USD"
    usd_per_unit: Decimal = ONE
    version: str = field(init=False, compare=False)
    rates: Mapping[PriceKind, Rate] = field(init=False, repr=False, compare=False)
    image_rates: Mapping[str, Rate] = field(init=False, repr=False, compare=False)
    tier_prices: tuple[tuple[int, "Price"], ...] = field(init=False, repr=False, compare=False)
    """(above, the price of such calls) each, the longest prompts first."""

    def __post_init__(self) -> None:
        _Check(self).all()
        image_rates = {
            name: self._rate(f"per_image.{name}", usd, QUOTA_PER_USD) for name, usd in self.per_image.items()
        }
        object.__setattr__(self, "per_image", MappingProxyType(dict(self.per_image)))
        object.__setattr__(self, "tools", MappingProxyType(dict(self.tools)))
        object.__setattr__(self, "rates", MappingProxyType(self._rates()))
        object.__setattr__(self, "image_rates", MappingProxyType(image_rates))
        object.__setattr__(self, "tier_prices", tuple((tier.above, self._in(tier)) for tier in reversed(self.tiers)))
        object.__setattr__(self, "version", _version(self))

    def at(self, now: float) -> "Price":
        """The price in force at a time, in seconds since the epoch."""
        for period in self.periods:
            if period.holds(now):
                return period.price
        return self

    def for_input(self, input_tokens: int) -> "Price":
        """The price of a call with so many input tokens in all, whose rates are the ones to charge."""
        for above, price in self.tier_prices:
            if input_tokens > above:
                return price
        return self

    def image_rate(self, size: str, quality: str) -> Rate | None:
        """The rate of one image; None when images are not charged by the piece."""
        rates = self.image_rates
        return rates.get(f"{size}/{quality}") or rates.get(size) or rates.get(quality) or rates.get("default")

    def with_cache_ratio(self, ratio: Decimal) -> "Price":
        """This price with cached input at a share of the input price, whatever it was. Its periods are left out."""
        tiers = tuple(
            Tier(tier.above, {name: usd for name, usd in tier.figures.items() if name != "cached_input"})
            for tier in self.tiers
        )
        return replace(self, cached_input=None, prompt_cache_ratio=ratio, tiers=tiers, periods=())

    def dearest(self, *, hour: bool = False) -> "Price":
        """
        This price with input at the most that a token of it may cost: read by the model, from a cache, or written to
        one, also for an `hour`. A hold goes by it. Its periods are left out.
        """
        tiers = tuple(Tier(above, price._dearest(hour)) for above, price in reversed(self.tier_prices))
        cheaper = dict.fromkeys(("cached_input", "cache_write_5m", "cache_write_1h", "prompt_cache_ratio"))
        return replace(self, **cheaper, **self._dearest(hour), tiers=tiers, periods=())

    def _dearest(self, hour: bool) -> dict[str, Decimal]:
        kinds: tuple[PriceKind, ...] = ("input", "cached_input", "cache_write_5m", "cache_write_1h")
        most = max(self.rates[kind].usd for kind in kinds[: 4 if hour else 3])
        figures = {name: usd for name, usd in given_figures(self) if name in TIER_FIELDS and name not in kinds}
        for name in {"input_audio", "input_image"} & figures.keys():
            figures[name] = max(figures[name], most)
        return {**figures, "input": most, "output": self.output}

    def _in(self, tier: Tier) -> "Price":
        try:
            return replace(self, tiers=(), periods=(), **tier.figures)
        except PriceError as error:
            raise PriceError(self.model, f"tiers.{tier.above}.{error.field}", error.problem) from None

    def _rates(self) -> dict[PriceKind, Rate]:
        rates: dict[PriceKind, Rate] = {
            "input": self._rate("input", self.input, QUOTA_PER_USD_PER_MILLION),
            "output": self._rate("output", self.output, QUOTA_PER_USD_PER_MILLION),
        }
        for kind, instead in FALLING_BACK.items():
            usd: Decimal | None = getattr(self, kind)
            # One object for all that cost the same: there are a thousand prices.
            rates[kind] = rates[instead] if usd is None else self._rate(kind, usd, QUOTA_PER_USD_PER_MILLION)
        if self.prompt_cache_ratio is not None:
            rates["cached_input"] = Rate(*(EXACT.multiply(each, self.prompt_cache_ratio) for each in rates["input"]))
        rates["per_call"] = self._rate("per_call", self.per_call, QUOTA_PER_USD)
        rates["per_minute"] = per_minute = self._rate("per_minute", self.per_minute, QUOTA_PER_USD)
        if per_minute is not NOTHING:
            rates["per_minute"] = Rate(per_minute.usd, Context(prec=40).divide(per_minute.quota, Decimal(60)))
        for tool, usd in self.tools.items():
            rates[cast("Tool", tool)] = self._rate(f"tools.{tool}", usd, QUOTA_PER_USD_PER_THOUSAND)
        return rates

    def _rate(self, name: str, usd: object, quota_per_usd: Decimal | int) -> Rate:
        if usd is ZERO:
            return NOTHING
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


def check_cache_ratio(ratio: Decimal) -> Decimal:
    """The ratio, if it is one: what a cached input token costs relative to input. Raises `ValueError`."""
    exponent = ratio.as_tuple().exponent
    if not ratio.is_finite() or not 0 <= ratio <= 1 or (isinstance(exponent, int) and exponent < -MAX_RATIO_DECIMALS):
        raise ValueError(f"must be a number from 0 to 1 of at most {MAX_RATIO_DECIMALS} decimals, not {ratio}")
    return ratio


def read_cache_ratio(text: str) -> Decimal | None:
    """A cache ratio as a setting, where nothing means that there is none. Raises `ValueError`."""
    try:
        return check_cache_ratio(Decimal(text.strip())) if text.strip() else None
    except InvalidOperation:
        raise ValueError(f"must be a number from 0 to 1, not {text!r}") from None


class _Check:
    """What a price must be beside its figures."""

    def __init__(self, price: Price) -> None:
        self.price = price

    def all(self) -> None:
        price = self.price
        if price.per_image and "default" not in price.per_image:
            raise self._error("per_image", 'needs a "default" for sizes that are not listed')
        for tool in price.tools:
            if tool not in TOOLS:
                raise self._error(f"tools.{tool}", f"unknown tool; there are {', '.join(TOOLS)}")
        if price.prompt_cache_ratio is not None:
            if price.cached_input is not None:
                raise self._error("prompt_cache_ratio", "stands beside cached_input; give one of the two")
            try:
                check_cache_ratio(price.prompt_cache_ratio)
            except ValueError as error:
                raise self._error("prompt_cache_ratio", str(error)) from None
        if price.max_output is not None and (type(price.max_output) is not int or price.max_output < 1):
            raise self._error("max_output", f"must be a whole number from 1, not {price.max_output!r}")
        self._tiers()
        self._periods()

    def _tiers(self) -> None:
        reached = 0
        for tier in self.price.tiers:
            if type(tier.above) is not int or tier.above <= reached:
                wanted = f"more than {reached}" if reached else "a number of tokens above 0"
                raise self._error("tiers.above", f"must be {wanted}, so that no tier overlaps, not {tier.above!r}")
            reached = tier.above
            for name in tier.figures:
                if name not in TIER_FIELDS:
                    raise self._error(f"tiers.{tier.above}.{name}", "is no token price, and only they have tiers")

    def _periods(self) -> None:
        for period in self.price.periods:
            if period.since is None and period.until is None:
                raise self._error("dated", "needs a from or an until")
            if any(moment is not None and moment.tzinfo is None for moment in (period.since, period.until)):
                raise self._error("dated", "needs times with an offset")
            if period.since and period.until and period.since >= period.until:
                raise self._error("dated", f"begins at {period.since}, which is not before its end at {period.until}")
            if period.price.periods:
                raise self._error("dated", "must not have dates inside")
        ordered = sorted(self.price.periods, key=lambda period: period.since.timestamp() if period.since else -1e99)
        for earlier, later in pairwise(ordered):
            if earlier.until is None or later.since is None or earlier.until > later.since:
                raise self._error("dated", f"two periods overlap: from {later.since} on both hold")

    def _error(self, name: str, problem: str) -> PriceError:
        return PriceError(self.price.model, name, problem)


def given_figures(price: Price) -> Iterator[tuple[str, Decimal]]:
    """The single figures that were given, by name. An `OWN_PRICES` figure of 0 counts as not given."""
    for name in (*OWN_PRICES, *FALLING_BACK, "prompt_cache_ratio"):
        figure: Decimal | None = getattr(price, name)
        if figure is not None and (figure or name not in OWN_PRICES):
            yield name, figure


def _prefixed(prefix: str, figures: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {f"{prefix}.{name}": value for name, value in figures.items()}


def _version(price: Price) -> str:
    # Figures that were not given do not count, so that a kind of price added later changes no version.
    given = dict(given_figures(price)) | _prefixed("per_image", price.per_image) | _prefixed("tools", price.tools)
    for tier in price.tiers:
        given |= _prefixed(f"tiers.{tier.above}", tier.figures)
    figures = ";".join(f"{name}={EXACT.normalize(usd):f}" for name, usd in sorted(given.items()))
    return hashlib.sha256(figures.encode()).hexdigest()[:12]
