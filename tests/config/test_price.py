"""What a price refuses to be, and what names it."""

import hashlib
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from tollway.config.price import Tier, read_cache_ratio
from tollway.config.pricing import Price, PriceError

D = Decimal

FIGURES = [
    pytest.param({"input": D("-0.01")}, "input: must not be negative", id="negative"),
    pytest.param({"output": D("NaN")}, "output: must be a finite number", id="not a number"),
    pytest.param({"cached_input": D("Infinity")}, "cached_input: must be a finite number", id="endless"),
    pytest.param({"per_call": D("1E+10")}, "per_call: must be at most", id="absurdly high"),
    pytest.param({"per_minute": D("1E-41")}, "per_minute: must have at most 40 decimals", id="absurdly fine"),
    pytest.param({"input_audio": 0.1}, "input_audio: must be a Decimal in USD, not float", id="a float"),
    pytest.param({"per_image": {"default": D(-1)}}, "per_image.default: must not be negative", id="a negative image"),
    pytest.param({"tools": {"web_search": D(-1)}}, "tools.web_search: must not be negative", id="a negative tool"),
    pytest.param({"tools": {"telepathy": D(1)}}, "tools.telepathy: unknown tool", id="a tool that is not one"),
    pytest.param(
        {"prompt_cache_ratio": D("1.1")}, "prompt_cache_ratio: must be a number from 0 to 1", id="a surcharge"
    ),
    pytest.param({"prompt_cache_ratio": D("NaN")}, "prompt_cache_ratio: must be a number", id="a ratio that is none"),
    pytest.param(
        {"prompt_cache_ratio": D(1), "cached_input": D(1)},
        "prompt_cache_ratio: stands beside cached_input",
        id="two prices of cached input",
    ),
    pytest.param({"max_output": 0}, "max_output: must be a whole number from 1", id="a model that writes nothing"),
    pytest.param({"per_image": {"256x256": D(1)}}, 'per_image: needs a "default"', id="images without a default"),
]


@pytest.mark.parametrize(("figures", "message"), FIGURES)
def test_a_figure_that_cannot_be_charged_is_refused(figures: dict[str, Any], message: str) -> None:
    with pytest.raises(PriceError, match="price of 'm': ") as refused:
        Price("m", **figures)
    assert message in str(refused.value)
    assert (refused.value.model, refused.value.field) == ("m", message.partition(":")[0])


def test_the_version_names_the_figures() -> None:
    first = Price("gpt-4o", input=D("2.50"), output=D(10), source="page")
    again = Price("gpt-4o", input=D("2.5"), output=D("10.0"), source="another page")
    assert first.version == again.version
    changed = [
        replace(first, input=D("2.51")),
        replace(first, cached_input=D(0)),
        replace(first, per_image={"default": D(1)}),
        replace(first, tools={"web_search": D(1)}),
        replace(first, prompt_cache_ratio=D(0)),
        replace(first, tiers=(Tier(1000, {"input": D(3)}),)),
        replace(first, tiers=(Tier(2000, {"input": D(3)}),)),
    ]
    assert len({first.version, *(other.version for other in changed)}) == 8


def test_a_version_is_the_same_in_every_release() -> None:
    assert Price("m", input=D("2.5"), output=D(10)).version == hashlib.sha256(b"input=2.5;output=10").hexdigest()[:12]


@pytest.mark.parametrize(
    ("text", "ratio"), [("0", D(0)), ("1", D(1)), (" 0.25 ", D("0.25")), ("", None), (" ", None), ("1e-1", D("0.1"))]
)
def test_a_cache_ratio_as_a_setting(text: str, ratio: Decimal | None) -> None:
    assert read_cache_ratio(text) == ratio


@pytest.mark.parametrize("text", ["-0.1", "1.1", "NaN", "Infinity", "half", "0." + "0" * 18 + "1"])
def test_a_cache_ratio_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        read_cache_ratio(text)
