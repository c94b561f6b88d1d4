"""How a price is shown: a JSON document, and lines for people."""

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Context, Decimal
from typing import Any, cast

from ...config.price import Price
from ...config.price_text import row_of

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

Document = Mapping[str, Any]


def figures(price: Price) -> dict[str, Any]:
    """The prices that were given, as decimal text: a JSON number would lose digits in many a reader."""
    row = cast("dict[str, Any]", _plain(row_of(price)))
    shown = {"input": "0", "output": "0"} | {name: row[name] for name in MEANINGS if name in row}
    shown |= {name: value for name, value in row.items() if name not in {*shown, "source", "checked"}}
    if price.currency != "USD":
        original = Context(prec=28).divide
        own = {name: f"{original(Decimal(shown[name]), price.usd_per_unit):f}" for name in MEANINGS if name in shown}
        shown |= {"currency": price.currency, "usd_per_unit": f"{price.usd_per_unit:f}", "original": own}
    return shown


def _plain(value: object) -> object:
    match value:
        case dict():
            return {name: _plain(each) for name, each in cast("dict[str, object]", value).items()}
        case list():
            return [_plain(each) for each in cast("list[object]", value)]
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case _:
            return value


def lines(document: Document) -> Iterator[str]:
    """The prices of such a document, a line each, under headings for longer prompts and other times."""
    original: Document = document.get("original", {})
    for name, meaning in MEANINGS.items():
        if name in document:
            was = f" ({original[name]} {document['currency']})" if name in original else ""
            yield f"  {document[name]:>10}  {meaning}{was}"
    if "prompt_cache_ratio" in document:
        yield f"  {document['prompt_cache_ratio']:>10}  of that for input read from a prompt cache"
    yield from (f"  {usd:>10}  per image made, {kind}" for kind, usd in document.get("per_image", {}).items())
    yield from (f"  {usd:>10}  per 1000 calls of {tool}" for tool, usd in document.get("tools", {}).items())
    for tier in document.get("tiers", ()):
        yield f"  When more than {tier['above']} tokens go in:"
        yield from (f"  {line}" for line in lines(tier))
    for period in document.get("dated", ()):
        times = [f"{word} {period[word]}" for word in ("from", "until") if word in period]
        yield f"  {' '.join(times).capitalize()}:"
        yield from (f"  {line}" for line in lines(period))


def left_out(shipped: Document, own: Document) -> list[str]:
    """What a shipped price charges apart and your own in its place does not, as the flags that would say it."""
    if Decimal(own["input"]) == Decimal(own["output"]) == 0:
        return []  # another kind of price, such as one per call
    lost = [
        f"--{name.replace('_', '-')} {shipped[name]}"
        for name in MEANINGS
        if name in shipped and name not in own and not (name == "cached_input" and "prompt_cache_ratio" in own)
    ]
    for field, flag in (("per_image", "--per-image"), ("tools", "--tool")):
        kept: Document = own.get(field, {})
        lost += [f"{flag} {kind}={usd}" for kind, usd in shipped.get(field, {}).items() if kind not in kept]
    lost += [f"other prices above {tier['above']} tokens" for tier in shipped.get("tiers", ())]
    return lost + (["other prices at other times"] if shipped.get("dated") else [])


def others(document: Document) -> str:
    """Everything beside input and output, in short."""
    parts = [f"{name} {document[name]}" for name in MEANINGS if name in document and name not in ("input", "output")]
    parts += [f"cached {document['prompt_cache_ratio']} of input"] if "prompt_cache_ratio" in document else []
    parts += [f"image {kind} {usd}" for kind, usd in document.get("per_image", {}).items()]
    parts += [f"{tool} {usd}" for tool, usd in document.get("tools", {}).items()]
    parts += [f"above {tier['above']} others" for tier in document.get("tiers", ())]
    return ", ".join(parts + (["dated"] if document.get("dated") else []))
