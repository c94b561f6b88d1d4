"""What commands print: one JSON document, or text for people."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any


def tell(arguments: Namespace, document: Any, text: str) -> int:
    """Print the document where `--json` asks for it, else the text; exit status 0."""
    print(as_json(document) if arguments.json else text, flush=True)
    return 0


def tell_with_warnings(arguments: Namespace, document: dict[str, Any], warnings: Sequence[str], text: str) -> int:
    """The same, and what the operator may not have meant: in the document, else on standard error."""
    if not arguments.json:
        for warning in warnings:
            print(f"tollway: warning: {clean(warning)}", file=sys.stderr)
    return tell(arguments, document | {"warnings": list(warnings)}, text)


def as_json(document: Any) -> str:
    """One line of ASCII, whatever the terminal can show."""
    return json.dumps(document, default=str)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> str:
    """Columns under their headings, numbers to the right; `empty` where there is no row."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        return empty
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(headings))]
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [list(headings), *cells]
    )


def clean(value: object) -> str:
    """Text that cannot move the cursor: a client chooses the name of a model, and the operator's terminal shows it."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def counted(number: int, one: str, many: str) -> str:
    """The number, and what follows it: "1 charge waits", "2 charges wait"."""
    return f"{number} {one if number == 1 else many}"


def iso(milliseconds: int | None) -> str | None:
    """A time of the database as ISO 8601 in UTC, to the millisecond."""
    if milliseconds is None:
        return None
    when = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short(milliseconds: int | None) -> str:
    """The same to the second, for tables."""
    text = iso(milliseconds)
    return "-" if text is None else f"{text[:10]} {text[11:19]}"


def _is_number(text: str) -> bool:
    return text.lstrip("-$").replace(".", "", 1).isdigit() or text == "-"
