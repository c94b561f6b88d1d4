"""What a record would cost at another price."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.price import Price, Tier
from tollway.config.pricing import Usage
from tollway.config.repricing import reprice
from tollway.config.tariff import Tariff

D = Decimal


@dataclass(frozen=True)
class Record:
    quota: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    breakdown: Mapping[str, Any] = field(default_factory=dict[str, Any])


def recorded(usage: Usage, tariff: Tariff) -> Record:
    """The record as it comes back from the database."""
    bill = orjson.loads(orjson.dumps(tariff.bill(usage)))
    return Record(tariff.quota(usage), usage.input_tokens, usage.output_tokens, usage.cached_tokens, bill)


OLD = Price(
    "m",
    input=D(2),
    output=D(8),
    cached_input=D(1),
    per_minute=D("0.006"),
    per_image={"default": D("0.04"), "1024x1024/hd": D("0.08")},
    tools={"web_search": D(10)},
    tiers=(Tier(1000, {"input": D(4)}),),
)
counts = st.integers(0, 3000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    parts = {
        name: draw(counts)
        for name in ("cached_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "input_audio_tokens")
    }
    spoken = draw(counts)
    return Usage(
        draw(counts) + sum(parts.values()),
        draw(counts) + spoken,
        **parts,
        output_audio_tokens=spoken,
        images=draw(st.integers(0, 3)),
        seconds=draw(st.decimals(0, 100, places=2)),
        image_size=draw(st.sampled_from(("", "1024x1024"))),
        image_quality=draw(st.sampled_from(("", "hd"))),
        tool_calls=draw(st.sampled_from(((), (("web_search", 2),)))),
    )


@settings(deadline=None, max_examples=200)
@given(usage=usages(), ratio=st.decimals(0, 3, places=2), share=st.none() | st.decimals(0, 1, places=2))
def test_at_its_own_price_nothing_changes(usage: Usage, ratio: Decimal, share: Decimal | None) -> None:
    assert reprice(recorded(usage, Tariff(OLD, ratio, share)), OLD) == 0


NEW = Price(
    "m",
    input=D(3),
    output=D(6),
    cached_input=D(2),
    input_audio=D(9),
    cache_write_5m=D(5),
    per_minute=D("0.01"),
    per_image={"default": D("0.01"), "1024x1024/hd": D("0.05")},
    tools={"web_search": D(20)},
    tiers=(Tier(2000, {"input": D(1)}),),
)


@settings(deadline=None, max_examples=200)
@given(usage=usages(), ratio=st.decimals(0, 3, places=2), share=st.none() | st.decimals(0, 1, places=2))
def test_the_difference_is_that_of_the_two_charges(usage: Usage, ratio: Decimal, share: Decimal | None) -> None:
    old, new = Tariff(OLD, ratio, share), Tariff(NEW, ratio, share)
    assert reprice(recorded(usage, old), NEW) == new.quota(usage) - old.quota(usage)


@pytest.mark.parametrize(
    ("usage", "price", "ratio", "difference"),
    [
        pytest.param(Usage(100, 10), Price("m", input=D(4), output=D(8)), "1", 100, id="dearer"),
        pytest.param(Usage(100, 10), Price("m"), "1", -140, id="free"),
        pytest.param(Usage(100, 10), Price("m", input=D(4), output=D(8)), "0.5", 50, id="in a cheaper group"),
    ],
)
def test_by_how_much(usage: Usage, price: Price, ratio: str, difference: int) -> None:
    assert reprice(recorded(usage, Tariff(OLD, D(ratio))), price) == difference


def test_what_was_served_for_nothing_has_no_bill_but_its_tokens() -> None:
    assert reprice(Record(0, 100, 10, 40), OLD) == 60 + 40 // 2 + 40
