"""A tariff says what the exact functions say, to the quota, for any usage, price and ratio."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.amounts import QuotaOverflow
from tollway.config.pricing import Price, Usage, quota_for, reserve_quota
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
        input_audio_tokens=draw(st.sampled_from((0, prompt))),
        output_image_tokens=draw(st.sampled_from((0, completion))),
        images=draw(st.sampled_from((0, 3))),
    )


@st.composite
def prices(draw: st.DrawFn) -> Price:
    return Price(
        "m",
        input=draw(usd),
        output=draw(usd),
        cached_input=draw(st.none() | usd),
        output_image=draw(st.none() | usd),
        per_call=draw(st.sampled_from((Decimal(0), Decimal("0.01")))),
        per_image=draw(st.sampled_from(({}, {"default": Decimal("0.04")}))),
    )


@settings(max_examples=400, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios)
def test_a_charge_is_the_exact_one(price: Price, usage: Usage, ratio: Decimal) -> None:
    assert Tariff(price, ratio).quota(usage) == quota_for(usage, price, ratio)[0]


@settings(max_examples=200, deadline=None)
@given(price=prices(), prompt=counts, output=counts, images=st.integers(0, 4), ratio=ratios)
def test_a_hold_is_the_exact_one(price: Price, prompt: int, output: int, images: int, ratio: Decimal) -> None:
    held = Tariff(price, ratio).reserve(prompt, output, images=images)
    assert held == reserve_quota(prompt, output, price, ratio, images=images)


@settings(max_examples=200, deadline=None)
@given(price=prices(), usage=usages(), ratio=ratios)
def test_a_hold_for_a_usage_covers_its_charge_and_no_more(price: Price, usage: Usage, ratio: Decimal) -> None:
    tariff = Tariff(price, ratio)
    assert 0 <= tariff.cover(usage) - quota_for(usage, price, ratio)[0] <= 1


def test_a_hold_for_pictures_goes_by_their_size_and_quality() -> None:
    sizes = {"default": Decimal("0.04"), "1792x1024/hd": Decimal("0.12")}
    tariff = Tariff(Price("p", per_image=sizes), Decimal(1))
    assert tariff.reserve(0, 0, images=2) == 40_000
    assert tariff.reserve(0, 0, images=2, image_size="1792x1024", image_quality="hd") == 120_000


def test_more_than_64_bits_is_refused() -> None:
    tariff = Tariff(Price("m", input=Decimal(1_000_000_000)), Decimal(1))
    with pytest.raises(QuotaOverflow):
        tariff.quota(Usage(input_tokens=2**53 - 1))
    with pytest.raises(QuotaOverflow):
        tariff.reserve(2**53, 0)


@pytest.mark.parametrize("ratio", ["-1", "NaN", "Infinity"])
def test_a_ratio_is_a_number_from_0(ratio: str) -> None:
    with pytest.raises(ValueError, match="ratio"):
        Tariff(Price("m"), Decimal(ratio))
