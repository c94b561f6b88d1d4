"""Usage as vendors report it, and as they should not."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.usage import MOST_TOKENS, merge_usage, read_usage, usage_from
from tollway.config.pricing import Usage

REPORTED = [
    pytest.param(
        {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
        Usage(input_tokens=19, output_tokens=10),
        id="plain",
    ),
    pytest.param(
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 192,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(input_tokens=2006, output_tokens=300, cached_tokens=1920, reasoning_tokens=192),
        id="OpenAI, cached and reasoning",
    ),
    pytest.param(
        {
            "prompt_tokens": 120,
            "completion_tokens": 90,
            "total_tokens": 210,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 80, "text_tokens": 40},
            "completion_tokens_details": {"audio_tokens": 70, "text_tokens": 20},
        },
        Usage(input_tokens=120, output_tokens=90, input_audio_tokens=80, output_audio_tokens=70),
        id="OpenAI, audio",
    ),
    pytest.param(
        {
            "prompt_tokens": 500,
            "completion_tokens": 12,
            "total_tokens": 512,
            "prompt_cache_hit_tokens": 448,
            "prompt_cache_miss_tokens": 52,
        },
        Usage(input_tokens=500, output_tokens=12, cached_tokens=448),
        id="DeepSeek, cached",
    ),
    pytest.param(
        {
            "prompt_tokens": 34,
            "completion_tokens": 20,
            "total_tokens": 154,
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
        Usage(input_tokens=34, output_tokens=120, reasoning_tokens=100),
        id="xAI, reasoning beside the completion",
    ),
    pytest.param(
        {
            "input_tokens": 213,
            "output_tokens": 272,
            "total_tokens": 485,
            "input_tokens_details": {"text_tokens": 19, "image_tokens": 194},
            "output_tokens_details": {"image_tokens": 272, "text_tokens": 0},
        },
        Usage(input_tokens=213, output_tokens=272, input_image_tokens=194, output_image_tokens=272),
        id="OpenAI, images",
    ),
    pytest.param(
        {
            "type": "tokens",
            "input_tokens": 14,
            "output_tokens": 45,
            "total_tokens": 59,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
        },
        Usage(input_tokens=14, output_tokens=45, input_audio_tokens=14),
        id="OpenAI, transcription by tokens",
    ),
    pytest.param({"type": "duration", "seconds": 9}, Usage(seconds=Decimal(9)), id="transcription by seconds"),
    pytest.param({"type": "duration", "seconds": 9.25}, Usage(seconds=Decimal("9.25")), id="parts of a second"),
    pytest.param({"prompt_tokens": 8, "total_tokens": 8}, Usage(input_tokens=8), id="embeddings"),
    pytest.param({"total_tokens": 8}, Usage(input_tokens=8), id="a total alone"),
    pytest.param({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(), id="nothing used"),
    pytest.param(
        {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        Usage(input_tokens=19, output_tokens=10),
        id="OpenAI, details of nothing",
    ),
    pytest.param(
        {
            "prompt_tokens": 500,
            "completion_tokens": 12,
            "prompt_cache_hit_tokens": 448,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        Usage(input_tokens=500, output_tokens=12, cached_tokens=448, reasoning_tokens=5),
        id="cached tokens that the details do not know",
    ),
    pytest.param(
        {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 900},
            "completion_tokens_details": {"reasoning_tokens": 900},
        },
        Usage(input_tokens=5, output_tokens=3, cached_tokens=5, reasoning_tokens=3),
        id="parts beyond their wholes",
    ),
    pytest.param(
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": None, "completion_tokens_details": None},
        Usage(input_tokens=5, output_tokens=3),
        id="null details",
    ),
    pytest.param(
        {"prompt_tokens": 12.0, "completion_tokens": 3.0}, Usage(input_tokens=12, output_tokens=3), id="floats"
    ),
    pytest.param(
        {"prompt_tokens": 5, "prompt_tokens_details": [1]}, Usage(input_tokens=5), id="details of another shape"
    ),
    pytest.param(
        {"prompt_tokens": -7, "completion_tokens": 3}, Usage(output_tokens=3), id="a negative count is no credit"
    ),
    pytest.param(
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 900}},
        Usage(input_tokens=5, cached_tokens=5),
        id="a part is at most its whole",
    ),
    pytest.param(
        {"prompt_tokens": 10**30, "completion_tokens": 2**62},
        Usage(input_tokens=MOST_TOKENS, output_tokens=MOST_TOKENS),
        id="beyond reason",
    ),
]


@pytest.mark.parametrize(("reported", "usage"), REPORTED)
def test_reported_usage(reported: dict[str, Any], usage: Usage) -> None:
    assert read_usage(orjson.loads(orjson.dumps({"usage": _writable(reported)}))) == usage


def _writable(reported: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers beyond 64 bits as the reader sees them."""
    return {
        name: float(value) if isinstance(value, int) and value >= 2**63 else value for name, value in reported.items()
    }


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="no usage"),
        pytest.param({"usage": None}, id="null"),
        pytest.param({"usage": {}}, id="empty"),
        pytest.param({"usage": [1]}, id="an array"),
        pytest.param({"usage": {"queue_time": 0.2}}, id="no count"),
        pytest.param({"usage": {"prompt_tokens": "12", "completion_tokens": True}}, id="counts of other types"),
        pytest.param({"usage": {"prompt_tokens": None, "completion_tokens": None}}, id="null counts"),
        pytest.param({"usage": {"prompt_tokens": -1, "total_tokens": -1}}, id="negative counts"),
        pytest.param({"usage": {"prompt_tokens": 1.5}}, id="a part of a token"),
        pytest.param({"usage": {"prompt_tokens_details": {"cached_tokens": 5}}}, id="details alone"),
        pytest.param({"usage": {"seconds": True}}, id="seconds that are true"),
        pytest.param({"usage": {"seconds": -3}}, id="negative seconds"),
        pytest.param({"usage": {"seconds": float("nan")}}, id="seconds that are no number"),
        pytest.param({"usage": {"seconds": float("inf")}}, id="seconds without end"),
    ],
)
def test_what_reports_nothing_is_estimated_later(answer: dict[str, Any]) -> None:
    assert read_usage(answer) is None


NAMES = [
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "seconds",
    "prompt_cache_hit_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
    "input_token_details",
    "cached_tokens",
    "audio_tokens",
    "image_tokens",
    "reasoning_tokens",
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)
HOSTILE = st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=8), max_leaves=12)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=8))
def test_no_report_is_a_credit_or_an_accident(reported: dict[str, Any]) -> None:
    usage = usage_from(reported)
    if usage is None:
        return
    parts_in = (usage.cached_tokens, usage.input_audio_tokens, usage.input_image_tokens)
    parts_out = (usage.output_audio_tokens, usage.output_image_tokens, usage.reasoning_tokens)
    assert 0 <= usage.input_tokens <= MOST_TOKENS
    assert 0 <= usage.output_tokens <= MOST_TOKENS
    assert 0 <= usage.seconds < MOST_TOKENS
    assert all(0 <= part <= usage.input_tokens for part in parts_in)
    assert all(0 <= part <= usage.output_tokens for part in parts_out)


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        pytest.param(Usage(10, 5), Usage(10, 5), Usage(10, 5), id="told twice"),
        pytest.param(Usage(10, 5, cached_tokens=8), Usage(), Usage(10, 5, cached_tokens=8), id="zeros at the end"),
        pytest.param(Usage(10, 0), Usage(0, 7), Usage(10, 7), id="a half each"),
        pytest.param(
            Usage(10, 2), Usage(10, 9, reasoning_tokens=3), Usage(10, 9, reasoning_tokens=3), id="a sum grows"
        ),
        pytest.param(Usage(seconds=Decimal(3)), Usage(1, 1), Usage(1, 1, seconds=Decimal(3)), id="seconds and tokens"),
        pytest.param(Usage(1, 1, estimated=True), Usage(2, 2), Usage(2, 2, estimated=True), id="an estimate stays one"),
    ],
)
def test_reports_of_one_answer_together(earlier: Usage, later: Usage, merged: Usage) -> None:
    assert merge_usage(earlier, later) == merge_usage(later, earlier) == merged
