"""What a row of a price file may say, and what it is refused for."""

from datetime import date, datetime
from decimal import Decimal

import pytest
from tollway.config.price import Tier
from tollway.config.price_book import PriceBook
from tollway.config.price_text import to_toml
from tollway.config.pricing import Price, PriceError

D = Decimal


def row(fields: str, *, source: str = 'source = "page"', checked: str = "checked = 2026-10-14") -> str:
    return f'[models."m"]\n{fields}\n{source}\n{checked}\n'


def in_yuan(usd: str, input: str) -> str:
    """A price in a currency of which one is worth so much."""
    currency = f'[currencies.CNY]\nusd = {usd}\nsource = "bank"\nchecked = 2026-10-14\n'
    return currency + row(f'input = {input}\noutput = 2\ncurrency = "CNY"')


def test_money_never_passes_through_a_float() -> None:
    book = PriceBook.load(row("input = 0.1234567890123456789e0\noutput = 1e-7").replace("6789e0", "678e0"))
    assert book.prices["m"].input == D("0.123456789012345678")
    assert book.prices["m"].output == D("0.0000001")


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
    pytest.param(row("input = 1\noutput = 2\ntiers = 3"), "m", "tiers", "list of tables", id="tiers that are a number"),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ input = 3 }]"),
        "m",
        "tiers.1",
        "needs an above",
        id="a tier from nowhere",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 9 }]"), "m", "tiers.1", "and the prices", id="a tier of nothing"
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 9, per_call = 3 }]"),
        "m",
        "tiers.1.per_call",
        "unknown field",
        id="a tier of what has none",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 9, input = -3 }]"),
        "m",
        "tiers.9.input",
        "must not be negative",
        id="a negative tier",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 9, input = 3 }, { above = 9, input = 4 }]"),
        "m",
        "tiers.above",
        "overlaps",
        id="two tiers at once",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 0, input = 3 }]"),
        "m",
        "tiers.above",
        "above 0",
        id="a tier from 0",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntiers = [{ above = 9.5, input = 3 }]"),
        "m",
        "tiers.above",
        "a number of tokens",
        id="a tier from half a token on",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntools = { telepathy = 1 }"),
        "m",
        "tools.telepathy",
        "unknown tool",
        id="no such tool",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ntools = { web_search = '10' }"),
        "m",
        "tools.web_search",
        "without quotes",
        id="a tool in quotes",
    ),
    pytest.param(
        row("input = 1\noutput = 2\nprompt_cache_ratio = 1.5"),
        "m",
        "prompt_cache_ratio",
        "from 0 to 1",
        id="a cache ratio above 1",
    ),
    pytest.param(
        row("input = 1\noutput = 2\nmax_output = 1.5"), "m", "max_output", "whole number", id="half a token of output"
    ),
    pytest.param(
        row("input = 1\noutput = 2\ndated = [{ input = 3, output = 4 }]"),
        "m",
        "dated",
        "from or an until",
        id="no date",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ndated = [{ from = '2026-01-01', input = 3, output = 4 }]"),
        "m",
        "dated.1.from",
        "without quotes",
        id="a date in quotes, of a period",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ndated = [{ from = 2026-01-01T00:00:00, input = 3, output = 4 }]"),
        "m",
        "dated.1.from",
        "offset from UTC",
        id="a time of nowhere",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ndated = [{ from = 2026-01-01, input = 3 }]"),
        "m",
        "dated.1.output",
        "missing",
        id="half a price in a period",
    ),
    pytest.param(
        row("input = 1\noutput = 2\ndated = [{ from = 2026-02-01, until = 2026-02-01, input = 3, output = 4 }]"),
        "m",
        "dated",
        "not before its end",
        id="a period of no time",
    ),
    pytest.param(
        row(
            "input = 1\noutput = 2\ndated = [{ from = 2026-02-01, input = 3, output = 4 },"
            " { from = 2026-01-01, until = 2026-02-02, input = 5, output = 6 }]"
        ),
        "m",
        "dated",
        "overlap",
        id="two periods at once",
    ),
    pytest.param(
        row('input = 1\noutput = 2\ncurrency = "EUR"'), "m", "currency", "under [currencies]", id="no such currency"
    ),
    pytest.param(
        '[currencies.CNY]\nusd = 0\nsource = "x"\nchecked = 2026-01-01', "CNY", "usd", "above 0", id="money of no worth"
    ),
    pytest.param(in_yuan("0." + "1" * 150, "0." + "1" * 150), "m", "input", "many digits", id="a product without end"),
    pytest.param(in_yuan("1e999999", "1e999999"), "m", "input", "too large", id="a product without bounds"),
    pytest.param(
        "[sources]\npage = 5\n" + row("input = 1\noutput = 2"), "m", "source", "a text", id="a source, a number"
    ),
    pytest.param(
        "[currencies.CNY]\nusd = 0.14\nchecked = 2026-01-01", "CNY", "source", "missing", id="a rate of nobody"
    ),
    pytest.param("[models]\nm = 3", "m", "row", "must be a table", id="a number instead of a row"),
    pytest.param("[prices]\n", "*", "prices", "unknown section", id="a section that is not one"),
    pytest.param("[models", "*", "file", "not TOML", id="not TOML"),
    pytest.param("input = 1e%s" % ("9" * 20), "*", "file", "not TOML", id="an endless exponent"),
    pytest.param("above = %s" % ("9" * 5000), "*", "file", "not TOML", id="an endless number"),
    pytest.param("tiers = %s" % ("[" * 5000), "*", "file", "not TOML", id="an endless list"),
]


@pytest.mark.parametrize(("text", "model", "field", "message"), BAD_ROWS)
def test_a_bad_row_is_named(text: str, model: str, field: str, message: str) -> None:
    with pytest.raises(PriceError) as refused:
        PriceBook.load(text)
    assert (refused.value.model, refused.value.field) == (model, field)
    assert f"{field}: " in str(refused.value)
    assert message in str(refused.value)
    assert repr(model) in str(refused.value)


FULL = """
[sources]
page = "https://vendor.example/pricing"

[currencies.CNY]
usd = 0.14
source = "a bank"
checked = 2026-11-20

[models.m]
currency = "CNY"
input = 10
output = 30
per_image = 0.5
max_output = 8_192
source = "page"
checked = 2026-11-20
tiers = [{ above = 32_000, input = 20 }, { above = 128_000, input = 40, output = 60 }]
tools = { web_search = 28 }

[[models.m.dated]]
until = 2026-03-01T08:00:00+08:00
input = 5
output = 5
prompt_cache_ratio = 0.1

[[models.m.dated]]
from = 2027-01-01
input = 1
output = 1
source = "an announcement"
checked = 2026-11-21
"""


def test_a_row_with_everything() -> None:
    (price,) = PriceBook.load(FULL).prices.values()
    assert (price.input, price.output, price.per_image) == (D("1.40"), D("4.20"), {"default": D("0.07")})
    assert price.tiers == (
        Tier(32_000, {"input": D("2.8")}),
        Tier(128_000, {"input": D("5.6"), "output": D("8.4")}),
    )
    assert (price.tools, price.max_output) == ({"web_search": D("3.92")}, 8192)
    assert (price.currency, price.usd_per_unit) == ("CNY", D("0.14"))
    before, after = (period.price for period in price.periods)
    assert (before.input, before.prompt_cache_ratio, before.tools, before.tiers) == (D("0.7"), D("0.1"), {}, ())
    assert before.source == "https://vendor.example/pricing"
    assert (after.source, after.checked, after.currency) == ("an announcement", date(2026, 11, 21), "CNY")


@pytest.mark.parametrize(
    ("moment", "usd_input"),
    [
        pytest.param("2026-02-28T23:59:59+00:00", "0.70", id="the last second of a period"),
        pytest.param("2026-03-01T00:00:00+00:00", "1.40", id="its end, in the zone of its vendor"),
        pytest.param("2026-12-31T23:59:59+00:00", "1.40", id="between two periods"),
        pytest.param("2027-01-01T00:00:00+00:00", "0.14", id="the first second of a period"),
        pytest.param("2099-01-01T00:00:00+00:00", "0.14", id="a period without an end"),
    ],
)
def test_the_price_in_force_goes_by_the_time(moment: str, usd_input: str) -> None:
    (price,) = PriceBook.load(FULL).prices.values()
    in_force = price.at(datetime.fromisoformat(moment).timestamp())
    assert in_force.input == D(usd_input)
    assert (in_force is price) == (usd_input == "1.40")


def test_periods_have_versions_of_their_own() -> None:
    (price,) = PriceBook.load(FULL).prices.values()
    assert len({price.version, *(period.price.version for period in price.periods)}) == 3


def test_a_row_in_another_currency_is_the_same_price_as_its_dollars() -> None:
    yuan = PriceBook.load(FULL).prices["m"]
    dollars = Price(
        "m",
        input=D("1.4"),
        output=D("4.2"),
        per_image={"default": D("0.07")},
        tools={"web_search": D("3.92")},
        tiers=(Tier(32_000, {"input": D("2.8")}), Tier(128_000, {"input": D("5.6"), "output": D("8.4")})),
    )
    assert yuan.version == dollars.version


@pytest.mark.parametrize("text", [FULL, row("input = 1\noutput = 2"), row("per_call = 1")])
def test_what_is_written_is_read_again(text: str) -> None:
    prices = PriceBook.load(text).prices
    again = PriceBook.load(to_toml(prices)).prices
    assert again.keys() == prices.keys()
    for name, price in prices.items():
        read = again[name]
        assert (read.version, read.source, read.checked) == (price.version, price.source, price.checked)
        assert read.max_output == price.max_output
        assert [(each.since, each.until, each.price.version) for each in read.periods] == [
            (each.since, each.until, each.price.version) for each in price.periods
        ]
