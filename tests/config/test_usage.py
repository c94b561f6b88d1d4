"""A usage is made of counts that can be charged."""

from decimal import Decimal
from typing import Any

import pytest
from tollway.config.usage import Usage

D = Decimal
COUNTS = [
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "reasoning_tokens",
    "images",
]


@pytest.mark.parametrize("name", COUNTS)
def test_a_usage_is_never_negative(name: str) -> None:
    count: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match="counts >= 0"):
        Usage(**count)


@pytest.mark.parametrize("seconds", ["-0.1", "NaN", "Infinity"])
def test_a_duration_is_a_length_of_time(seconds: str) -> None:
    with pytest.raises(ValueError, match="counts >= 0"):
        Usage(seconds=D(seconds))


def test_calls_of_a_tool_are_never_negative() -> None:
    with pytest.raises(ValueError, match="counts >= 0"):
        Usage(tool_calls=(("file_search", 2), ("web_search", -1)))
