"""A tariff says what the exact functions say, to the quota, for any usage, price and ratio."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.amounts import MAX_QUOTA, QuotaOverflow
from tollway.config.price import Tier
from tollway.config.pricing import Price, Usage, quota_for, quota_to_hold
from tollway.config.tariff import Tariff

usd = st.decimals(0, 500, places=6)
ratios = st.decimals(0, 10, places=4)
counts = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt, completion = draw(counts), draw(counts)
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_tokens=draw(st.integers(0, prompt)),
        cache_write_5m_tokens=draw(st.sampled_from((0, prompt // 2))),
        cache_write_1h_tokens=draw(st.sampled_from((0, prompt // 3))),
        input_audio_tokens=draw(st.sampled_from((0, prompt))),
        output_image_tokens=draw(st.sampled_from((0, completion))),
        images=draw(st.sampled_from((0, 3))),
        tool_calls=draw(st.sampled_from(((), (("web_search", 2),)))),
    )


@st.composite
def prices(draw: st.DrawFn) -> Price:
    return Price(
        "m",
        input=draw(usd),
        output=draw(usd),
        cached_input=draw(st.none() | usd),
        cache_write_5m=draw(st.none() | usd),
        cache_write_1h=draw(st.none() | usd),
        input_image=draw(st.none() | usd),
        output_image=draw(st.none() | usd),
        per_call=draw(st.sampled_from((Decimal(0), Decimal("0.01")))),
        per_image=draw(st.sampled_from(({}, {"default": Decimal("0.04")}))),
        tools=draw(st.sampled_from(({}, {"web_search": Decimal(10)}))),
        tiers=draw(
            st.just(()) | st.tuples(st.builds(Tier, st.integers(1, 10**6), usd.map(lambda each: {"input": each})))
        ),
    )


@settings(max_examples=400, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios)
def test_a_charge_is_the_exact_one(price: Price, usage: Usage, ratio: Decimal) -> None:
    assert Tariff(price, ratio).quota(usage) == quota_for(usage, price, ratio)[0]


@settings(max_examples=200, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios, share=st.decimals(0, 1, places=3))
def test_a_cache_ratio_is_the_price_with_that_ratio(price: Price, usage: Usage, ratio: Decimal, share: Decimal) -> None:
    tariff, of = Tariff(price, ratio, share), price.with_cache_ratio(share)
    assert tariff.quota(usage) == quota_for(usage, of, ratio)[0]
    assert tariff.cover(usage) == quota_to_hold(usage, of.dearest(hour=usage.cache_write_1h_tokens > 0), ratio)
    assert tariff.price is price
    assert tariff.bill(usage)["cache_ratio"] == str(share)


@settings(max_examples=200, deadline=None)
@given(price=prices(), prompt=counts, output=counts, ratio=ratios)
def test_a_hold_is_the_exact_one(price: Price, prompt: int, output: int, ratio: Decimal) -> None:
    assert Tariff(price, ratio).reserve(prompt, output) == quota_to_hold(Usage(prompt, output), price.dearest(), ratio)


@settings(max_examples=200, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios)
def test_a_hold_covers_the_charge_wherever_the_input_was_cached(price: Price, usage: Usage, ratio: Decimal) -> None:
    assert quota_for(usage, price, ratio)[0] <= Tariff(price, ratio).cover(usage)
    plain = replace(price, tiers=())  # a tier may be cheaper than the prices before it, which are held for as well
    dearest = plain.dearest(hour=usage.cache_write_1h_tokens > 0)
    assert 0 <= Tariff(plain, ratio).cover(usage) - quota_for(usage, dearest, ratio)[0] <= 1


@settings(max_examples=200, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios)
def test_a_bill_has_the_units_prices_and_ratios_of_its_charge(price: Price, usage: Usage, ratio: Decimal) -> None:
    bill = Tariff(price, ratio).bill(usage)
    lines = {line.kind: (line.units, str(line.usd)) for line in quota_for(usage, price, ratio)[1]}
    assert {name: value for name, value in bill.items() if isinstance(value, tuple)} == lines
    assert bill["group_ratio"] == str(ratio)
    tier = price.tiers[0].above if price.tiers else None
    assert bill.get("tier") == (tier if tier is not None and usage.input_tokens > tier else None)


def test_a_hold_for_pictures_goes_by_their_size_and_quality() -> None:
    sizes = {"default": Decimal("0.04"), "1792x1024/hd": Decimal("0.12")}
    tariff = Tariff(Price("p", per_image=sizes), Decimal(1))
    assert tariff.cover(Usage(images=2)) == 40_000
    assert tariff.cover(Usage(images=2, image_size="1792x1024", image_quality="hd")) == 120_000


def test_more_than_64_bits_is_no_charge_and_a_hold_that_nobody_can_pay() -> None:
    tariff = Tariff(Price("m", input=Decimal(1_000_000_000)), Decimal(1))
    with pytest.raises(QuotaOverflow):
        tariff.quota(Usage(input_tokens=2**53 - 1))
    assert tariff.reserve(2**53, 0) == MAX_QUOTA
    assert tariff.cover(Usage(input_tokens=2**53)) == MAX_QUOTA


def test_a_tier_with_sound_or_pictures_is_not_text_alone() -> None:
    assert Tariff(Price("m", input=Decimal(1)), Decimal(1)).text_only
    assert not Tariff(Price("m", tiers=(Tier(9, {"output_audio": Decimal(1)}),)), Decimal(1)).text_only


@pytest.mark.parametrize("ratio", ["-1", "NaN", "Infinity"])
def test_a_ratio_is_a_number_from_0(ratio: str) -> None:
    with pytest.raises(ValueError, match="ratio"):
        Tariff(Price("m"), Decimal(ratio))
