"""The price that long-lived work is admitted at, and what a stored bill costs at another price."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Self, cast

from .price import ONE, Price, Tier, check_cache_ratio, given_figures
from .tariff import Tariff

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PriceSnapshot:
    """
    The price that a task or a session was admitted at, which it keeps however long it lasts.

    `price`: the one in force then, without the dates of others. `ratio`: the group's. `cache_ratio`: the share of input
    that cached input costs, instead of what the price says.
    """

    price: Price
    ratio: Decimal = ONE
    cache_ratio: Decimal | None = None

    @classmethod
    def of(cls, tariff: Tariff) -> Self:
        return cls(replace(tariff.price, periods=()), tariff.ratio, tariff.cache_ratio)

    def tariff(self) -> Tariff:
        """What charges by this snapshot; it is worth keeping."""
        return Tariff(self.price, self.ratio, self.cache_ratio)

    def to_json(self) -> str:
        """As JSON text. Figures are strings: many a reader of JSON keeps 15 digits of a number."""
        document: dict[str, Any] = {"price": _written(self.price), "ratio": str(self.ratio)}
        if self.cache_ratio is not None:
            document["cache_ratio"] = str(self.cache_ratio)
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The snapshot that `to_json` wrote. Raises `ValueError` for anything else."""
        try:
            document = json.loads(text)
            cache_ratio = document.get("cache_ratio")
            return cls(
                _read(document["price"]),
                Decimal(document["ratio"]),
                None if cache_ratio is None else check_cache_ratio(Decimal(cache_ratio)),
            )
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"this is no price snapshot: {type(error).__name__}: {error}") from None


def _written(price: Price) -> Document:
    return {
        "model": price.model,
        "figures": _texts(dict(given_figures(price))),
        "per_image": _texts(price.per_image),
        "tools": _texts(price.tools),
        "tiers": [{"above": tier.above, "figures": _texts(tier.figures)} for tier in price.tiers],
        "max_output": price.max_output,
        "source": price.source,
        "checked": None if price.checked is None else price.checked.isoformat(),
        "currency": price.currency,
        "usd_per_unit": str(price.usd_per_unit),
    }


def _read(document: Document) -> Price:
    checked: str | None = document["checked"]
    return Price(
        document["model"],
        **cast("Any", _figures(document["figures"])),
        per_image=_figures(document["per_image"]),
        tools=_figures(document["tools"]),
        tiers=tuple(Tier(tier["above"], _figures(tier["figures"])) for tier in document["tiers"]),
        max_output=document["max_output"],
        source=document["source"],
        checked=None if checked is None else date.fromisoformat(checked),
        currency=document["currency"],
        usd_per_unit=Decimal(document["usd_per_unit"]),
    )


def _texts(figures: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: str(figure) for name, figure in figures.items()}


def _figures(texts: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(text) for name, text in texts.items()}
