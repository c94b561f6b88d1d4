"""
The price book: which price a model name has.

Prices are TOML, as `price_rows.py` describes. A name that ends in `*` stands for every name that begins so.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Self

from .price_rows import read_rows
from .pricing import Price, PriceError


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
        return cls(_parse(source.read_text(encoding="utf-8") if isinstance(source, Path) else source))

    @classmethod
    def load_all(cls, texts: Iterable[str]) -> Self:
        """A book from several TOML texts, in which no name may stand twice. Raises `PriceError`."""
        prices: dict[str, Price] = {}
        for text in texts:
            more = _parse(text)
            twice = prices.keys() & more.keys()
            if twice:
                raise PriceError(min(twice), "model", "has a price in two files")
            prices |= more
        return cls(prices)

    @classmethod
    def builtin(cls) -> Self:
        """The prices shipped with this release. It reads files: load it once and keep it."""
        folder = resources.files("tollway.config").joinpath("prices")
        files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
        return cls.load_all(file.read_text(encoding="utf-8") for file in files)

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


def _parse(text: str) -> dict[str, Price]:
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as exc:  # it bounds neither numbers nor depth
        raise PriceError("*", "file", f"not TOML: {exc}") from exc
    return read_rows(document)
