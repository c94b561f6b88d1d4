"""`tollway price`: an operator's own prices, which go before the shipped ones."""

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ...adapters.suffix import parse_model
from ...config.price_book import TEXT_FIELDS, UNIT_FIELDS, PriceBook
from ...config.pricing import Price, PriceError
from ..store import Store, prices
from ..store.records import PriceRow
from .arguments import Parser, command, group
from .failures import Failure, Usage
from .output import clean, iso, table, tell
from .session import now_ms, opened_store

LONGEST_MODEL = 255
MEANINGS = {
    "input": "per million tokens in",
    "output": "per million tokens out",
    "cached_input": "per million tokens read from a prompt cache",
    "cache_write_5m": "per million tokens written to a cache for five minutes",
    "cache_write_1h": "per million tokens written to a cache for an hour",
    "input_audio": "per million audio tokens in",
    "output_audio": "per million audio tokens out",
    "input_image": "per million image tokens in",
    "output_image": "per million image tokens out",
    "per_minute": "per minute of audio",
    "per_call": "per request, whatever it holds",
}
"""The fields of a price, in the order in which they are shown. All are US dollars."""


def parser() -> Parser:
    parser, commands = group("tollway price", "Prices in US dollars: the shipped ones, and your own before them.")
    showing = command(commands, "show", show_price, "show the price that a request for a model has")
    showing.add_argument("model", metavar="MODEL", help="the model's name, as clients send it")
    listing = command(commands, "list", list_prices, "list your own prices, or all")
    listing.add_argument("--all", action="store_true", help="also the shipped ones that yours do not replace")
    setting = command(commands, "set", set_price, "set the price of a model")
    setting.add_argument("model", metavar="MODEL", help="the model's name; with a * at its end, all that begin so")
    for field, meaning in MEANINGS.items():
        setting.add_argument(f"--{field.replace('_', '-')}", type=usd, metavar="USD", help=meaning)
    setting.add_argument(
        "--per-image",
        type=per_image,
        action="append",
        metavar="[KIND=]USD",
        help="per image made; KIND is a size, a quality or both (1024x1024/hd); may be repeated",
    )
    setting.add_argument(
        "--source", type=source, default="set by an operator", metavar="TEXT", help="where the price comes from"
    )
    unsetting = command(commands, "unset", unset_price, "give a model its shipped price again")
    unsetting.add_argument("model", metavar="MODEL", help="the model's name, as it was set")
    return parser


def usd(text: str) -> Decimal:
    try:
        value = Decimal(text)
        Price("model", per_call=value)
    except (InvalidOperation, PriceError):
        raise ArgumentTypeError(f"must be a price in US dollars, such as 0.15, not {text!r}") from None
    return value


def per_image(text: str) -> tuple[str, Decimal]:
    kind, _, price = text.rpartition("=")
    return kind or "default", usd(price)


def source(text: str) -> str:
    if not text or not text.isprintable():
        raise ArgumentTypeError("must be printable text")
    return text


async def effective_prices(store: Store) -> PriceBook:
    """The prices that the relay uses: your own over the shipped ones. Raises `Failure`."""
    rows = await prices.list_all(store)
    return PriceBook.builtin().merged({model: price for row in rows for model, price in _own(row).items()})


async def show_price(arguments: Namespace) -> int:
    model: str = arguments.model
    async with opened_store(arguments) as store:
        price = (await effective_prices(store)).price_for(model, parse_model(model).base)
        own = {name for row in await prices.list_all(store) for name in _own(row)}
    if price is None:
        raise Failure(f"the model {model!r} has no price, so it is not served; see tollway price set")
    document: dict[str, Any] = {
        "model": model,
        "priced_as": price.model,
        **_figures(price),
        "source": price.source,
        "checked": price.checked,
        "own": price.model in own,
    }
    lines = [f"{model}, in US dollars" + ("" if price.model == model else f", at the price of {price.model}") + ":"]
    lines += [f"  {document[field]:>10}  {meaning}" for field, meaning in MEANINGS.items() if field in document]
    lines += [f"  {usd:>10}  per image made, {kind}" for kind, usd in document.get("per_image", {}).items()]
    lines.append(f"{'Your own' if document['own'] else 'Shipped'}: {price.source}, checked {price.checked}.")
    return tell(arguments, document, "\n".join(map(clean, lines)))


async def list_prices(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        rows = await prices.list_all(store)
    found: dict[str, Price] = dict(PriceBook.builtin().prices) if arguments.all else {}
    own = {model: price for row in rows for model, price in _own(row).items()}
    set_at = {row.model: row.updated_at for row in rows}
    documents = [
        {"model": model, **_figures(price), "source": price.source, "set_at": iso(set_at.get(model))}
        for model, price in sorted({**found, **own}.items())
    ]
    headings = ("model", "input", "output", "other prices", "source")
    text = table(headings, map(_line, documents), empty="There are no prices of your own.")
    return tell(arguments, documents, text)


def _own(row: PriceRow) -> Mapping[str, Price]:
    try:
        return PriceBook.load(row.price).prices
    except PriceError as error:
        raise Failure(f"the stored price of {row.model!r} cannot be used: {error}; see tollway price unset") from None


async def set_price(arguments: Namespace) -> int:
    model: str = arguments.model
    if not 1 <= len(model) <= LONGEST_MODEL or not model.isprintable():
        raise Usage(f"argument MODEL: must be a name of 1 to {LONGEST_MODEL} printable characters")
    text = _toml(model, arguments)
    try:
        price = PriceBook.load(text).prices[model]
    except PriceError as error:
        field = error.field.partition(".")[0]
        flag = f"--{field.replace('_', '-')}" if field in UNIT_FIELDS | {"per_image"} else "MODEL"
        raise Usage(f"argument {flag}: {error}") from None
    async with opened_store(arguments, create=True) as store:
        await prices.put(store, model, text, now_ms=now_ms())
    return tell(arguments, {"model": model, **_figures(price)}, f"The price of {model} is set.")


async def unset_price(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        if not await prices.delete(store, arguments.model, now_ms=now_ms()):
            raise Failure(f"the model {arguments.model!r} has no price of your own")
    return tell(arguments, {"model": arguments.model, "status": "unset"}, f"{arguments.model} has its shipped price.")


def _toml(model: str, arguments: Namespace) -> str:
    """The price as a row of a price book. A JSON string without escapes beyond ASCII is a TOML string as well."""
    figures = {field: getattr(arguments, field) for field in MEANINGS if getattr(arguments, field) is not None}
    if len(figures.keys() & TEXT_FIELDS) == 1:
        # Whoever prices only what goes in, as for embeddings, means that what comes out is free.
        figures = {field: Decimal(0) for field in TEXT_FIELDS} | figures
    lines = [f"[models.{_quoted(model)}]", *(f"{field} = {value:f}" for field, value in figures.items())]
    if arguments.per_image:
        kinds = ", ".join(f"{_quoted(kind)} = {price:f}" for kind, price in dict(arguments.per_image).items())
        lines.append(f"per_image = {{ {kinds} }}")
    lines += [f"source = {_quoted(arguments.source)}", f"checked = {datetime.now(UTC).date().isoformat()}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _figures(price: Price) -> dict[str, Any]:
    """The prices that were given, as decimal text: a JSON number would lose digits in many a reader."""
    given = {field: value for field in MEANINGS if (value := getattr(price, field)) is not None and value}
    figures: dict[str, Any] = {"input": "0", "output": "0"} | {field: f"{value:f}" for field, value in given.items()}
    if price.per_image:
        figures["per_image"] = {kind: f"{value:f}" for kind, value in price.per_image.items()}
    return figures


def _line(document: Mapping[str, Any]) -> tuple[object, ...]:
    plain = {"model", "input", "output", "source", "set_at", "per_image"}
    others = [f"{field} {value}" for field, value in document.items() if field not in plain]
    others += [f"image {kind} {value}" for kind, value in document.get("per_image", {}).items()]
    return document["model"], document["input"], document["output"], ", ".join(others), document["source"]
