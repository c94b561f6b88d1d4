"""
Reads the rows of a price file.

`[sources]` names the pages prices come from, `[currencies]` other currencies than the dollar, and `[models]` has a row
per model: the fields of `Price`, a `source` (a name from `[sources]`, or the text itself), the date it was `checked`,
and optionally `also` (a list of further names at the same price), `tiers`, `tools`, `dated`, `currency`. Whatever is
unknown, of another type or out of range is refused with the row and the field.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import cast

from .amounts import EXACT, ZERO
from .price import FALLING_BACK, ONE, OWN_PRICES, TIER_FIELDS, Price, PriceError, PricePeriod, Tier

TEXT_FIELDS = frozenset({"input", "output"})
UNIT_FIELDS = frozenset({*OWN_PRICES, *FALLING_BACK})
FIGURES = UNIT_FIELDS | {"per_image", "prompt_cache_ratio", "tools", "tiers"}
"""Fields of a row, and of a period in it."""
ABOUT = frozenset({"source", "checked"})
ROW_FIELDS = FIGURES | ABOUT | {"also", "currency", "dated", "max_output"}
PERIOD_FIELDS = FIGURES | ABOUT | {"from", "until"}
SECTIONS = ("sources", "currencies", "models")

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Currency:
    name: str = "USD"
    usd: Decimal = ONE
    """What one unit of it is worth in dollars."""


DOLLAR = _Currency()


def read_rows(document: Fields) -> dict[str, Price]:
    """The prices in a parsed price file, by name; those under `also` as well. Raises `PriceError`."""
    unknown = document.keys() - set(SECTIONS)
    if unknown:
        raise PriceError("*", min(unknown), "unknown section; there are [sources], [currencies] and [models]")
    sources, currencies, models = (_table("*", name, document.get(name, {})) for name in SECTIONS)
    known = {name: _currency(name, row) for name, row in currencies.items()}
    prices: dict[str, Price] = {}
    for model, row in models.items():
        price = read_row(model, row, sources, known)
        for name in (model, *_names(model, _table(model, "row", row).get("also", []))):
            if name in prices:
                raise PriceError(name, "model", f"has two prices; the other is in the row of {prices[name].model!r}")
            prices[name] = price
    return prices


def read_row(model: str, row: object, sources: Fields, currencies: Mapping[str, _Currency]) -> Price:
    """The price in one row. Raises `PriceError`."""
    fields = _known_fields(model, row, ROW_FIELDS)
    currency = _currency_of(model, fields, currencies)
    source, checked = _source(model, fields.get("source"), sources), _checked(model, fields.get("checked"))
    periods: list[PricePeriod] = []
    for number, each in enumerate(_list(model, "dated", fields.get("dated", [])), 1):
        try:
            periods.append(_period(model, each, currency, source, checked, sources))
        except PriceError as error:
            raise PriceError(model, f"dated.{number}.{error.field}", error.problem) from None
    return _price(model, fields, currency, source, checked, periods=tuple(periods))


def _price(
    model: str,
    fields: Fields,
    currency: _Currency,
    source: str,
    checked: date,
    *,
    periods: tuple[PricePeriod, ...] = (),
) -> Price:
    """The price that these fields give."""
    if not fields.keys() & (UNIT_FIELDS | {"per_image", "tools"}):
        raise PriceError(model, "input", "the row has no price; write 0 for what is free")
    if len(fields.keys() & TEXT_FIELDS) == 1:
        missing = min(TEXT_FIELDS - fields.keys())
        raise PriceError(model, missing, "missing beside its counterpart; write 0 if it is free")

    def figures(prefix: str, table: Fields) -> dict[str, Decimal]:
        return {name: _usd(model, f"{prefix}{name}", value, currency) for name, value in table.items()}

    units = figures("", {name: value for name, value in fields.items() if name in UNIT_FIELDS})
    per_image = fields.get("per_image", {})
    if not isinstance(per_image, dict):
        per_image = {"default": _usd(model, "per_image", per_image, DOLLAR)}
    ratio = fields.get("prompt_cache_ratio")
    return Price(
        model=model,
        input=units.get("input", ZERO),
        output=units.get("output", ZERO),
        cached_input=units.get("cached_input"),
        cache_write_5m=units.get("cache_write_5m"),
        cache_write_1h=units.get("cache_write_1h"),
        input_audio=units.get("input_audio"),
        output_audio=units.get("output_audio"),
        input_image=units.get("input_image"),
        output_image=units.get("output_image"),
        per_minute=units.get("per_minute", ZERO),
        per_call=units.get("per_call", ZERO),
        per_image=figures("per_image.", cast("Fields", per_image)),
        source=source,
        checked=checked,
        prompt_cache_ratio=None if ratio is None else _number(model, "prompt_cache_ratio", ratio),
        tools=figures("tools.", _table(model, "tools", fields.get("tools", {}))),
        tiers=_tiers(model, fields.get("tiers", []), figures),
        periods=periods,
        max_output=cast("int | None", fields.get("max_output")),
        currency=currency.name,
        usd_per_unit=currency.usd,
    )


def _tiers(model: str, value: object, figures: Callable[[str, Fields], dict[str, Decimal]]) -> tuple[Tier, ...]:
    tiers: list[Tier] = []
    for number, each in enumerate(_list(model, "tiers", value), 1):
        fields = _known_fields(model, each, TIER_FIELDS | {"above"}, prefix=f"tiers.{number}.")
        if len(fields.keys() - {"above"}) == 0 or "above" not in fields:
            raise PriceError(model, f"tiers.{number}", "needs an above, and the prices that hold there")
        above = cast("int", fields["above"])
        tiers.append(
            Tier(above, figures(f"tiers.{number}.", {name: fields[name] for name in fields if name != "above"}))
        )
    return tuple(tiers)


def _period(model: str, value: object, currency: _Currency, source: str, checked: date, sources: Fields) -> PricePeriod:
    fields = _known_fields(model, value, PERIOD_FIELDS)
    if "source" in fields:
        source = _source(model, fields["source"], sources)
    if "checked" in fields:
        checked = _checked(model, fields["checked"])
    since, until = (_moment(model, name, fields.get(name)) for name in ("from", "until"))
    return PricePeriod(since, until, _price(model, fields, currency, source, checked))


def _moment(model: str, name: str, value: object) -> datetime | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PriceError(model, name, f"needs an offset from UTC, such as {value:%Y-%m-%dT%H:%M:%S}Z")
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value is None:
        return None
    raise PriceError(model, name, f"must be a date like 2026-10-14, without quotes, not {value!r}")


def _currency(name: str, row: object) -> _Currency:
    fields = _known_fields(name, row, ABOUT | {"usd"})
    _source(name, fields.get("source"), {})
    _checked(name, fields.get("checked"))
    usd = _number(name, "usd", fields.get("usd"))
    if name == "USD" or not usd.is_finite() or usd <= 0:
        raise PriceError(name, "usd", f"must be what one {name} is worth in dollars, above 0, not {usd}")
    return _Currency(name, usd)


def _currency_of(model: str, fields: Fields, currencies: Mapping[str, _Currency]) -> _Currency:
    name = fields.get("currency", DOLLAR.name)
    if name == DOLLAR.name:
        return DOLLAR
    if not isinstance(name, str) or name not in currencies:
        raise PriceError(model, "currency", f"must be USD or a name under [currencies], not {name!r}")
    return currencies[name]


def _source(model: str, value: object, sources: Fields) -> str:
    if not isinstance(value, str) or not value:
        raise PriceError(model, "source", "missing: say where the price is published")
    page = sources.get(value, value)
    if not isinstance(page, str) or not page:
        raise PriceError(model, "source", f"must be a text under [sources], not {page!r}")
    return page


def _checked(model: str, value: object) -> date:
    # A datetime is a date to isinstance.
    if not isinstance(value, date) or isinstance(value, datetime):
        raise PriceError(model, "checked", "missing: say when the price was checked, as a date like 2026-10-14")
    return value


def _usd(model: str, name: str, value: object, currency: _Currency) -> Decimal:
    figure = _number(model, name, value)
    # What is not finite is refused by `Price`, by its name.
    if currency is DOLLAR or not figure.is_finite():
        return figure
    try:
        return EXACT.multiply(figure, currency.usd)
    except ArithmeticError:
        raise PriceError(model, name, f"too large, or of too many digits, in {currency.name}: {value}") from None


def _number(model: str, name: str, value: object) -> Decimal:
    # A bool is an int to isinstance.
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    raise PriceError(model, name, f"must be a bare number in USD, without quotes, currency or unit, not {value!r}")


def _known_fields(model: str, row: object, known: frozenset[str], prefix: str = "") -> Fields:
    fields = _table(model, f"{prefix}row", row)
    unknown = fields.keys() - known
    if unknown:
        raise PriceError(model, f"{prefix}{min(unknown)}", "unknown field")
    return fields


def _table(model: str, name: str, value: object) -> Fields:
    if not isinstance(value, dict):
        raise PriceError(model, name, "must be a table of fields")
    return cast("Fields", value)


def _list(model: str, name: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise PriceError(model, name, f"must be a list of tables, each under [[models.{model!r}.{name}]]")
    return cast("list[object]", value)


def _names(model: str, value: object) -> list[str]:
    names = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise PriceError(model, "also", "must be a list of names")
    return cast("list[str]", names)
