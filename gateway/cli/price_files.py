"""Prices from and to files: rows of a price file, and New API's ratio maps."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ...config.channel import LONGEST_MODEL
from ...config.groups import GROUP_GROUP_RATIO, GROUP_RATIO, GroupRatios, dump_exact
from ...config.price_book import PriceBook
from ...config.price_text import row_of, to_toml
from ...config.pricing import Price, PriceError
from ...config.ratios import Imported, Unsaid, export_ratios, import_ratios
from ..store import Store, Transaction, groups, options, prices
from .failures import Failure, Usage
from .moments import now_ms
from .output import clean, counted, tell
from .session import opened_store

MOST_BYTES = 16 * 1024 * 1024
FEW = 10
"""Of so many models each is named at a terminal; of more there are examples."""
EXAMPLES = 3


async def import_prices(arguments: Namespace) -> int:
    """Store every price of a file, or none of them."""
    text = read_input(arguments.file)
    try:
        found = _read(text, arguments.format or ("ratios" if text.lstrip().startswith("{") else "toml"), arguments.file)
        rows = {model: to_toml({model: replace(price, model=model)}) for model, price in found.prices.items()}
        for model, row in rows.items():  # what is stored must be what the relay can read
            _check_name(model)
            PriceBook.load(row)
    except PriceError as error:
        problem = error.problem if error.field == "file" else error
        raise Failure(f"{arguments.file}: {problem}; nothing was imported") from None
    shipped = {model for model, price in PriceBook.builtin().prices.items() if _is_as(price, found.prices.get(model))}
    async with opened_store(arguments, create=True) as store:
        # What replaces a price of one's own is never left out.
        skipped = shipped - {row.model for row in await prices.list_all(store)}
        rows = {model: row for model, row in rows.items() if model not in skipped}
        await store.run(lambda transaction: _put(transaction, rows, found.groups))
    if not arguments.json:  # the document has them all
        _warn_of_left_out(found.left_out)
    document = {
        "imported": sorted(rows),
        "as_shipped": sorted(skipped),
        "options": sorted(found.groups),
        "left_out": list(found.left_out),
    }
    said = counted(len(rows), "price is set", "prices are set")
    if found.groups:
        said += f", and {' and '.join(found.groups)}"
    if skipped:
        said += "; " + counted(len(skipped), "is as shipped, and stays so", "are as shipped, and stay so")
    return tell(arguments, document, f"{said}.")


def _is_as(shipped: Price, price: Price | None) -> bool:
    """Whether it is the shipped price, wherever it comes from."""
    if price is None:
        return False
    # In dollars, as it is stored: the currency that it is published in is told of the shipped one only.
    return to_toml({"": replace(price, source=shipped.source, checked=shipped.checked)}) == to_toml({"": shipped})


async def _put(transaction: Transaction, rows: Mapping[str, str], ratios: Mapping[str, str]) -> None:
    moment = now_ms()
    await prices.put_many(transaction, rows, now_ms=moment)
    if ratios:
        await options.set_many(transaction, ratios, now_ms=moment)


def _read(text: str, format: str, source: str) -> Imported:
    if format == "ratios":
        origin = "New API's ratios" if source == "-" else f"New API's ratios, {Path(source).name}"
        return import_ratios(text, source=origin, checked=datetime.now(UTC).date())
    return Imported(PriceBook.load(text).prices, {})


def _check_name(model: str) -> None:
    if not 1 <= len(model) <= LONGEST_MODEL or not model.isprintable():
        raise PriceError(model, "model", f"must be a name of 1 to {LONGEST_MODEL} printable characters")


async def export_prices(arguments: Namespace, book: Mapping[str, Price]) -> int:
    """
    Print these prices; as ratios with those of the groups, and what they cannot say to standard error.

    Of many models that is one line for each kind of thing. `--json` has each named: standard output is JSON anyway.
    """
    if arguments.format == "toml" and arguments.json:
        print(dump_exact({"models": {model: row_of(price) for model, price in book.items()}}), flush=True)
        return 0
    if arguments.format == "toml":
        print(to_toml(book), end="", flush=True)
        return 0
    async with opened_store(arguments) as store:
        given = await _group_options(store)
    exported = export_ratios(book)
    print(dump_exact({**exported.maps, **given}), flush=True)
    models = tuple(dict.fromkeys(each.model for each in exported.unsaid))
    if arguments.json or len(models) <= FEW:
        for model in models:
            _warn(f"not told of {model}: {', '.join(each.words for each in exported.unsaid if each.model == model)}")
    else:
        _warn(f"New API's ratios do not say all of {len(models)} models; --format toml does, and --json names each:")
        _warn_by_kind(exported.unsaid)
    return 0


def _warn_by_kind(unsaid: tuple[Unsaid, ...]) -> None:
    models: dict[str, dict[str, None]] = {}
    for each in unsaid:
        models.setdefault(each.what, {})[each.model] = None
    for what, those in sorted(models.items(), key=lambda item: -len(item[1])):
        _warn(f"{what}: {len(those)} models, such as {', '.join([*those][:EXAMPLES])}")


def _warn_of_left_out(sentences: tuple[str, ...]) -> None:
    for sentence in sentences[:FEW]:
        _warn(f"left out: {sentence}")
    if (more := len(sentences) - FEW) > 0:
        _warn(f"left out: {more} more; --json names all")


async def _group_options(store: Store) -> Mapping[str, object]:
    ratios = GroupRatios.from_options(await options.list_all(store))
    own = {group.name: group.ratio for group in await groups.list_all(store)}
    maps: dict[str, object] = {GROUP_RATIO: {**ratios.ratios, **own}}
    return maps | ({GROUP_GROUP_RATIO: ratios.special} if ratios.special else {})


def _warn(sentence: str) -> None:
    print(f"tollway: warning: {clean(sentence)}", file=sys.stderr)


def read_input(name: str) -> str:
    """The text of a file, or of standard input for "-". Raises `Failure`, `Usage`."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise Usage(f"argument FILE: must be at most {MOST_BYTES // (1024 * 1024)} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Usage("argument FILE: must be text in UTF-8") from None
