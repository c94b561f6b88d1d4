"""Fields of vendors that let a request cost more: what they ask for is held, or they are refused."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from tollway.adapters.call import Call
from tollway.adapters.errors import BadRequest
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.chargeable import is_sold
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, Usage
from tollway.config.tariff import Tariff
from tollway.middleware.intake import read_call
from tollway.middleware.reservation import clamped, limited, one_token, reservation

CHAT, PICTURES = "/v1/chat/completions", "/v1/images/generations"
OPTIONS = Options(default_max_tokens=500)
BOOK = PriceBook.builtin()


def asking(model: str, path: str = CHAT, **fields: Any) -> Call:
    messages = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {}
    body = orjson.dumps({"model": model, **messages, **fields})
    return read_call(BY_PATH[path], body, b"application/json", (), "")


def tariff_of(model: str) -> Tariff:
    price = BOOK.price_for(model, model)
    assert price is not None
    return Tariff(price, Decimal(1))


def overriding(**fields: Any) -> Channel:
    return Channel(1, "c", ChannelType.OPENAI, ("gpt-4o",), param_override=fields)


# A word is a token of OpenAI's and five bytes here.
WORDS = "word " * 3000


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 0),
        ({"prediction": {"type": "content", "content": WORDS}}, 3000),
        ({"prediction": {"type": "content", "content": [{"type": "text", "text": WORDS}] * 2}}, 6000),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000}}, 9000),
        ({"reasoning": {"max_tokens": 9000}}, 9000),
        ({"enable_thinking": True, "thinking_budget": 9000}, 9000),
        ({"extra_body": {"google": {"thinking_config": {"thinking_budget": 9000}}}}, 9000),
        ({"prediction": {"content": WORDS}, "reasoning": {"max_tokens": 9000}}, 12_000),
        ({"prediction": None, "thinking": True, "reasoning": {"max_tokens": -5}, "thinking_budget": "9"}, 0),
        ({"thinking_budget": 10**18}, 1_048_576),
    ],
)
def test_output_that_is_announced_is_held(fields: dict[str, Any], tokens: int) -> None:
    call, tariff = asking("gpt-4o", **fields), tariff_of("gpt-4o")
    written = Usage(0, OPTIONS.default_max_tokens + tokens)
    assert reservation(call, tariff, OPTIONS) >= tariff.quota(written)
    short = asking("gpt-4o", max_tokens=7, **fields)
    assert reservation(short, tariff, OPTIONS) < tariff.quota(Usage(len(short.body), 8))


def test_a_prediction_is_not_cut_short_by_the_clamp() -> None:
    call = limited(asking("gpt-4o", prediction={"content": WORDS}), tariff_of("gpt-4o"), OPTIONS)
    assert call.output_limit == OPTIONS.default_max_tokens + len(WORDS) // 3


def test_no_more_is_held_than_the_model_writes() -> None:
    call, tariff = asking("glm-4-plus", thinking_budget=100_000), tariff_of("glm-4-plus")
    most = tariff.price.max_output
    assert most is not None
    assert reservation(call, tariff, OPTIONS) <= tariff.quota(Usage(len(call.body), most))


HOUR = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "word " * 1000, "cache_control": HOUR},
        {"role": "user", "content": [{"type": "text", "text": "word " * 1000, "cache_control": HOUR}]},
    ],
    ids=["a message", "a part"],
)
def test_an_hour_in_the_cache_is_held_wherever_it_is_asked_for(message: dict[str, Any]) -> None:
    call, tariff = asking("claude-sonnet-4-5", messages=[message], max_tokens=1), tariff_of("claude-sonnet-4-5")
    written = Usage(1500, 1, cache_write_1h_tokens=1500)
    assert reservation(call, tariff, OPTIONS) >= tariff.quota(written)


@pytest.mark.parametrize("best_of", ["20", 20.0, 0, -1, 129, True, [20]])
def test_answers_to_choose_from_are_a_number_that_everybody_reads_alike(best_of: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        asking("gpt-3.5-turbo-instruct", "/v1/completions", prompt="x", best_of=best_of)
    assert refused.value.param == "best_of"


@pytest.mark.parametrize(
    ("fields", "pictures"),
    [
        ({}, 1),
        ({"n": 4}, 4),
        ({"sequential_image_generation": "disabled"}, 1),
        ({"sequential_image_generation": "auto"}, 15),
        ({"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 3}}, 3),
        ({"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": "3"}}, 15),
        ({"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 10**9}}, 128),
    ],
)
def test_a_series_of_pictures_is_held(fields: dict[str, Any], pictures: int) -> None:
    model = "doubao-seedream-4-0-250828"
    call, tariff = asking(model, PICTURES, prompt="a cat", **fields), tariff_of(model)
    assert reservation(call, tariff, OPTIONS) == tariff.cover(Usage(images=pictures))


@pytest.mark.parametrize(
    ("override", "written"),
    [({"max_tokens": 8000}, 8000), ({"max_completion_tokens": 8000, "n": 3}, 24_000), ({"n": 5}, 500)],
)
def test_what_the_channel_sets_is_held(override: dict[str, Any], written: int) -> None:
    call, tariff = asking("gpt-4o", max_tokens=100), tariff_of("gpt-4o")
    held = reservation(call, tariff, OPTIONS, overriding(**override))
    assert tariff.quota(Usage(0, written)) <= held <= tariff.quota(Usage(len(call.body), written))


def test_the_clamp_counts_the_answers_that_the_channel_asks_for() -> None:
    call, tariff, channel = asking("gpt-4o", max_tokens=100), tariff_of("gpt-4o"), overriding(n=5)
    affordable = tariff.quota(Usage(30, 50))
    smaller = clamped(call, tariff, affordable, channel)
    assert smaller is not None
    assert smaller[0].document == {**(call.document or {}), "max_tokens": smaller[0].output_limit}
    assert 0 < (smaller[0].output_limit or 0) <= 10
    assert one_token(call, tariff, channel) >= tariff.quota(Usage(0, 5))


SPEECH, HEARD = "/v1/audio/speech", "/v1/audio/transcriptions"


@pytest.mark.parametrize(
    ("price", "paths"),
    [
        (Price("m"), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", input=Decimal(1)), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", output_audio=Decimal(1)), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", per_call=Decimal(1), per_minute=Decimal(1)), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", tools={"web_search": Decimal(1)}), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", per_minute=Decimal(1)), {HEARD}),
        (Price("m", per_image={"default": Decimal(1)}), {PICTURES}),
        (Price("m", per_image={"default": Decimal(0)}), {CHAT, PICTURES, SPEECH, HEARD}),
        (Price("m", per_image={"default": Decimal(1)}, per_minute=Decimal(1)), {PICTURES, HEARD}),
        (Price("m", input=Decimal(1), per_minute=Decimal(1)), {CHAT, PICTURES, SPEECH, HEARD}),
    ],
)
def test_what_a_price_has_no_figure_for_is_not_sold(price: Price, paths: set[str]) -> None:
    assert {path for path in (CHAT, PICTURES, SPEECH, HEARD) if is_sold(BY_PATH[path], price)} == paths


def test_every_price_that_comes_along_sells_something() -> None:
    unsold = [name for name, price in BOOK.prices.items() if not any(is_sold(each, price) for each in BY_PATH.values())]
    assert unsold == []


def test_a_better_picture_of_the_channels_choice_is_held() -> None:
    call, tariff = asking("dall-e-3", PICTURES, prompt="a cat"), tariff_of("dall-e-3")
    assert reservation(call, tariff, OPTIONS, overriding(quality="hd", size="1792x1024")) == 60_000  # $0.12
