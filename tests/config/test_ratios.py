"""New API's ratios as prices and back: nothing is lost, or it is named."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.completion_ratios import completion_ratio
from tollway.config.groups import dump_exact
from tollway.config.price import Price, PriceError, PricePeriod, Tier
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Usage, quota_for
from tollway.config.ratios import Imported, RatioMaps, Unsaid, export_ratios, import_ratios

D = Decimal
TODAY = date(2026, 11, 20)


def imported(maps: object) -> Imported:
    return import_ratios(dump_exact(maps), source="New API", checked=TODAY)


def test_ratios_are_prices() -> None:
    found = imported(
        {
            "ModelRatio": {"claude-sonnet-4-5": D("1.5"), "qwen-x": D("0.8572")},
            "ModelPrice": {"painter": D("0.04")},
            "CacheRatio": {"claude-sonnet-4-5": D("0.1")},
            "GroupRatio": {"default": D(1), "vip": D("0.80")},
            "GroupGroupRatio": {"vip": {"default": D("0.9")}},
        }
    )
    assert found.prices == {
        "claude-sonnet-4-5": Price(
            "claude-sonnet-4-5",
            input=D(3),
            output=D(15),
            cached_input=D("0.3"),
            cache_write_5m=D("3.75"),
            cache_write_1h=D(6),
            source="New API",
            checked=TODAY,
        ),
        "qwen-x": Price(
            "qwen-x",
            input=D("1.7144"),
            output=D("1.7144"),
            cache_write_5m=D("2.143"),
            cache_write_1h=D("3.4288"),
            source="New API",
            checked=TODAY,
        ),
        "painter": Price("painter", per_call=D("0.04"), source="New API", checked=TODAY),
    }
    assert found.groups == {
        "GroupRatio": '{"default":1,"vip":0.80}',
        "GroupGroupRatio": '{"vip":{"default":0.9}}',
    }
    assert found.left_out == ()


def test_maps_may_be_the_text_of_options_or_have_the_names_of_the_public_page() -> None:
    maps = {"model_ratio": {"m": 1}, "CompletionRatio": '{"m": 3}', "cache_ratio": {"m": 0.25}}
    (price,) = import_ratios(json.dumps(maps), source="x", checked=TODAY).prices.values()
    assert (price.input, price.output, price.cached_input) == (2, 6, D("0.5"))


def test_what_cannot_be_looked_up_is_left_out_by_name() -> None:
    found = imported({"ModelRatio": {"*-compact": D(1), "gpt-4-gizmo-*": D(15)}, "CacheRatio": {"lonely": D("0.5")}})
    assert list(found.prices) == ["gpt-4-gizmo-*"]
    assert [sentence.partition(":")[0] for sentence in found.left_out] == ["*-compact", "lonely"]


@pytest.mark.parametrize(
    ("text", "model", "field", "message"),
    [
        pytest.param('{"ModelRatio": {"m": -1}}', "m", "ModelRatio", "negative", id="negative"),
        pytest.param('{"ModelRatio": {"m": NaN}}', "*", "file", "NaN is not a number", id="not a number"),
        pytest.param('{"ModelRatio": {"m": "1"}}', "m", "ModelRatio", "without quotes", id="in quotes"),
        pytest.param('{"ModelRatio": {"m": true}}', "m", "ModelRatio", "number", id="a truth value"),
        pytest.param('{"ModelRatio": [1]}', "*", "ModelRatio", "object", id="a list"),
        pytest.param('{"ModelRatio": "["}', "*", "ModelRatio", "not JSON", id="an option that is no JSON"),
        pytest.param('{"Model": {}}', "*", "Model", "unknown map", id="a map that is not one"),
        pytest.param("[]", "*", "file", "JSON object", id="no object"),
        pytest.param("{", "*", "file", "not JSON", id="no JSON"),
        pytest.param('{"ModelRatio": {"m": 1e10}}', "m", "input", "at most", id="absurdly dear"),
        pytest.param('{"GroupRatio": {"vip": -1}}', "*", "groups", "GroupRatio.vip", id="a group that is paid"),
        pytest.param('{"ModelRatio": {"a": 1e1000000}}', "a", "ratios", "too large", id="a ratio without bounds"),
        pytest.param('{"ModelRatio": {"a": 0.%s}}' % ("1" * 300), "a", "ratios", "digits", id="a ratio without end"),
        pytest.param('{"ModelRatio": {"a": 1e%s}}' % ("9" * 20), "*", "file", "exponent", id="an endless exponent"),
        pytest.param('{"GroupRatio": [1]}', "*", "groups", "must be an object", id="a list of group ratios"),
        pytest.param('{"GroupRatio": {"a": [1]}}', "*", "groups", "must be a number", id="a list for a group"),
        pytest.param(
            '{"GroupRatio": {"a": 1e999999999}}', "*", "groups", "from 0 to 1000000", id="a group ratio without bounds"
        ),
    ],
)
def test_what_is_no_ratio_is_refused(text: str, model: str, field: str, message: str) -> None:
    with pytest.raises(PriceError, match=r"price of ") as refused:
        import_ratios(text, source="x", checked=TODAY)
    assert (refused.value.model, refused.value.field) == (model, field)
    assert message in str(refused.value)


# --- there and back

names = st.sampled_from(["gpt-4o", "gpt-4.1", "claude-sonnet-4-5", "qwen-max", "a/b", "o3", "gemini-2.5-flash", "m"])
numbers = st.decimals(0, 500, places=4)  # three of them and 2 dollars stay below the highest price
positive = st.decimals(D("0.0001"), 500, places=4)


@st.composite
def ratio_maps(draw: st.DrawFn) -> RatioMaps:
    """Maps in which each entry has an effect."""
    models = draw(st.lists(names, unique=True))
    others = ("CompletionRatio", "CacheRatio", "CreateCacheRatio", "ImageRatio", "AudioRatio", "AudioCompletionRatio")
    return {
        "ModelRatio": {model: draw(positive) for model in models},
        **{name: {model: draw(numbers) for model in models if draw(st.booleans())} for name in others},
    }


@settings(deadline=None, max_examples=200)
@given(maps=ratio_maps())
def test_prices_that_were_ratios_are_the_same_after_a_round_trip(maps: RatioMaps) -> None:
    prices = imported(maps).prices
    exported = export_ratios(prices)
    assert exported.unsaid == ()
    again = imported(exported.maps).prices
    assert {model: price.rates for model, price in again.items()} == {
        model: price.rates for model, price in prices.items()
    }


@settings(deadline=None, max_examples=200)
@given(maps=ratio_maps(), counts=st.lists(st.integers(0, 10**6), min_size=6, max_size=6))
def test_a_charge_is_that_of_the_formula(maps: RatioMaps, counts: list[int]) -> None:
    """The formula for text, with cache and images, from the documentation of the reference."""
    text, cached, short, long, image, written = counts
    usage = Usage(
        text + cached + short + long + image,
        written,
        cached_tokens=cached,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
        input_image_tokens=image,
    )
    for model, price in imported(maps).prices.items():
        read = maps["CacheRatio"].get(model, D(1))
        write = maps["CreateCacheRatio"].get(model, D("1.25"))
        seen = maps["ImageRatio"].get(model, D(1))
        said = completion_ratio(model, maps["CompletionRatio"])
        tokens = text + cached * read + short * write + long * write * D("1.6") + image * seen + written * said
        amount = tokens * maps["ModelRatio"][model]
        quota = quota_for(usage, price, D(1))[0]
        assert abs(quota - amount) <= D("0.5") or (quota == 1 and 0 < amount < 1)


usd = st.decimals(0, 100, places=6)
prices = st.builds(
    Price,
    st.just("m"),
    input=usd,
    output=usd,
    cached_input=st.none() | usd,
    cache_write_5m=st.none() | usd,
    cache_write_1h=st.none() | usd,
    input_audio=st.none() | usd,
    output_audio=st.none() | usd,
    input_image=st.none() | usd,
    output_image=st.none() | usd,
    per_call=st.just(D(0)) | usd,
    tools=st.sampled_from(({}, {"web_search": D(10)})),
)
KINDS = ("input", "output", "cached_input", "cache_write_5m", "cache_write_1h", "input_audio", "output_audio")


@settings(deadline=None, max_examples=300)
@given(price=prices)
def test_whatever_ratios_do_not_say_of_a_price_is_named(price: Price) -> None:
    exported = export_ratios({"m": price})
    if exported.unsaid:
        assert {each.model for each in exported.unsaid} == {"m"}
        return
    again = imported(exported.maps).prices["m"]
    given = [kind for kind in (*KINDS, "input_image", "output_image") if getattr(price, kind) is not None]
    assert price.per_call == again.per_call
    assert not price.tools
    assert [again.rates[kind].usd for kind in given] == [price.rates[kind].usd for kind in given]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("price", "named"),
    [
        pytest.param(Price("m", input=D(2), tiers=(Tier(9, {"input": D(3)}),)), "tiers by", id="tiers"),
        pytest.param(Price("m", input=D(2), tools={"web_search": D(10)}), "fees for tools", id="tools"),
        pytest.param(Price("m", per_minute=D("0.006")), "prices per minute", id="minutes"),
        pytest.param(Price("m", per_image={"default": D("0.04")}), "prices per image", id="images"),
        pytest.param(Price("m", input=D(2), per_call=D(1)), "the prices of its tokens", id="calls and tokens"),
        pytest.param(
            Price("m", output_image=D(1), per_call=D(1)), "the prices of its tokens", id="calls and drawn tokens"
        ),
        pytest.param(Price("m", output=D(2)), "output costs 0 there and not 2", id="output alone"),
        pytest.param(Price("m", input=D("0.3"), output=D("2.5")), "output is rounded", id="a ratio without an end"),
        pytest.param(
            Price("o3", input=D(1), output=D(5)), "output costs 4 there and not 5", id="a ratio that is locked there"
        ),
        pytest.param(
            Price("m", input=D(1), cache_write_5m=D(2), cache_write_1h=D(2)), "cache_write_1h costs 3.2", id="an hour"
        ),
    ],
)
def test_what_is_named(price: Price, named: str) -> None:
    unsaid = export_ratios({price.model: price}).unsaid
    assert any(named in each.words for each in unsaid), unsaid
    assert {each.model for each in unsaid} == {price.model}


def test_dates_and_patterns_are_named() -> None:
    later = PricePeriod(None, datetime(2026, 1, 1, tzinfo=UTC), Price("m", input=D(1)))
    exported = export_ratios({"m": Price("m", input=D(2), periods=(later,)), "m-*": Price("m-*", input=D(2))})
    assert exported.unsaid == (Unsaid("m", "dates"), Unsaid("m-*", "a pattern, left out"))
    assert exported.maps["ModelRatio"] == {"m": 1}


def test_the_shipped_prices_can_be_exported() -> None:
    book = PriceBook.builtin().prices
    exported = export_ratios(book)
    again = imported(exported.maps)
    assert again.left_out == ()
    told = {each.model for each in exported.unsaid}
    for model in book.keys() - told:
        assert again.prices[model].rates["output"] == book[model].rates["output"], model


@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        ("gpt-4-all", "2"),
        ("gpt-4o-gizmo-*", "2"),
        ("gpt-4o-2024-05-13", "3"),
        ("gpt-4o-mini-tts", "20"),
        ("gpt-4o-mini", "4"),
        ("gpt-5-mini", "8"),
        ("gpt-5.4-nano", "6.25"),
        ("gpt-5.4", "6"),
        ("gpt-5.6-sol", "6"),
        ("gpt-4.5-preview", "2"),
        ("gpt-4-turbo-2024-04-09", "3"),
        ("gpt-4-1106-preview", "2"),
        ("gpt-4-1106", "3"),
        ("gpt-4.1", "2"),
        ("gpt-3.5-turbo", "2"),
        ("o1-pro", "4"),
        ("o3-mini", "4"),
        ("o4-mini", "1"),
        ("chatgpt-4o-latest", "3"),
        ("claude-3-haiku-20240307", "5"),
        ("claude-opus-4-1-20250805", "5"),
        ("mistral-large", "3"),
        ("gemini-1.5-pro-latest", "4"),
        ("gemini-2.0-flash", "4"),
        ("gemini-2.5-pro", "8"),
        ("gemini-2.5-flash-preview-05-20", "23.333333333333336"),
        ("gemini-2.5-flash-preview-05-20-nothinking", "4"),
        ("gemini-2.5-flash-lite-preview-06-17", "4"),
        ("gemini-2.5-flash", "8.333333333333334"),
        ("gemini-3-pro-image-preview", "60"),
        ("gemini-3-pro-preview", "6"),
        ("gemini-embedding-001", "4"),
        ("command-r", "3"),
        ("command-r-plus", "5"),
        ("command-r-plus-08-2024", "4"),
        ("command-light", "4"),
        ("ERNIE-Speed-8K", "2"),
        ("ERNIE-4.0-8K", "1"),
        ("llama3-8b-8192", "2"),
        ("deepseek-chat", "1"),
        ("text-embedding-3-small", "1"),
    ],
)
def test_the_completion_ratio_of_a_model_without_an_entry(model: str, ratio: str) -> None:
    assert completion_ratio(model, {}) == D(ratio)


@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        pytest.param("gpt-4o", "7", id="an entry goes before a rule"),
        pytest.param("o3", "4", id="but not before one that is locked"),
        pytest.param("openai/o3", "7", id="unless it is of a vendor's model"),
        pytest.param("m", "7", id="and before none"),
    ],
)
def test_a_completion_ratio_with_an_entry(model: str, ratio: str) -> None:
    assert completion_ratio(model, {model: D(7)}) == D(ratio)
