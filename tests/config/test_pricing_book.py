"""The price book: which name has which price, what a row may say, and the rows we ship."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, PriceError

D = Decimal

ROWS = """
[sources]
page = "https://vendor.example/pricing"

[models."gpt-4"]
also = ["gpt-4-0613"]
input = 30
output = 60
source = "page"
checked = 2026-10-14

[models."gpt-4-gizmo-*"]
per_call = 0.1
source = "page"
checked = 2026-10-14

[models."gpt-*"]
input = 1
output = 1
source = "page"
checked = 2026-10-14

[models."painter"]
per_image = { default = 0.04, "256x256" = 0.02 }
source = "a letter from the vendor"
checked = 2026-10-14
"""


@pytest.mark.parametrize(
    ("model", "base_model", "row"),
    [
        pytest.param("gpt-4", "gpt-4", "gpt-4", id="the name itself"),
        pytest.param("gpt-4-0613", "gpt-4-0613", "gpt-4", id="a name at the same price"),
        pytest.param("gpt-4-high", "gpt-4", "gpt-4", id="the base of a suffixed name beats a catch-all"),
        pytest.param("gpt-4-gizmo-g-123", "gpt-4", "gpt-4-gizmo-*", id="a pattern for the suffix beats the base"),
        pytest.param("gpt-4-gizmo-g-123", "gpt-4-gizmo-g-123", "gpt-4-gizmo-*", id="the longest pattern"),
        pytest.param("gpt-7", "gpt-7", "gpt-*", id="a shorter pattern"),
        pytest.param("gpt-7-high", "gpt-7", "gpt-*", id="a pattern that fits both names"),
        pytest.param("my-alias", "gpt-7", "gpt-*", id="a pattern that fits the base only"),
        pytest.param("my-alias", "gpt-4", "gpt-4", id="the base of an alias"),
        pytest.param("claude", "claude", None, id="an unknown name"),
        pytest.param("", "", None, id="no name"),
    ],
)
def test_which_price_a_name_has(model: str, base_model: str, row: str | None) -> None:
    price = PriceBook.load(ROWS).price_for(model, base_model)
    assert (price and price.model) == row


def test_a_row_is_read_as_it_is_written() -> None:
    book = PriceBook.load(ROWS)
    assert book.prices["gpt-4"] == Price(
        "gpt-4", input=D(30), output=D(60), source="https://vendor.example/pricing", checked=date(2026, 10, 14)
    )
    painter = book.prices["painter"]
    assert painter.per_image == {"default": D("0.04"), "256x256": D("0.02")}
    assert painter.source == "a letter from the vendor"


def test_money_never_passes_through_a_float() -> None:
    book = PriceBook.load(row("input = 0.1234567890123456789e0\noutput = 1e-7").replace("6789e0", "678e0"))
    assert book.prices["m"].input == D("0.123456789012345678")
    assert book.prices["m"].output == D("0.0000001")


def test_a_book_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(ROWS, encoding="utf-8")
    assert PriceBook.load(file) == PriceBook.load(ROWS)
    with pytest.raises(FileNotFoundError):
        PriceBook.load(tmp_path / "none.toml")


def test_overrides_make_a_new_book() -> None:
    book = PriceBook.load(ROWS)
    dearer, wide = Price("gpt-4", input=D(31), output=D(62)), Price("gpt-4-g*", input=D(1), output=D(1))
    merged = book.merged({"gpt-4": dearer, "gpt-4-g*": wide})
    assert merged.price_for("gpt-4", "gpt-4") is dearer
    assert merged.price_for("gpt-4-good", "gpt-4-good") is wide
    assert merged.price_for("gpt-4-gizmo-1", "gpt-4-gizmo-1") is book.prices["gpt-4-gizmo-*"]
    assert merged.price_for("painter", "painter") is book.prices["painter"]
    assert book.price_for("gpt-4", "gpt-4") is not dearer


def row(fields: str, *, source: str = 'source = "page"', checked: str = "checked = 2026-10-14") -> str:
    return f'[models."m"]\n{fields}\n{source}\n{checked}\n'


BAD_ROWS = [
    pytest.param(row("input = -1\noutput = 2"), "m", "input", "must not be negative", id="negative"),
    pytest.param(row("input = nan\noutput = 2"), "m", "input", "finite", id="not a number"),
    pytest.param(row("input = 1\noutput = inf"), "m", "output", "finite", id="endless"),
    pytest.param(row('input = "$2.50"\noutput = 2'), "m", "input", "without quotes, currency", id="with its currency"),
    pytest.param(row('input = "2.50"\noutput = 2'), "m", "input", "without quotes", id="in quotes"),
    pytest.param(row("input = true\noutput = 2"), "m", "input", "must be a bare number", id="a truth value"),
    pytest.param(row("input = [1, 2]\noutput = 2"), "m", "input", "must be a bare number", id="a list"),
    pytest.param(row("input = 1\noutput = 2\ncache = 3"), "m", "cache", "unknown field", id="a field that is not one"),
    pytest.param(row("input = 1"), "m", "output", "missing", id="output left out"),
    pytest.param(row("output = 1"), "m", "input", "missing", id="input left out"),
    pytest.param(row(""), "m", "input", "has no price", id="no price at all"),
    pytest.param(row("input = 1\noutput = 2", source=""), "m", "source", "missing", id="no source"),
    pytest.param(row("input = 1\noutput = 2", source='source = ""'), "m", "source", "missing", id="an empty source"),
    pytest.param(row("input = 1\noutput = 2", checked=""), "m", "checked", "missing", id="no date"),
    pytest.param(
        row("input = 1\noutput = 2", checked='checked = "2026-10-14"'),
        "m",
        "checked",
        "as a date",
        id="a date in quotes",
    ),
    pytest.param(
        row("input = 1\noutput = 2", checked="checked = 2026-10-14T00:00:00Z"),
        "m",
        "checked",
        "as a date",
        id="a date with a time",
    ),
    pytest.param(row("per_image = { small = 1 }"), "m", "per_image", "default", id="images without a default"),
    pytest.param(row('per_image = "0.04"'), "m", "per_image", "without quotes", id="an image price in quotes"),
    pytest.param(
        row('per_image = { default = "0.04" }'),
        "m",
        "per_image.default",
        "without quotes",
        id="an image size in quotes",
    ),
    pytest.param(
        row('input = 1\noutput = 2\nalso = "n"'), "m", "also", "list of names", id="one further name, no list"
    ),
    pytest.param(row("input = 1\noutput = 2\nalso = [1]"), "m", "also", "list of names", id="a further name, a number"),
    pytest.param(row('input = 1\noutput = 2\nalso = ["m"]'), "m", "model", "has two prices", id="a name twice"),
    pytest.param(
        row('input = 1\noutput = 2\nalso = ["a*b"]'), "a*b", "model", "at its end", id="a star inside of a name"
    ),
    pytest.param("[models]\nm = 3", "m", "row", "must be a table", id="a number instead of a row"),
    pytest.param("[prices]\n", "*", "prices", "unknown section", id="a section that is not one"),
    pytest.param("[models", "*", "file", "not TOML", id="not TOML"),
]


@pytest.mark.parametrize(("text", "model", "field", "message"), BAD_ROWS)
def test_a_bad_row_is_named(text: str, model: str, field: str, message: str) -> None:
    with pytest.raises(PriceError) as refused:
        PriceBook.load(text)
    assert (refused.value.model, refused.value.field) == (model, field)
    assert f"{field}: " in str(refused.value)
    assert message in str(refused.value)
    assert repr(model) in str(refused.value)


# --- the rows we ship

BUILTIN = PriceBook.builtin()


@pytest.mark.parametrize("name", sorted(BUILTIN.prices))
def test_a_shipped_row_has_a_source_and_a_date(name: str) -> None:
    price = BUILTIN.prices[name]
    assert price.source.startswith("https://") or price.source == "built-in"
    assert price.checked is not None
    assert price.checked >= date(2026, 1, 1)
    assert price.rates["cached_input"].usd <= price.rates["input"].usd <= price.rates["cache_write_1h"].usd


@pytest.mark.parametrize(
    ("model", "usd_input", "usd_output"),
    [
        ("gpt-4o", "2.5", "10"),
        ("gpt-4o-2024-08-06", "2.5", "10"),
        ("gpt-4o-2024-05-13", "5", "15"),
        ("gpt-4.1-mini-2025-04-14", "0.4", "1.6"),
        ("gpt-5", "1.25", "10"),
        ("o3", "2", "8"),
        ("claude-sonnet-4-5-20250929", "3", "15"),
        ("claude-opus-4-20250514", "15", "75"),
        ("claude-opus-4-5", "5", "25"),
        ("gemini-2.5-pro", "1.25", "10"),
        ("deepseek-chat", "0.27", "1.1"),
        ("grok-4", "3", "15"),
        ("moonshot-v1-8k", "0.2", "2"),
        ("qwen-max", "1.6", "6.4"),
        ("echo", "1", "2"),
        ("echo-1", "1", "2"),
        ("omni-moderation-latest", "0", "0"),
    ],
)
def test_a_few_prices_by_heart(model: str, usd_input: str, usd_output: str) -> None:
    price = BUILTIN.price_for(model, model)
    assert price is not None
    assert (price.input, price.output) == (D(usd_input), D(usd_output))
