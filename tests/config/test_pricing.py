"""What a call costs: worked examples, and promises that hold for every usage and price."""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tollway.config.amounts import MAX_QUOTA, QuotaOverflow
from tollway.config.price import Tier
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Breakdown, Price, Usage, quota_for, quota_to_hold

D = Decimal
BOOK = PriceBook.builtin()
repeatable = settings(derandomize=True, deadline=None, max_examples=200)


def price(model: str) -> Price:
    found = BOOK.price_for(model, model)
    assert found is not None
    return found


def exact_sum(breakdown: Breakdown) -> Fraction:
    return sum((Fraction(line.quota) for line in breakdown), Fraction(0))


GPT_4O_REALTIME_SAME_AUDIO = Price(
    "gpt-4o-realtime-preview", input=D(5), output=D(20), input_audio=D(40), output_audio=D(40)
)

LONG = Price(
    "long",
    input=D(2),
    output=D(10),
    cached_input=D("0.2"),
    tiers=(
        Tier(200_000, {"input": D(4), "output": D(15), "cached_input": D("0.4")}),
        Tier(400_000, {"input": D(8), "cached_input": D("0.8")}),
    ),
)

WORKED = [
    pytest.param(
        Usage(input_tokens=1000, cached_tokens=200, output_tokens=500),
        price("gpt-4o"),
        "1",
        3625,
        id="gpt-4o with a fifth of the prompt cached",
    ),
    pytest.param(
        Usage(
            input_tokens=9000,
            cached_tokens=5000,
            cache_write_5m_tokens=2000,
            cache_write_1h_tokens=1000,
            output_tokens=800,
        ),
        price("claude-sonnet-4-5"),
        "0.8",
        12000,
        id="claude-sonnet-4-5 with both cache writes in a cheaper group",
    ),
    pytest.param(
        Usage(images=1, image_size="1792x1024", image_quality="hd"),
        price("dall-e-3"),
        "1",
        60000,
        id="dall-e-3 in hd and wide",
    ),
    pytest.param(Usage(images=2, image_size="1024x1024"), price("dall-e-3"), "1", 40000, id="two square dall-e-3"),
    pytest.param(Usage(images=2), price("dall-e-3"), "1", 40000, id="two dall-e-3 of the default size"),
    pytest.param(
        Usage(images=1, image_quality="hd"), price("dall-e-3"), "1", 40000, id="dall-e-3 in hd, size left out"
    ),
    pytest.param(
        Usage(images=1, image_size="512x512", image_quality="standard"),
        price("dall-e-2"),
        "1",
        9000,
        id="dall-e-2 of medium size, a quality that has no price of its own",
    ),
    pytest.param(
        Usage(input_tokens=350, input_image_tokens=300, output_tokens=1056, output_image_tokens=1056),
        price("gpt-image-1"),
        "1",
        22745,
        id="gpt-image-1 edits an image",
    ),
    pytest.param(
        Usage(input_tokens=500, input_audio_tokens=400, output_tokens=350, output_audio_tokens=300),
        GPT_4O_REALTIME_SAME_AUDIO,
        "1",
        14750,
        id="realtime, audio both ways at one price",
    ),
    pytest.param(
        Usage(input_tokens=500, input_audio_tokens=400, output_tokens=350, output_audio_tokens=300),
        price("gpt-4o-realtime-preview"),
        "1",
        20750,
        id="realtime, spoken answers at twice the price",
    ),
    pytest.param(
        Usage(input_tokens=3), price("text-embedding-3-small"), "1", 1, id="a tiny embedding costs the minimum"
    ),
    pytest.param(
        Usage(input_tokens=1000, output_tokens=500), price("claude-sonnet-4-5"), "0.9", 4725, id="vip in default at 0.9"
    ),
    pytest.param(
        Usage(input_tokens=1500, input_audio_tokens=1000, output_tokens=100),
        price("gemini-2.5-flash"),
        "1",
        700,
        id="gemini hears audio",
    ),
    pytest.param(Usage(input_tokens=501), price("gpt-4o-mini"), "1", 38, id="37.575 rounds to 38"),
    pytest.param(Usage(input_tokens=1), Price("m", input=D(5)), "1", 3, id="2.5 rounds up"),
    pytest.param(Usage(input_tokens=1), Price("m", input=D("4.99")), "1", 2, id="2.495 rounds down"),
    pytest.param(Usage(seconds=D(90)), price("whisper-1"), "1", 4500, id="a minute and a half of whisper"),
    pytest.param(Usage(seconds=D("0.5")), price("whisper-1"), "1", 25, id="half a second of whisper"),
    pytest.param(Usage(input_tokens=1000), price("tts-1"), "1", 7500, id="a thousand spoken characters"),
    pytest.param(Usage(), Price("m", per_call=D("0.1")), "0.5", 25000, id="a price per call needs no tokens"),
    pytest.param(
        Usage(input_tokens=10), Price("m", input=D(2), per_call=D("0.1")), "1", 50010, id="a call and its tokens add up"
    ),
    pytest.param(
        Usage(output_tokens=500, reasoning_tokens=400),
        price("gpt-4o"),
        "1",
        2500,
        id="reasoning costs what output costs",
    ),
    pytest.param(
        Usage(input_tokens=30, cached_tokens=10, cache_write_5m_tokens=10),
        Price("m", input=D(2), cached_input=D(0), cache_write_5m=D(0)),
        "1",
        10,
        id="a cache that is given away is a price, not one left out",
    ),
    pytest.param(Usage(input_tokens=9000), price("omni-moderation-latest"), "1", 0, id="free stays free"),
    pytest.param(Usage(input_tokens=9000), price("gpt-4o"), "0", 0, id="a group that pays nothing"),
    pytest.param(Usage(), price("gpt-4o"), "1", 0, id="nothing used"),
    pytest.param(Usage(output_tokens=7), Price("m", input=D(1)), "1", 0, id="only unpriced tokens used"),
    pytest.param(Usage(images=3), price("gpt-4o"), "1", 0, id="images that are not sold by the piece"),
    pytest.param(Usage(input_tokens=1), Price("m", input=D("1E-9")), "0.001", 1, id="the least a call can cost"),
    pytest.param(Usage(200_000, 1000), LONG, "1", 205_000, id="a prompt as long as its tier begins"),
    pytest.param(Usage(200_001, 1000), LONG, "1", 407_502, id="one token more, and every one of them is dearer"),
    pytest.param(
        Usage(300_000, 0, cached_tokens=300_000), LONG, "1", 60_000, id="cached tokens count for the length of a prompt"
    ),
    pytest.param(
        Usage(400_001, 0, cached_tokens=400_000),
        LONG,
        "1",
        160_004,
        id="what the second tier does not name is the row's",
    ),
    pytest.param(
        Usage(1000, tool_calls=(("file_search", 3), ("web_search", 2))),
        Price("m", input=D(2), tools={"web_search": D(10)}),
        "0.5",
        5500,
        id="a tool costs by its calls, and one without a price nothing",
    ),
    pytest.param(
        Usage(1000, cached_tokens=600),
        Price("m", input=D(2), prompt_cache_ratio=D("0.25")),
        "1",
        550,
        id="cached input at a share of the price of input",
    ),
]


@pytest.mark.parametrize(("usage", "of", "ratio", "quota"), WORKED)
def test_worked_example(usage: Usage, of: Price, ratio: str, quota: int) -> None:
    assert quota_for(usage, of, D(ratio))[0] == quota


def test_a_breakdown_names_kind_units_price_and_quota() -> None:
    usage = Usage(input_tokens=1000, cached_tokens=200, output_tokens=500)
    _, breakdown = quota_for(usage, price("gpt-4o"), D("0.5"))
    assert set(breakdown) == {
        ("cached_input", 200, D("1.25"), D("62.5")),
        ("input", 800, D("2.5"), D(500)),
        ("output", 500, D(10), D(1250)),
    }


FALLBACKS = [
    ("cached_tokens", Price("m", input=D(2), output=D(8)), 1),
    ("cache_write_5m_tokens", Price("m", input=D(2), output=D(8)), 1),
    ("cache_write_1h_tokens", Price("m", input=D(2), output=D(8)), 1),
    ("cache_write_1h_tokens", Price("m", input=D(2), output=D(8), cache_write_5m=D(4)), 2),
    ("input_audio_tokens", Price("m", input=D(2), output=D(8)), 1),
    ("input_image_tokens", Price("m", input=D(2), output=D(8)), 1),
    ("output_audio_tokens", Price("m", input=D(2), output=D(8)), 4),
    ("output_image_tokens", Price("m", input=D(2), output=D(8)), 4),
]


@pytest.mark.parametrize(("part", "of", "each"), FALLBACKS, ids=[f"{part} at {each}" for part, _, each in FALLBACKS])
def test_a_price_left_out_is_that_of_text(part: str, of: Price, each: int) -> None:
    total = "output_tokens" if part.startswith("output") else "input_tokens"
    counts: dict[str, Any] = {total: 10, part: 10}
    usage = Usage(**counts)
    assert quota_for(usage, of, D(1))[0] == 10 * each


# --- promises for every usage and price

BESIDES_TOKENS = ("per_call", "per_image", "per_minute", "web_search")

counts = st.integers(0, 10**7)
usd = st.decimals(0, 1000, places=6)
ratios = st.decimals(0, 10, places=4)
PARTS = {
    "cached_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "input_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}


def usage_of(parts: Mapping[str, int], text_in: int, text_out: int, **rest: Any) -> Usage:
    totals = {"input_tokens": text_in, "output_tokens": text_out}
    for part, count in parts.items():
        totals[PARTS[part]] += count
    return Usage(**totals, **parts, **rest)


usages = st.builds(
    usage_of,
    st.fixed_dictionaries(dict.fromkeys(PARTS, counts)),
    counts,
    counts,
    images=st.integers(0, 10),
    seconds=st.decimals(0, 10**5, places=2),
    tool_calls=st.integers(0, 50).map(lambda calls: (("web_search", calls),)),
)
overlapping = st.builds(
    Usage, input_tokens=counts, output_tokens=counts, **dict.fromkeys(PARTS, counts), reasoning_tokens=counts
)
tiers = st.lists(st.tuples(st.integers(1, 10**6), usd), max_size=3, unique_by=lambda tier: tier[0]).map(
    lambda found: tuple(Tier(above, {"input": each, "output": each}) for above, each in sorted(found))
)
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
    per_minute=usd,
    per_call=usd,
    per_image=usd.map(lambda each: {"default": each}),
    tools=usd.map(lambda each: {"web_search": each}),
)
tiered = st.builds(Price, st.just("m"), input=usd, output=usd, cached_input=st.none() | usd, tiers=tiers)


@repeatable
@given(usage=usages | overlapping, of=prices | tiered, ratio=ratios)
def test_the_lines_add_up_to_the_quota(usage: Usage, of: Price, ratio: Decimal) -> None:
    quota, breakdown = quota_for(usage, of, ratio)
    amount = exact_sum(breakdown)
    assert quota >= 0
    assert abs(quota - amount) <= Fraction(1, 2) or (quota == 1 and amount > 0)
    assert (quota == 0) == (amount == 0)


@repeatable
@given(usage=overlapping, of=prices)
def test_every_token_is_charged_once(usage: Usage, of: Price) -> None:
    _, breakdown = quota_for(usage, of, D(1))
    tokens = sum(Fraction(line.units) for line in breakdown if line.kind not in BESIDES_TOKENS)
    assert tokens == usage.total_tokens


@repeatable
@given(
    usage=usages, of=prices, ratio=ratios, more=st.integers(1, 1000), kind=st.sampled_from([*PARTS, *PARTS.values()])
)
def test_one_more_token_of_any_kind_never_costs_less(
    usage: Usage, of: Price, ratio: Decimal, more: int, kind: str
) -> None:
    total = PARTS.get(kind, kind)
    grown = {name: getattr(usage, name) + more for name in {kind, total}}
    assert quota_for(structs.replace(usage, **grown), of, ratio)[0] >= quota_for(usage, of, ratio)[0]


@repeatable
@given(usage=usages, of=prices, ratio=ratios)
def test_the_group_ratio_scales_the_amount_exactly(usage: Usage, of: Price, ratio: Decimal) -> None:
    whole = exact_sum(quota_for(usage, of, D(1))[1])
    assert exact_sum(quota_for(usage, of, ratio)[1]) == whole * Fraction(ratio)


@repeatable
@given(tokens=counts, cached=counts, audio=counts)
def test_more_cached_than_sent_is_no_larger_discount(tokens: int, cached: int, audio: int) -> None:
    of = Price("m", input=D(2), output=D(8), cached_input=D("0.2"), input_audio=D(20))
    usage = Usage(input_tokens=tokens, cached_tokens=cached, input_audio_tokens=min(audio, tokens))
    all_cached = Usage(input_tokens=tokens, cached_tokens=tokens)
    assert quota_for(usage, of, D(1))[0] >= quota_for(all_cached, of, D(1))[0]
    audio_alone = Usage(input_tokens=usage.input_audio_tokens, input_audio_tokens=usage.input_audio_tokens)
    assert quota_for(usage, of, D(1))[0] >= quota_for(audio_alone, of, D(1))[0]


@repeatable
@given(input_tokens=counts, output_tokens=counts, of=prices, ratio=ratios)
def test_a_hold_covers_the_call_it_was_made_for(
    input_tokens: int, output_tokens: int, of: Price, ratio: Decimal
) -> None:
    used = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    assert quota_to_hold(used, of, ratio) >= quota_for(used, of, ratio)[0]


@repeatable
@given(expected=counts, output=counts, less=st.integers(0, 10**6), of=tiered, ratio=ratios)
def test_a_hold_covers_every_shorter_prompt_whatever_its_tier(
    expected: int, output: int, less: int, of: Price, ratio: Decimal
) -> None:
    used = Usage(max(0, expected - less), output)
    assert quota_to_hold(Usage(expected, output), of, ratio) >= quota_for(used, of, ratio)[0]


def test_the_callers_decimal_context_does_not_change_a_price() -> None:
    usage = Usage(input_tokens=123_456_789, output_tokens=987_654_321)
    expected = quota_for(usage, price("gpt-4o-mini"), D("0.123456"))
    with localcontext() as context:
        context.prec = 3
        assert quota_for(usage, price("gpt-4o-mini"), D("0.123456")) == expected


# --- holds, bounds and refusals


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "of", "hold"),
    [
        pytest.param(500, 0, "gpt-4o", 625, id="no output limit asked"),
        pytest.param(500, 1000, "gpt-4o", 5625, id="output is held at the output price"),
        pytest.param(501, 0, "gpt-4o-mini", 38, id="37.575 rounds up"),
        pytest.param(1, 0, "gpt-4o-mini", 1, id="0.075 rounds up"),
        pytest.param(500, 1000, "omni-moderation-latest", 0, id="nothing is held for what is free"),
    ],
)
def test_holds(input_tokens: int, output_tokens: int, of: str, hold: int) -> None:
    assert quota_to_hold(Usage(input_tokens, output_tokens), price(of), D(1)) == hold


def test_holds_for_images_and_audio() -> None:
    wide = Usage(images=1, image_size="1792x1024", image_quality="hd")
    assert quota_to_hold(wide, price("dall-e-3"), D(1)) == 60000
    assert quota_to_hold(Usage(seconds=D("0.01")), price("whisper-1"), D(1)) == 1


def test_the_largest_quota_is_64_bits() -> None:
    one_each = Price("m", input=D(2))
    assert quota_for(Usage(input_tokens=MAX_QUOTA), one_each, D(1))[0] == MAX_QUOTA
    for beyond in (Usage(input_tokens=MAX_QUOTA + 1), Usage(input_tokens=10**60)):
        with pytest.raises(QuotaOverflow, match="64 bits"):
            quota_for(beyond, one_each, D(1))
    with pytest.raises(QuotaOverflow, match="64 bits"):
        quota_to_hold(Usage(MAX_QUOTA, 1), Price("m", input=D(2), output=D(2)), D(1))


@pytest.mark.parametrize("ratio", ["-0.1", "-1E+9", "NaN", "sNaN", "Infinity"])
def test_a_group_ratio_is_never_negative_nor_endless(ratio: str) -> None:
    with pytest.raises(ValueError, match="group ratio"):
        quota_for(Usage(input_tokens=1), price("gpt-4o"), D(ratio))
    with pytest.raises(ValueError, match="group ratio"):
        quota_to_hold(Usage(1, 1), price("gpt-4o"), D(ratio))
