"""The worked examples of New API's formulas, with prices taken over from its ratios: each to the unit."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from tollway.config.groups import GroupRatios
from tollway.config.price import Price, Tier
from tollway.config.pricing import Usage, quota_for, quota_to_hold
from tollway.config.ratios import import_ratios

D = Decimal

PRICES = import_ratios(
    json.dumps(
        {
            "ModelRatio": {
                "gpt-4o": 1.25,
                "gpt-4o-mini": 0.075,
                "claude-sonnet-4-5-20250929": 1.5,
                "gpt-image-1": 2.5,
                "gpt-4o-realtime-preview": 2.5,
                "gpt-4o-realtime": 2.5,
                "text-embedding-3-small": 0.01,
                "gemini-2.5-flash": 0.15,
            },
            "ModelPrice": {"task": 0.3},
            "CompletionRatio": {"gpt-image-1": 8},
            "CacheRatio": {"gpt-4o": 0.5, "claude-sonnet-4-5-20250929": 0.1},
            "CreateCacheRatio": {"claude-sonnet-4-5-20250929": 1.25},
            "ImageRatio": {"gpt-image-1": 2},
            "AudioRatio": {"gpt-4o-realtime-preview": 8, "gpt-4o-realtime": 8},
            "AudioCompletionRatio": {"gpt-4o-realtime": 2},
        }
    ),
    source="the reference",
    checked=date(2026, 11, 20),
).prices
SONNET, REALTIME = PRICES["claude-sonnet-4-5-20250929"], "gpt-4o-realtime-preview"
DALL_E_3 = Price(
    "dall-e-3",
    per_image={"default": D("0.04"), "1792x1024": D("0.08"), "1792x1024/hd": D("0.12"), "1024x1024": D("0.04")},
)
SPOKEN = Usage(500, 350, input_audio_tokens=400, output_audio_tokens=300)
VIP = GroupRatios(special={"vip": {"default": D("0.9")}}).ratio("vip", "default")


@pytest.mark.parametrize(
    ("usage", "price", "ratio", "quota"),
    [
        pytest.param(Usage(1000, 500, cached_tokens=200), PRICES["gpt-4o"], D(1), 3625, id="1: a cached prompt"),
        pytest.param(
            Usage(9000, 800, cached_tokens=5000, cache_write_5m_tokens=2000, cache_write_1h_tokens=1000),
            SONNET,
            D("0.8"),
            12000,
            id="2: cache writes for five minutes and an hour",
        ),
        pytest.param(
            Usage(images=1, image_size="1792x1024", image_quality="hd"), DALL_E_3, D(1), 60000, id="4: wide and hd"
        ),
        pytest.param(Usage(images=2, image_size="1024x1024"), DALL_E_3, D(1), 40000, id="4b: two square ones"),
        pytest.param(
            Usage(350, 1056, input_image_tokens=300),
            PRICES["gpt-image-1"],
            D(1),
            22745,
            id="5: a picture from a picture",
        ),
        pytest.param(SPOKEN, PRICES[REALTIME], D(1), 14750, id="6: realtime"),
        pytest.param(SPOKEN, PRICES["gpt-4o-realtime"], D(1), 20750, id="6b: with an audio completion ratio of 2"),
        pytest.param(
            Usage(1000, 200, tool_calls=(("web_search_preview", 2),)),
            replace(PRICES["gpt-4o"], tools={"web_search_preview": D(25)}),
            D(1),
            27250,
            id="7: two searches",
        ),
        pytest.param(Usage(3), PRICES["text-embedding-3-small"], D(1), 1, id="8: the minimum"),
        pytest.param(
            Usage(250_000, 1000),
            Price("long", input=D(3), output=D(15), tiers=(Tier(200_000, {"input": D(6), "output": D("22.5")}),)),
            D(1),
            761250,
            id="9: the tier of a long prompt",
        ),
        pytest.param(Usage(), PRICES["task"], D(1), 150000, id="10: a task"),
        pytest.param(Usage(1000, 500), SONNET, VIP, 4725, id="11: a group that pays another share in this group"),
        pytest.param(
            Usage(1500, 100, input_audio_tokens=1000),
            replace(PRICES["gemini-2.5-flash"], input_audio=D(1)),
            D(1),
            700,
            id="12: audio heard at a price of its own",
        ),
        pytest.param(Usage(501), PRICES["gpt-4o-mini"], D(1), 38, id="13: 37.575 settles as 38"),
    ],
)
def test_a_charge(usage: Usage, price: Price, ratio: Decimal, quota: int) -> None:
    assert quota_for(usage, price, ratio)[0] == quota


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "model", "theirs", "ours"),
    [
        pytest.param(500, 1000, "gpt-4o", 1875, 5625, id="3: output is held at the price of output"),
        pytest.param(500, 0, "gpt-4o", 625, 625, id="3b: no output limit, no output"),
        pytest.param(501, 0, "gpt-4o-mini", 37, 38, id="13: a hold is rounded up, and covers what it is for"),
    ],
)
def test_a_hold_is_what_it_is_there_or_covers_more(
    input_tokens: int, output_tokens: int, model: str, theirs: int, ours: int
) -> None:
    price = PRICES[model]
    held = quota_to_hold(Usage(input_tokens, output_tokens), price, D(1))
    assert held == ours >= theirs
    assert int((input_tokens + output_tokens) * price.rates["input"].quota) == theirs
