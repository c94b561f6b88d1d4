"""What a call that was charged would cost at another price. The difference becomes a new event: no record is edited."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol, cast

from .amounts import ZERO
from .price import ONE, TOOLS, Price
from .tariff import Tariff
from .usage import ToolCalls, Usage

INPUT_PARTS = {
    "cached_input": "cached_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": "input_audio_tokens",
    "input_image": "input_image_tokens",
}
OUTPUT_PARTS = {"output_audio": "output_audio_tokens", "output_image": "output_image_tokens"}


class Charged(Protocol):
    """A record of a charge. `breakdown` is the bill that `Tariff.bill` made, or empty where the model had no price."""

    @property
    def quota(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def breakdown(self) -> Mapping[str, Any]: ...


def reprice(record: Charged, price: Price) -> int:
    """
    The quota that the call would have cost more at this price; below 0, less.

    The ratio of the group and that of cached input stay what they were on the day; `price` is the one to be in force at
    the time of the call, so a price with dates has to be asked for it (`Price.at`). Units of kinds that had no price
    then, such as calls of a tool, were not recorded and cost nothing here either.
    """
    return tariff_of(record, price).quota(billed_usage(record)) - record.quota


def tariff_of(record: Charged, price: Price) -> Tariff:
    """This price at the ratios that a record was charged at."""
    bill = record.breakdown
    cache_ratio = bill.get("cache_ratio")
    return Tariff(price, Decimal(bill.get("group_ratio", ONE)), None if cache_ratio is None else Decimal(cache_ratio))


def billed_usage(record: Charged) -> Usage:
    """The usage that a record was charged for."""
    bill = record.breakdown
    if not bill:
        cached = min(record.cached_tokens, record.input_tokens)
        return Usage(record.input_tokens, record.output_tokens, cached)

    def units(kind: str) -> int:
        return int(bill[kind][0]) if kind in bill else 0

    inputs = {field: units(kind) for kind, field in INPUT_PARTS.items()}
    outputs = {field: units(kind) for kind, field in OUTPUT_PARTS.items()}
    return Usage(
        units("input") + sum(inputs.values()),
        units("output") + sum(outputs.values()),
        **cast("Any", inputs | outputs),
        images=units("per_image"),
        seconds=Decimal(bill["per_minute"][0]) if "per_minute" in bill else ZERO,
        image_size=bill.get("image_size", ""),
        image_quality=bill.get("image_quality", ""),
        tool_calls=cast("ToolCalls", tuple((tool, units(tool)) for tool in sorted(TOOLS) if tool in bill)),
    )
