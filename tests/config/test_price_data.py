"""The prices that ship with the gateway: what every row of `config/prices/` must be, whoever edits it."""

import re
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from tollway.adapters.providers.registry import PROVIDERS
from tollway.config.channel import ChannelType
from tollway.config.price import Price
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Usage, quota_for
from tollway.gateway.cli.demo import MODELS

D = Decimal
ROOT = Path(__file__).parents[2]
FILES = {file.stem: PriceBook.load(file) for file in sorted((ROOT / "config" / "prices").glob("*.toml"))}
BOOK = PriceBook.builtin()
ROWS = {
    f"{file}/{name}": price
    for file, book in FILES.items()
    for name, price in book.prices.items()
    if name == price.model
}
TOKEN_KINDS = ("input", "output", "cached_input", "cache_write_5m", "cache_write_1h")
NOT_TEXT = re.compile(r"embed|rerank|bge-|^voyage-|tts|^speech-|orpheus|pplx-embed")
"""Models that write no tokens: what they read or speak is charged, and their output is 0."""
FREE = re.compile(r"moderation|flash|ernie-(speed|lite|tiny)|hunyuan-lite")
SPELT_IN_CAPITALS = re.compile(r"^[\w.-]+/|^MiniMax-M|^M2-her$|^hunyuan-standard-256K$")
"""Vendors that write names with capitals, and Hugging Face's owner/name."""

each_row = pytest.mark.parametrize("price", ROWS.values(), ids=ROWS.keys())


def steps(price: Price) -> list[Price]:
    """The price and those of its tiers, from the shortest prompt to the longest."""
    return [price, *(tier for _, tier in reversed(price.tier_prices))]


def test_every_file_is_in_the_book() -> None:
    assert sum(len(book.prices) for book in FILES.values()) == len(BOOK.prices)
    assert all(BOOK.prices[name] == price for book in FILES.values() for name, price in book.prices.items())


def test_there_are_enough_models() -> None:
    assert len(ROWS) >= 300


@pytest.mark.parametrize("vendor", ["alibaba", "baidu", "tencent", "volcengine"])
def test_there_are_enough_models_of_the_large_chinese_vendors(vendor: str) -> None:
    assert len([row for row in ROWS if row.startswith(f"{vendor}/")]) >= 15


@each_row
def test_a_row_says_where_its_price_is_published_and_when_it_was_checked(price: Price) -> None:
    assert price.source.startswith("https://") or price.source == "built-in"
    assert price.checked is not None
    assert date(2025, 11, 1) <= price.checked <= date.today()  # noqa: DTZ011 - a day more or less is no matter


@each_row
def test_figures_are_of_the_right_unit(price: Price) -> None:
    for each in [*steps(price), *(period.price for period in price.periods)]:
        for kind in (*TOKEN_KINDS, "input_audio", "output_audio", "input_image", "output_image"):
            usd = each.rates[kind].usd
            assert usd == 0 or D("0.001") <= usd <= 600, f"{kind}: USD per million tokens"
        assert each.per_minute <= 1, "USD per minute"
        assert each.per_call <= D("0.1"), "USD per call"
        assert all(D("0.005") <= usd <= 1 for usd in each.per_image.values()), "USD per image"
        assert all(D("0.5") <= usd <= 50 for usd in each.tools.values()), "USD per 1,000 calls"


@each_row
def test_a_cache_is_cheaper_to_read_than_to_send_again(price: Price) -> None:
    for each in steps(price):
        rates = {kind: each.rates[kind].usd for kind in TOKEN_KINDS}
        assert rates["cached_input"] <= rates["input"]
        assert rates["cached_input"] <= rates["cache_write_5m"] <= rates["cache_write_1h"]


@each_row
def test_output_costs_at_least_what_input_costs(price: Price) -> None:
    for each in steps(price):
        if each.input and not each.output:
            assert NOT_TEXT.search(price.model), "text that costs nothing to write"
        elif each.input:
            assert each.output >= each.input


@each_row
def test_what_is_free_is_known_to_be(price: Price) -> None:
    if not (price.input or price.output or price.per_minute or price.per_call or price.per_image):
        assert FREE.search(price.model)


@each_row
def test_longer_prompts_are_never_cheaper(price: Price) -> None:
    for shorter, longer in pairwise(steps(price)):
        for kind in TOKEN_KINDS:
            assert shorter.rates[kind].usd <= longer.rates[kind].usd


@pytest.mark.parametrize("name", sorted(BOOK.prices))
def test_a_name_is_spelt_as_the_vendor_spells_it(name: str) -> None:
    assert re.fullmatch(r"[\w@./:-]+\*?", name, re.ASCII)
    assert name == name.lower() or SPELT_IN_CAPITALS.search(name)
    # A pattern that is short would give a price to models that nobody has looked at.
    assert not name.endswith("*") or len(name) >= 6


def test_a_pattern_does_not_reach_into_another_model() -> None:
    """Each full name is priced by its own row, also where a pattern of another row begins like it."""
    for name, price in BOOK.prices.items():
        assert BOOK.price_for(name, name) is price


def test_a_yuan_is_worth_the_same_everywhere() -> None:
    rates = {price.currency: price.usd_per_unit for price in ROWS.values()}
    assert rates.keys() == {"USD", "CNY"}
    assert {price.usd_per_unit for price in ROWS.values() if price.currency == "CNY"} == {rates["CNY"]}
    assert D("0.13") < rates["CNY"] < D("0.16")


@pytest.mark.parametrize(
    "model", sorted({*MODELS, *re.findall(r"\bgpt-[\w.]+(?:-mini)?", (ROOT / "README.md").read_text())})
)
def test_the_models_of_the_readme_and_the_demo_have_prices(model: str) -> None:
    assert BOOK.price_for(model, model) is not None


FLAGSHIPS = {
    ChannelType.OPENAI: "gpt-6.1-sol",
    ChannelType.AZURE: "gpt-4o",
    ChannelType.MOONSHOT: "kimi-k3",
    ChannelType.PERPLEXITY: "sonar-pro",
    ChannelType.MISTRAL: "mistral-large-latest",
    ChannelType.DEEPSEEK: "deepseek-chat",
    ChannelType.XAI: "grok-4.7",
    ChannelType.ECHO: "echo",
}
RESELLERS = {
    ChannelType.OPENAI_MAX,
    ChannelType.OH_MY_GPT,
    ChannelType.CUSTOM,
    ChannelType.AILS,
    ChannelType.AI_PROXY,
    ChannelType.API2GPT,
    ChannelType.AIGC2D,
    ChannelType.AI360,
    ChannelType.OPENROUTER,
    ChannelType.FASTGPT,
    ChannelType.LINGYIWANWU,
    ChannelType.SILICONFLOW,
    ChannelType.XINFERENCE,
    ChannelType.SUBMODEL,
    ChannelType.NEW_API,
}
"""Channels with other vendors' models, one's own, or (Lingyiwanwu) with no list that could be had."""


@pytest.mark.parametrize("type", PROVIDERS)
def test_the_models_of_every_provider_have_prices(type: ChannelType) -> None:
    assert type in RESELLERS or BOOK.price_for(FLAGSHIPS[type], FLAGSHIPS[type]) is not None


@pytest.mark.parametrize(
    ("model", "usage", "quota"),
    [
        # 0.8 and 8 yuan; above 32,000 tokens 1.2 and 16, also for what is below; a yuan is 0.143353 USD.
        ("doubao-seed-1-6-251015", Usage(1_000_000 // 50, 1_000), 1720),
        ("doubao-seed-1-6-251015", Usage(100_000, 1_000), 9748),
        ("doubao-seed-1-6-251015", Usage(100_000, 1_000, cached_tokens=90_000), 3039),
        ("ernie-4.5-turbo-128k", Usage(10_000, 1_000, cached_tokens=4_000), 631),
        ("hunyuan-t1-latest", Usage(10_000, 10_000), 3584),
        ("qwen3-max", Usage(32_000, 1_000), 22_200),
        ("qwen3-max", Usage(32_001, 1_000), 44_401),
        ("qwen3-max", Usage(200_000, 1_000, cached_tokens=100_000), 187_500),
        ("qwen-image", Usage(images=2), 35_838),
        ("gpt-6.1-sol-2026-09-29", Usage(300_000, 1_000, tool_calls=(("web_search", 2),)), 617_500),
        ("claude-haiku-5-5-20261001", Usage(100_001), 25_000),
        ("gemini-2.5-pro", Usage(300_000, 0, cached_tokens=300_000), 37_500),
        ("rerank-v3.5", Usage(), 1000),
        ("sonar", Usage(100, 100), 2600),
    ],
)
def test_a_few_bills_by_heart(model: str, usage: Usage, quota: int) -> None:
    price = BOOK.price_for(model, model)
    assert price is not None
    assert quota_for(usage, price, D(1))[0] == quota
