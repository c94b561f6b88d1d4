"""
New API's ratio maps as prices, and prices as ratio maps, exactly.

A model ratio of 1 is $2 per million input tokens; every other ratio is relative to that, and a `ModelPrice`, in dollars
per request, goes before all of them. Each map is an object {model: number}, or JSON text of one, as an option holds it.
What a ratio cannot say is named, and so is what New API would charge otherwise than the price says.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from typing import NamedTuple, NoReturn, cast

from .amounts import EXACT
from .completion_ratios import completion_ratio
from .groups import GROUP_GROUP_RATIO, GROUP_RATIO, GroupError, GroupRatios, dump_exact
from .price import ONE, Price, PriceError, PriceKind

MODEL_MAPS = (
    "ModelRatio",
    "ModelPrice",
    "CompletionRatio",
    "CacheRatio",
    "CreateCacheRatio",
    "ImageRatio",
    "AudioRatio",
    "AudioCompletionRatio",
)
GROUP_MAPS = (GROUP_RATIO, GROUP_GROUP_RATIO)
SPELLINGS = {
    "model_ratio": "ModelRatio",
    "model_price": "ModelPrice",
    "completion_ratio": "CompletionRatio",
    "cache_ratio": "CacheRatio",
    "create_cache_ratio": "CreateCacheRatio",
}
"""The names in New API's /api/ratio_config."""

USD_PER_RATIO = Decimal(2)
WRITE_RATIO = Decimal("1.25")
"""What New API takes for writing to a cache where it has no entry."""
HOUR_RATIO = Decimal("1.6")
"""What writing for an hour costs relative to writing for five minutes, always."""
LONGEST = Context(prec=28, traps=[Inexact, DivisionByZero, InvalidOperation])
"""A ratio of more digits is rounded to twelve, for New API holds it in a float."""
ROUNDED = Context(prec=12)
ROUNDING = Decimal("1e-10")

WITHOUT_A_RATIO = {
    "tiers": "tiers by the prompt's length",
    "periods": "dates",
    "tools": "fees for tools",
    "per_image": "prices per image",
    "per_minute": "prices per minute",
}
"""Parts of a price for which New API has no map."""

Ratios = Mapping[str, Decimal]
RatioMaps = dict[str, dict[str, Decimal]]


@dataclass(frozen=True, slots=True)
class Imported:
    """Prices by model, the options `GroupRatio` and `GroupGroupRatio` as text where given, and what was left out."""

    prices: Mapping[str, Price]
    groups: Mapping[str, str] = field(hash=False)
    left_out: tuple[str, ...] = ()


class Unsaid(NamedTuple):
    """Something of a model's price that ratios do not say: what it is, and where it has figures, these as `detail`."""

    model: str
    what: str
    detail: str = ""

    @property
    def words(self) -> str:
        return self.detail or self.what


@dataclass(frozen=True, slots=True)
class Exported:
    """Ratio maps, without those that would be empty, and what they do not say, model after model."""

    maps: RatioMaps = field(hash=False)
    unsaid: tuple[Unsaid, ...] = ()


def import_ratios(text: str, *, source: str, checked: date) -> Imported:
    """
    The prices that New API charges with these maps. Raises `PriceError`, which names the model and the map.

    A name with a `*` before its end, and an entry of a model that has neither a `ModelRatio` nor a `ModelPrice`, is
    left out: the one could not be looked up here, and the other is not used there.
    """
    given = _read(text)
    maps = {name: _ratios(name, given.get(name, {})) for name in MODEL_MAPS}
    groups = {name: dump_exact(given[name]) for name in GROUP_MAPS if name in given}
    try:
        GroupRatios.from_options(groups)
    except GroupError as error:
        raise PriceError("*", "groups", str(error)) from None
    prices: dict[str, Price] = {}
    left_out: list[str] = []
    for model in dict.fromkeys(model for entries in maps.values() for model in entries):
        if not model or "*" in model[:-1]:
            left_out.append(f"{model}: a * stands before its end")
        elif model in maps["ModelPrice"]:
            prices[model] = Price(model, per_call=maps["ModelPrice"][model], source=source, checked=checked)
        elif model in maps["ModelRatio"]:
            prices[model] = replace(Price(model, source=source, checked=checked), **_exact_figures(model, maps))
        else:
            left_out.append(f"{model}: it has neither a ModelRatio nor a ModelPrice")
    return Imported(prices, groups, tuple(left_out))


def _exact_figures(model: str, maps: Mapping[str, Ratios]) -> dict[str, Decimal]:
    """As `_figures`. Raises `PriceError` where the products cannot be written exactly."""
    try:
        return _figures(model, maps)
    except ArithmeticError:
        raise PriceError(model, "ratios", "too large, or of too many digits") from None


def _figures(model: str, maps: Mapping[str, Ratios]) -> dict[str, Decimal]:
    """What New API charges for tokens, as the fields of a price. A field left out costs what `input` costs."""
    base = _times(maps["ModelRatio"][model], USD_PER_RATIO)
    written = _times(base, maps["CreateCacheRatio"].get(model, WRITE_RATIO))
    figures = {
        "input": base,
        "output": _times(base, completion_ratio(model, maps["CompletionRatio"])),
        "cache_write_5m": written,
        "cache_write_1h": _times(written, HOUR_RATIO),
    }
    for name, kind in (("CacheRatio", "cached_input"), ("ImageRatio", "input_image")):
        if model in maps[name]:
            figures[kind] = _times(base, maps[name][model])
    if model in maps["AudioRatio"] or model in maps["AudioCompletionRatio"]:
        heard = figures["input_audio"] = _times(base, maps["AudioRatio"].get(model, ONE))
        figures["output_audio"] = _times(heard, maps["AudioCompletionRatio"].get(model, ONE))
    return figures


def export_ratios(prices: Mapping[str, Price]) -> Exported:
    """
    The maps with which New API charges these prices. What it would charge otherwise is found by reading them again.

    A pattern (`gpt-4.1-2025-*`) has no counterpart there and is left out; of a price with dates it is the one outside
    of all periods that is told.
    """
    maps: RatioMaps = {name: {} for name in MODEL_MAPS}
    unsaid: list[Unsaid] = []
    for model, price in prices.items():
        if model.endswith("*"):
            unsaid.append(Unsaid(model, "a pattern, left out"))
            continue
        for name, ratio in _entries(model, price):
            maps[name][model] = ratio
        unsaid.extend(_unsaid(model, price, maps))
    return Exported({name: entries for name, entries in maps.items() if entries}, tuple(unsaid))


def _entries(model: str, price: Price) -> Iterator[tuple[str, Decimal]]:
    per_call = price.per_call or price.per_image.get("default")
    if per_call:
        yield "ModelPrice", per_call
        return
    rates, base = price.rates, price.input
    if price.per_minute or (price.tools and not base):
        return
    yield "ModelRatio", _over(base, USD_PER_RATIO)
    if not base:
        return
    completion = _over(price.output, base)
    if completion != completion_ratio(model, {}):
        yield "CompletionRatio", completion
    cached = rates["cached_input"].usd
    if cached != base:
        yield "CacheRatio", _over(cached, base)
    if _writes(price) and (written := _over(rates["cache_write_5m"].usd, base)) != WRITE_RATIO:
        yield "CreateCacheRatio", written
    if price.input_image is not None:
        yield "ImageRatio", _over(price.input_image, base)
    if price.input_audio is not None or price.output_audio is not None:
        heard, spoken = rates["input_audio"].usd, rates["output_audio"].usd
        yield "AudioRatio", _over(heard, base)
        if heard:
            yield "AudioCompletionRatio", _over(spoken, heard)


def _unsaid(model: str, price: Price, maps: RatioMaps) -> Iterator[Unsaid]:
    """What the maps do not say of a price, or say otherwise."""
    for name, what in WITHOUT_A_RATIO.items():
        if getattr(price, name):
            yield Unsaid(model, what)
    if model in maps["ModelPrice"]:
        if any(price.rates[kind].usd for kind in _told(price)):
            yield Unsaid(model, "the prices of its tokens")
        return
    if model not in maps["ModelRatio"]:
        return
    figures = _figures(model, maps)
    for kind in _told(price):
        text = "output" if kind.startswith("output") else "input"
        theirs, ours = figures.get(kind, figures[text]), price.rates[kind].usd
        if theirs != ours:
            same = abs(theirs - ours) <= ours * ROUNDING
            if same:
                yield Unsaid(model, "rounded to 12 digits", f"{kind} is rounded")
            else:
                yield Unsaid(model, "another price there", f"{kind} costs {theirs:f} there and not {ours:f}")


def _told(price: Price) -> Iterator[PriceKind]:
    """The kinds to compare: those that the model is known to use."""
    yield from ("input", "output", "cached_input")
    if _writes(price):
        yield from ("cache_write_5m", "cache_write_1h")
    for kind in ("input_audio", "output_audio", "input_image", "output_image"):
        if getattr(price, kind) is not None:
            yield kind


def _writes(price: Price) -> bool:
    return price.cache_write_5m is not None or price.cache_write_1h is not None


def _times(left: Decimal, right: Decimal) -> Decimal:
    """The product without the zeros at its end, which would count as decimals."""
    return EXACT.normalize(EXACT.multiply(left, right))


def _over(left: Decimal, right: Decimal) -> Decimal:
    """The quotient: exact where it has at most 28 digits, else rounded to 12."""
    try:
        return LONGEST.divide(left, right)
    except Inexact:
        return ROUNDED.divide(left, right)


def _read(text: str) -> dict[str, object]:
    """The maps by New API's option names. Raises `PriceError`."""

    def refuse(constant: str) -> NoReturn:
        raise PriceError("*", "file", f"{constant} is not a number")

    def read(text: str, what: str) -> dict[str, object]:
        try:
            document = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse)
        except (json.JSONDecodeError, RecursionError) as error:
            raise PriceError("*", what, f"not JSON: {error}") from None
        except InvalidOperation:
            raise PriceError("*", what, "a number has an exponent beyond all bounds") from None
        if not isinstance(document, dict):
            raise PriceError("*", what, "must be a JSON object")
        return cast("dict[str, object]", document)

    maps: dict[str, object] = {}
    for key, entries in read(text, "file").items():
        name = SPELLINGS.get(key, key)
        if name not in MODEL_MAPS + GROUP_MAPS:
            raise PriceError("*", key, f"unknown map; there are {', '.join(MODEL_MAPS + GROUP_MAPS)}")
        maps[name] = read(entries, name) if isinstance(entries, str) else entries
    return maps


def _ratios(name: str, entries: object) -> dict[str, Decimal]:
    if not isinstance(entries, dict):
        raise PriceError("*", name, "must be an object of numbers")
    ratios: dict[str, Decimal] = {}
    for model, ratio in cast("dict[str, object]", entries).items():
        if not isinstance(ratio, Decimal):
            raise PriceError(model, name, f"must be a number without quotes, not {ratio!r}")
        if ratio < 0:
            raise PriceError(model, name, f"must not be negative, but is {ratio}")
        ratios[model] = ratio
    return ratios
