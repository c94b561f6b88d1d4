"""Long-lived work keeps the price it was admitted at, digit by digit."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.price import Price, PricePeriod, Tier
from tollway.config.price_book import PriceBook
from tollway.config.price_snapshot import PriceSnapshot
from tollway.config.pricing import Usage
from tollway.config.tariff import Tariff

D = Decimal
BOOK = PriceBook.builtin()
FULL = Price(
    "m",
    input=D("1.4"),
    output=D("0.123456789012345678"),
    cached_input=D(0),
    per_call=D("1E-9"),
    per_image={"default": D("0.07"), "hd": D("0.14")},
    tools={"web_search": D("3.92")},
    tiers=(Tier(32_000, {"input": D("2.8")}), Tier(128_000, {"output": D("8.40")})),
    max_output=8192,
    source="a page",
    checked=date(2026, 11, 20),
    currency="CNY",
    usd_per_unit=D("0.14"),
)


@pytest.mark.parametrize(
    "snapshot",
    [
        PriceSnapshot(FULL, D("0.8500"), D("0.25")),
        PriceSnapshot(Price("free")),
        PriceSnapshot(Price("shared", input=D(2), prompt_cache_ratio=D("0.1")), D(0)),
    ],
    ids=["everything", "nothing", "a cache ratio of its own"],
)
def test_it_comes_back_exactly(snapshot: PriceSnapshot) -> None:
    again = PriceSnapshot.from_json(snapshot.to_json())
    assert again == snapshot
    assert again.to_json() == snapshot.to_json()
    assert again.price.version == snapshot.price.version


@pytest.mark.parametrize("model", sorted(BOOK.prices))
def test_every_shipped_price_comes_back(model: str) -> None:
    snapshot = PriceSnapshot.of(Tariff(BOOK.prices[model], D("0.9")))
    assert PriceSnapshot.from_json(snapshot.to_json()) == snapshot


@settings(derandomize=True, deadline=None, max_examples=100)
@given(prompt=st.integers(0, 10**6), output=st.integers(0, 10**6), cached=st.integers(0, 10**6))
def test_it_charges_what_the_tariff_charged(prompt: int, output: int, cached: int) -> None:
    tariff = Tariff(FULL, D("0.85"), D("0.25"))
    usage = Usage(prompt, output, min(cached, prompt), tool_calls=(("web_search", 2),))
    kept = PriceSnapshot.from_json(PriceSnapshot.of(tariff).to_json()).tariff()
    assert kept.quota(usage) == tariff.quota(usage)
    assert kept.bill(usage) == tariff.bill(usage)


def test_the_dates_of_other_prices_do_not_reach_it() -> None:
    soon = PricePeriod(datetime(2027, 1, 1, tzinfo=UTC), None, Price("m", input=D(9)))
    snapshot = PriceSnapshot.of(Tariff(Price("m", input=D(1), periods=(soon,)), D(1)))
    assert snapshot.price.at(datetime(2028, 1, 1, tzinfo=UTC).timestamp()).input == 1


GOOD = json.loads(PriceSnapshot(FULL).to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps(GOOD | {"ratio": "many"}),
        json.dumps(GOOD | {"ratio": None}),
        json.dumps(GOOD | {"cache_ratio": "1.5"}),
        json.dumps(GOOD | {"price": GOOD["price"] | {"figures": {"input": "-1"}}}),
        json.dumps(GOOD | {"price": GOOD["price"] | {"figures": {"colour": "1"}}}),
        json.dumps(GOOD | {"price": GOOD["price"] | {"checked": "yesterday"}}),
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whichever part is wrong says so in its own words
        PriceSnapshot.from_json(text)
