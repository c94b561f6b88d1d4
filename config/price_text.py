"""Prices as rows of a price file: what is written here gives an equal price when `price_rows.py` reads it."""

import json
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, cast

from .price import Price, PricePeriod, given_figures
from .price_rows import TEXT_FIELDS

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Row = dict[str, Any]


def to_toml(prices: Mapping[str, Price]) -> str:
    """A price file with these prices, in dollars. A price needs its `source` and the date it was `checked`."""
    return "\n".join(_section(model, row_of(price)) for model, price in prices.items())


def row_of(price: Price) -> Row:
    """The fields of a row that gives this price, in dollars: numbers, dates, text, and tables of them."""
    row: Row = _figures(price)
    if price.max_output is not None:
        row["max_output"] = price.max_output
    if price.periods:
        row["dated"] = [_period_row(period) for period in price.periods]
    return row | {"source": price.source, "checked": price.checked}


def _figures(price: Price) -> Row:
    row: Row = dict(given_figures(price))
    if row.keys() & TEXT_FIELDS or not (row or price.per_image or price.tools):
        row = {"input": price.input, "output": price.output} | row
    if price.per_image:
        row["per_image"] = dict(price.per_image)
    if price.tools:
        row["tools"] = dict(price.tools)
    if price.tiers:
        row["tiers"] = [{"above": tier.above, **tier.figures} for tier in price.tiers]
    return row


def _period_row(period: PricePeriod) -> Row:
    times = {"from": period.since, "until": period.until}
    about = {"source": period.price.source, "checked": period.price.checked}
    return {name: time for name, time in times.items() if time is not None} | _figures(period.price) | about


def _section(model: str, row: Row) -> str:
    lines = (f"{name} = {_toml(value)}\n" for name, value in row.items())
    return f"[models.{_quoted(model)}]\n{''.join(lines)}"


def _toml(value: object) -> str:
    match value:
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case dict():
            fields = cast("Row", value).items()
            return "{ " + ", ".join(f"{_key(name)} = {_toml(each)}" for name, each in fields) + " }"
        case list():
            return "[" + ", ".join(map(_toml, cast("list[object]", value))) + "]"
        case str():
            return _quoted(value)
        case _:
            return str(value)


def _key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """A string of JSON is one of TOML as well, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
