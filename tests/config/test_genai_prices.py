"""
Cost compared with genai-prices, an independent collection of vendors' prices with its own arithmetic.

Every model that both know is charged for the same usages by both, at fixed times. The quota must be the very one that
the dollars of genai-prices round to; one of it is a fiftieth of a cent of a cent. Where the two differ on purpose,
`DIFFERENCES` says why, and a difference that is gone must leave the table.

When a vendor changes its prices: install a newer genai-prices, and the rows to look at fail here by name.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import data, extract_usage
from genai_prices.types import ModelInfo, Provider
from tollway.adapters.usage.reported import read_usage
from tollway.config.price import Price
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Usage, quota_for

BOOK = PriceBook.builtin()
# DeepSeek charges more by day: this is one of its peak hours, whose prices the book has.
NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
NEXT_YEAR = datetime(2027, 1, 15, 2, tzinfo=UTC)

PROVIDERS = {
    "amazon": "aws",
    "anthropic": "anthropic",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "groq": "groq",
    "meta": "meta",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "perplexity": "perplexity",
    "together": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
    "zhipu": "zai",
}
"""Our price file: their provider."""

USAGES = {
    "plain": {"input_tokens": 1_234, "output_tokens": 567},
    "cached": {"input_tokens": 54_321, "output_tokens": 987, "cache_read_tokens": 43_210},
    "written": {"input_tokens": 9_876, "output_tokens": 321, "cache_write_tokens": 6_543},
    "written for an hour": {
        "input_tokens": 9_876,
        "output_tokens": 321,
        "cache_read_tokens": 1_111,
        "cache_write_tokens": 6_543,
        "cache_write_1h_tokens": 4_321,
    },
    "audio": {"input_tokens": 4_000, "output_tokens": 900, "input_audio_tokens": 3_500, "output_audio_tokens": 800},
    "images": {
        "input_tokens": 1_600,
        "output_tokens": 4_500,
        "input_image_tokens": 1_500,
        "output_image_tokens": 4_160,
    },
    "long": {"input_tokens": 150_001, "output_tokens": 100},
    "longer": {"input_tokens": 272_001, "output_tokens": 4_000, "cache_read_tokens": 200_000},
    "longest": {"input_tokens": 900_000, "output_tokens": 20_000, "cache_write_tokens": 300_000},
    "searched": {"input_tokens": 700, "output_tokens": 300, "web_searches": 3},
}
CACHED_AUDIO = {
    "input_tokens": 4_000,
    "output_tokens": 900,
    "input_audio_tokens": 3_000,
    "cache_read_tokens": 2_500,
    "cache_audio_read_tokens": 2_000,
}
SPEECH = {"input_characters": 4_096}
MINUTES = {"input_tokens": 100, "output_tokens": 400, "audio_seconds": 95, "input_audio_seconds": 95}

REQUEST_FEE = "theirs is the fee of the largest search context, ours of the one taken when the caller names none"
AUDIO_CACHE = "audio read from a cache has its own price there; here it is charged as cached text"
DIFFERENCES = {
    ("gpt-5-search-api", "*"): "every request searches the web: ours adds 10 USD per 1,000",
    ("gpt-4o-search-preview", "*"): "every request searches the web: ours adds 25 USD per 1,000",
    ("gpt-4o-mini-search-preview", "*"): "every request searches the web: ours adds 25 USD per 1,000",
    ("gpt-4o-audio-preview", "audio"): "theirs lacks the prices of audio tokens, 40 and 80",
    ("gpt-4o-mini-audio-preview", "audio"): "theirs lacks the prices of audio tokens, 10 and 20",
    ("gpt-realtime-mini", "cached audio"): AUDIO_CACHE,
    ("gemini-*", "cached audio"): AUDIO_CACHE,
    ("grok-*", "searched"): "theirs lacks the price of a search, 5 USD per 1,000",
    ("mistral-embed", "*"): "embeddings have no output; theirs has a price for it",
    ("sonar", "*"): REQUEST_FEE,
    ("sonar-pro", "*"): REQUEST_FEE,
    ("sonar-reasoning", "*"): REQUEST_FEE,
    ("sonar-reasoning-pro", "*"): REQUEST_FEE,
    ("embed-v4.0", "images"): "theirs lacks the price of image tokens, 0.47",
}
"""(model, usage) that the two charge differently, and why. `*` stands for any."""


class Row(NamedTuple):
    """A row of ours, the name to ask for it by, and the model it is there."""

    name: str
    price: Price
    provider: Provider
    model: ModelInfo


def rows() -> Iterator[Row]:
    """Every row of ours in dollars whose model genai-prices has."""
    by_id = {provider.id: provider for provider in data.providers}
    folder = Path(__file__).parents[2] / "config" / "prices"
    for file, provider_id in PROVIDERS.items():
        provider = by_id[provider_id]
        for model, price in PriceBook.load(folder / f"{file}.toml").prices.items():
            name = model.removesuffix("*") + "08-06:us" if model.endswith("*") else model
            theirs = provider.find_model(name)
            if price.model == model and price.currency == "USD" and theirs is not None:
                yield Row(name, price, provider, theirs)


ROWS = list(rows())


def usages_of(row: Row) -> dict[str, dict[str, int]]:
    """The usages that a call of this model can have."""
    charged = row.model.get_prices(NOW)
    if charged.input_mchars is not None:
        return {"speech": SPEECH}
    if charged.audio_hours is not None:
        return {"minutes": MINUTES}
    return USAGES | ({"cached audio": CACHED_AUDIO} if charged.cache_audio_read_mtok is not None else {})


def ours(theirs: dict[str, int], price: Price) -> Usage:
    """The same usage in our kinds, in which a part is of one kind only."""
    hour = theirs.get("cache_write_1h_tokens", 0)
    searches = theirs.get("web_searches", 0)
    return Usage(
        # Speech is charged by the character, and counted as input.
        input_tokens=theirs.get("input_tokens", 0) + theirs.get("input_characters", 0),
        output_tokens=theirs.get("output_tokens", 0),
        cached_tokens=theirs.get("cache_read_tokens", 0),
        cache_write_5m_tokens=theirs.get("cache_write_tokens", 0) - hour,
        cache_write_1h_tokens=hour,
        input_audio_tokens=theirs.get("input_audio_tokens", 0) - theirs.get("cache_audio_read_tokens", 0),
        output_audio_tokens=theirs.get("output_audio_tokens", 0),
        input_image_tokens=theirs.get("input_image_tokens", 0),
        output_image_tokens=theirs.get("output_image_tokens", 0),
        seconds=Decimal(theirs.get("audio_seconds", 0)),
        tool_calls=(("google_search" if "google_search" in price.tools else "web_search", searches),),
    )


def quota_of(usd: Decimal) -> int:
    """Dollars as quota, by the rule of the product: half up, and at least 1 for what costs anything."""
    quota = int((usd * 500_000).quantize(Decimal(1), ROUND_HALF_UP))
    return quota if quota or not usd else 1


def differing(row: Row, at: datetime) -> dict[str, tuple[int, int]]:
    """The usages that the two charge differently at a time: our quota and theirs."""
    found: dict[str, tuple[int, int]] = {}
    price = row.price.at(at.timestamp())
    for name, usage in usages_of(row).items():
        theirs = row.model.calc_price(TheirUsage(**usage), row.provider, genai_request_timestamp=at)
        pair = quota_for(ours(usage, price), price, Decimal(1))[0], quota_of(theirs.total_price)
        if pair[0] != pair[1]:
            found[name] = pair
    return found


def unexplained(row: Row, at: datetime) -> dict[str, tuple[int, int]]:
    return {usage: pair for usage, pair in differing(row, at).items() if not reasons(row, usage)}


def reasons(row: Row, usage: str) -> list[tuple[str, str]]:
    """The entries of `DIFFERENCES` that speak of this."""
    return [key for key in DIFFERENCES if fnmatchcase(row.name, key[0]) and fnmatchcase(usage, key[1])]


def test_there_is_enough_to_compare() -> None:
    assert len(ROWS) >= 300
    assert {row.provider.id for row in ROWS} == set(PROVIDERS.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("at", [NOW, NEXT_YEAR], ids=["now", "next year"])
def test_a_call_costs_the_same(row: Row, at: datetime) -> None:
    assert not unexplained(row, at)


@pytest.mark.parametrize("row", [row for row in ROWS if row.price.periods], ids=lambda row: row.name)
def test_a_price_changes_on_the_same_day(row: Row) -> None:
    for period in row.price.periods:
        for moment in (period.since, period.until):
            if moment is not None:
                assert not unexplained(row, moment - timedelta(seconds=1))
                assert not unexplained(row, moment)


def test_every_difference_that_is_explained_is_there() -> None:
    found = {key for row in ROWS for usage in differing(row, NOW) for key in reasons(row, usage)}
    assert found == DIFFERENCES.keys()


@pytest.mark.parametrize("file", sorted((Path(__file__).parent / "usages").glob("*.json")), ids=lambda file: file.stem)
def test_a_vendors_answer_costs_the_same(file: Path) -> None:
    """From the answer itself: `usages/` has one of each vendor's ways to report what a call used."""
    record = json.loads(file.read_text())
    answer = record["answer"]
    usage = read_usage(answer)
    assert usage is not None
    price = BOOK.price_for(answer["model"], answer["model"])
    assert price is not None
    theirs = extract_usage(answer, provider_id=record["provider"], api_flavor=record["api_flavor"])
    cost = theirs.calc_price(genai_request_timestamp=NOW).total_price
    assert cost
    assert quota_for(usage, price.at(NOW.timestamp()), Decimal(1))[0] == quota_of(cost)
