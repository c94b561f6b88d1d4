"""
The price book: which price a model name has.

Prices are TOML. `[sources]` names the pages prices come from, `[models]` has a row per model: the fields of `Price`,
a `source` (a name from `[sources]`, or the text itself), the date it was `checked`, and optionally `also`, a list of
further names at the same price. A name that ends in `*` stands for every name that begins so.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast

from .pricing import FALLING_BACK, OWN_PRICES, Price, PriceError

TEXT_FIELDS = frozenset({"input", "output"})
UNIT_FIELDS = frozenset({*OWN_PRICES, *FALLING_BACK})
OTHER_FIELDS = frozenset({"per_image", "source", "checked", "also"})


@dataclass(frozen=True, slots=True)
class PriceBook:
    """
    Prices by model name, and by pattern for names that end in `*`. Immutable: a change makes a new book.

    Raises `PriceError` on a name with a `*` anywhere but at its end.
    """

    prices: Mapping[str, Price]
    _patterns: Mapping[str, Price] = field(init=False, repr=False, compare=False)
    _pattern_lengths: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.prices:
            if not name or "*" in name[:-1]:
                raise PriceError(name, "model", "must be a name, with a * at its end at most")
        patterns = {name[:-1]: price for name, price in self.prices.items() if name.endswith("*")}
        object.__setattr__(self, "prices", MappingProxyType(dict(self.prices)))
        object.__setattr__(self, "_patterns", patterns)
        object.__setattr__(self, "_pattern_lengths", tuple(sorted({len(prefix) for prefix in patterns}, reverse=True)))

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """A book from TOML text, or from a file. Raises `PriceError`, which names the row and the field; `OSError`."""
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        try:
            document = tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as exc:
            raise PriceError("*", "file", f"not TOML: {exc}") from exc
        return cls(_parse(document))

    @classmethod
    def builtin(cls) -> Self:
        """The prices shipped with this release. It reads a file: load it once and keep it."""
        return cls.load(resources.files("tollway.config").joinpath("prices.toml").read_text(encoding="utf-8"))

    def merged(self, overrides: Mapping[str, Price]) -> Self:
        """A book in which these names have these prices and all others are as here."""
        return type(self)({**self.prices, **overrides})

    def price_for(self, model: str, base_model: str) -> Price | None:
        """
        The price of the name as the client sent it, else of `base_model`, the name without its suffix; None if unknown.

        Of the patterns that fit, the longest counts. A pattern longer than `base_model` was made for the suffix and
        goes before it; a shorter one (`gpt-*`) is a catch-all and does not hide the price of the base model.
        """
        exact = self.prices.get(model)
        if exact is not None:
            return exact
        sent_prefix = self._longest_prefix(model)
        if sent_prefix is None or len(sent_prefix) <= len(base_model):
            base = self.prices.get(base_model)
            if base is not None:
                return base
        prefix = self._longest_prefix(base_model) if sent_prefix is None else sent_prefix
        return None if prefix is None else self._patterns[prefix]

    def _longest_prefix(self, name: str) -> str | None:
        for length in self._pattern_lengths:
            if name[:length] in self._patterns:
                return name[:length]
        return None


def _parse(document: Mapping[str, Any]) -> dict[str, Price]:
    unknown = document.keys() - {"sources", "models"}
    if unknown:
        raise PriceError("*", min(unknown), "unknown section; there are [sources] and [models]")
    sources = document.get("sources", {})
    prices: dict[str, Price] = {}
    for model, row in document.get("models", {}).items():
        price = _parse_row(model, row, sources)
        for name in (model, *_names(model, row.get("also", []))):
            if name in prices:
                raise PriceError(name, "model", f"has two prices; the other is in the row of {prices[name].model!r}")
            prices[name] = price
    return prices


def _parse_row(model: str, row: object, sources: Mapping[str, object]) -> Price:
    if not isinstance(row, dict):
        raise PriceError(model, "row", "must be a table of fields")
    fields = cast("dict[str, object]", row)
    unknown = fields.keys() - UNIT_FIELDS - OTHER_FIELDS
    if unknown:
        raise PriceError(model, min(unknown), "unknown field")
    if not fields.keys() & (UNIT_FIELDS | {"per_image"}):
        raise PriceError(model, "input", "the row has no price; write 0 for what is free")
    if len(fields.keys() & TEXT_FIELDS) == 1:
        missing = min(TEXT_FIELDS - fields.keys())
        raise PriceError(model, missing, "missing beside its counterpart; write 0 if it is free")

    units = {name: _usd(model, name, fields[name]) for name in UNIT_FIELDS & fields.keys()}
    per_image = {
        name: _usd(model, f"per_image.{name}", usd) for name, usd in _image_table(model, fields.get("per_image", {}))
    }
    source = fields.get("source")
    if not isinstance(source, str) or not source:
        raise PriceError(model, "source", "missing: say where the price is published")
    checked = fields.get("checked")
    # A datetime is a date to isinstance.
    if not isinstance(checked, date) or isinstance(checked, datetime):
        raise PriceError(model, "checked", "missing: say when the price was checked, as a date like 2026-10-14")
    return Price(
        model=model,
        input=units.get("input", Decimal(0)),
        output=units.get("output", Decimal(0)),
        cached_input=units.get("cached_input"),
        cache_write_5m=units.get("cache_write_5m"),
        cache_write_1h=units.get("cache_write_1h"),
        input_audio=units.get("input_audio"),
        output_audio=units.get("output_audio"),
        input_image=units.get("input_image"),
        output_image=units.get("output_image"),
        per_minute=units.get("per_minute", Decimal(0)),
        per_call=units.get("per_call", Decimal(0)),
        per_image=per_image,
        source=str(sources.get(source, source)),
        checked=checked,
    )


def _usd(model: str, name: str, value: object) -> Decimal:
    # A bool is an int to isinstance.
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    raise PriceError(model, name, f"must be a bare number in USD, without quotes, currency or unit, not {value!r}")


def _image_table(model: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).items())
    return [("default", _usd(model, "per_image", value))]


def _names(model: str, value: object) -> list[str]:
    names = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise PriceError(model, "also", "must be a list of names")
    return cast("list[str]", names)
