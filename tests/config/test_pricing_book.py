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


def test_a_book_of_several_files() -> None:
    other = '[models.m]\ninput = 1\noutput = 2\nsource = "page"\nchecked = 2026-10-14\n'
    assert PriceBook.load_all([ROWS, other]).prices.keys() == {*PriceBook.load(ROWS).prices, "m"}
    with pytest.raises(PriceError, match="price of 'm': model: has a price in two files"):
        PriceBook.load_all([other, ROWS, other])


# --- the rows we ship

BUILTIN = PriceBook.builtin()


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
