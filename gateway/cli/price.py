"""`tollway price`: an operator's own prices, which go before the shipped ones."""

import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ...adapters.requests.model_suffix import parse_model
from ...config.channel import LONGEST_MODEL
from ...config.price import TIER_FIELDS, TOOLS
from ...config.price_book import PriceBook
from ...config.price_text import to_toml
from ...config.pricing import Price, PriceError
from ..store import prices
from .arguments import Parser, cache_ratio, command, group
from .failures import Failure, Usage
from .moments import now_ms
from .output import clean, iso, table, tell, tell_with_warnings
from .own_prices import effective_prices, own_prices, read_prices
from .price_files import export_prices, import_prices
from .price_view import MEANINGS, figures, left_out, lines, others
from .reprice import add_reprice
from .session import opened_store


def parser() -> Parser:
    parser, commands = group("tollway price", "Prices in US dollars: the shipped ones, and your own before them.")
    showing = command(commands, "show", show_price, "show the price that a request for a model has")
    showing.add_argument("model", metavar="MODEL", help="the model's name, as clients send it")
    listing = command(commands, "list", list_prices, "list your own prices, or all")
    listing.add_argument("--all", action="store_true", help="also the shipped ones that yours do not replace")
    setting = command(
        commands,
        "set",
        set_price,
        "set a price of your own, which replaces a shipped one whole; where there is one, change what the flags name",
    )
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
    setting.add_argument("--source", type=source, metavar="TEXT", help="where the price comes from")
    setting.add_argument(
        "--prompt-cache-ratio",
        type=cache_ratio,
        metavar="R",
        help="what a cached input token costs, as a share of an input token (0 to 1); in place of --cached-input",
    )
    setting.add_argument(
        "--tool",
        type=tool,
        action="append",
        metavar="NAME=USD",
        help=f"per 1000 calls of a vendor's tool ({', '.join(TOOLS)}); may be repeated",
    )
    unsetting = command(commands, "unset", unset_price, "take your own price away; a shipped one counts again")
    unsetting.add_argument("model", metavar="MODEL", help="the model's name, as it was set")
    importing = command(commands, "import", import_prices, "set the prices in a file: all of them, or none")
    importing.add_argument("file", metavar="FILE", help="a price file or New API's ratios; - for standard input")
    importing.add_argument(
        "--format", choices=("ratios", "toml"), help="what it is. Default: told by its first character"
    )
    exporting = command(commands, "export", export, "print all prices, shipped and your own")
    exporting.add_argument("--format", choices=("ratios", "toml"), default="toml", help="Default: toml")
    exporting.add_argument("--own", action="store_true", help="only your own")
    add_reprice(commands)
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


def tool(text: str) -> tuple[str, Decimal]:
    name, _, price = text.partition("=")
    if name not in TOOLS:
        raise ArgumentTypeError(f"must be NAME=USD with a name out of {', '.join(TOOLS)}, not {text!r}")
    return name, usd(price)


def source(text: str) -> str:
    if not text or not text.isprintable():
        raise ArgumentTypeError("must be printable text")
    return text


async def show_price(arguments: Namespace) -> int:
    model: str = arguments.model
    async with opened_store(arguments) as store:
        own = await own_prices(store)
    listed = PriceBook.builtin().merged(own).price_for(model, parse_model(model).base)
    if listed is None:
        raise Failure(f"the model {model!r} has no price, so it is not served; see tollway price set")
    price = listed.at(time.time())
    document: dict[str, Any] = {
        "model": model,
        "priced_as": price.model,
        **figures(listed if price is listed else replace(price, periods=listed.periods)),
        "source": price.source,
        "checked": price.checked,
        "own": price.model in own,
    }
    head = f"{model}, in US dollars" + ("" if price.model == model else f", at the price of {price.model}") + ":"
    shown = [head, *lines(document)]
    shown.append(f"{'Your own' if document['own'] else 'Shipped'}: {price.source}, checked {price.checked}.")
    return tell(arguments, document, "\n".join(map(clean, shown)))


async def list_prices(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        rows = await prices.list_all(store)
    found: dict[str, Price] = dict(PriceBook.builtin().prices) if arguments.all else {}
    own = read_prices(rows)
    set_at = {row.model: row.updated_at for row in rows}
    documents = [
        {"model": model, **figures(price), "source": price.source, "set_at": iso(set_at.get(model))}
        for model, price in sorted({**found, **own}.items())
    ]
    headings = ("model", "input", "output", "other prices", "source")
    text = table(headings, map(_line, documents), empty="There are no prices of your own.")
    return tell(arguments, documents, text)


async def set_price(arguments: Namespace) -> int:
    model: str = arguments.model
    if not 1 <= len(model) <= LONGEST_MODEL or not model.isprintable():
        raise Usage(f"argument MODEL: must be a name of 1 to {LONGEST_MODEL} printable characters")
    async with opened_store(arguments, create=True) as store:
        own = await own_prices(store)
        try:
            price = _price(own.get(model, Price(model)), arguments)
            text = to_toml({model: price})
            PriceBook.load(text)
        except PriceError as error:
            field = error.field.partition(".")[0]
            flag = (
                f"--{field.replace('_', '-')}" if field in {*MEANINGS, "per_image", "prompt_cache_ratio"} else "MODEL"
            )
            raise Usage(f"argument {flag}: {error}") from None
        await prices.put(store, model, text, now_ms=now_ms())
    dearer = price.cached_input is not None and price.cached_input > price.input
    warnings = ["input read from a cache costs more than other input"] if dearer else []
    document = {"model": model, **figures(price)}
    shipped = PriceBook.builtin().prices.get(model)
    if model not in own and shipped is not None and (lost := left_out(figures(shipped), document)):
        warnings.append(f"the shipped price, which yours replaces, also has {', '.join(lost)}")
    return tell_with_warnings(arguments, document, warnings, f"The price of {clean(model)} is set.")


async def export(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        own = await own_prices(store)
    return await export_prices(arguments, own if arguments.own else PriceBook.builtin().merged(own).prices)


async def unset_price(arguments: Namespace) -> int:
    model: str = arguments.model
    async with opened_store(arguments) as store:
        if not await prices.delete(store, model, now_ms=now_ms()):
            raise Failure(f"the model {model!r} has no price of your own")
        book = await effective_prices(store)
    now_priced = book.prices.get(model) if model.endswith("*") else book.price_for(model, parse_model(model).base)
    priced_as = None if now_priced is None else now_priced.model
    if priced_as == model:
        said = "has its shipped price."
    elif priced_as is not None:
        said = f"has the price of {priced_as}."
    elif model.endswith("*"):
        said = "is no longer a price: names that begin so and have none of their own are not served."
    else:
        said = "no longer has a price and is not served."
    document = {"model": model, "status": "unset", "priced_as": priced_as}
    return tell(arguments, document, f"{clean(model)} {said}")


def _price(before: Price, arguments: Namespace) -> Price:
    """The price with what the flags name. Raises `PriceError`."""
    given = {name: usd for name in MEANINGS if (usd := getattr(arguments, name)) is not None}
    if arguments.prompt_cache_ratio is not None:
        given |= {"cached_input": None} | given | {"prompt_cache_ratio": arguments.prompt_cache_ratio}
    elif "cached_input" in given:
        given["prompt_cache_ratio"] = None
    if not (given or arguments.per_image or arguments.tool):
        raise Usage("nothing to set: say what, such as --input")
    if before.tiers or before.periods:
        raise PriceError(before.model, "model", "has tiers or dates: change it in a file, and import that")
    if given.keys() & TIER_FIELDS and not (before.input or before.output):
        # Half a price would give the other half away.
        for name in ("input", "output"):
            if name not in given:
                raise PriceError(before.model, name, "is missing; write 0 for what is free")
    return replace(
        before,
        **given,
        per_image={**before.per_image, **dict(arguments.per_image or ())},
        tools={**before.tools, **dict(arguments.tool or ())},
        source=arguments.source or before.source or "set by an operator",
        checked=datetime.now(UTC).date(),
    )


def _line(document: Mapping[str, Any]) -> tuple[object, ...]:
    return document["model"], document["input"], document["output"], others(document), document["source"]
