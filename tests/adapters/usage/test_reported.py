"""Usage as vendors report it, and as they should not."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.usage.reported import MOST_CALLS, MOST_TOKENS, merge_usage, read_usage, usage_from
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
            "prompt_tokens": 412,
            "completion_tokens": 64,
            "total_tokens": 476,
            "prompt_tokens_details": {"cached_tokens": 400},
            "completion_tokens_details": None,
        },
        Usage(412, 64, cached_tokens=400),
        id="vLLM, nothing to say of the completion",
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
    pytest.param(
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 100, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1},
            "cost": 0.95,
        },
        Usage(194, 2, cached_tokens=40, cache_write_5m_tokens=100, reasoning_tokens=1),
        id="OpenRouter, cache read and written",
    ),
    pytest.param(
        {
            "prompt_tokens": 9000,
            "completion_tokens": 800,
            "total_tokens": 9800,
            "prompt_tokens_details": {"cached_tokens": 5000, "cached_creation_tokens": 3000},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "claude_cache_creation_5_m_tokens": 2000,
            "claude_cache_creation_1_h_tokens": 1000,
        },
        Usage(9000, 800, cached_tokens=5000, cache_write_5m_tokens=2000, cache_write_1h_tokens=1000),
        id="New API, both kinds of writes",
    ),
    pytest.param(
        {
            "prompt_tokens": 9000,
            "completion_tokens": 800,
            "total_tokens": 9800,
            "prompt_tokens_details": {
                "cached_tokens": 5000,
                "cache_creation_input_tokens": 3000,
                "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
                "cache_type": "ephemeral",
            },
        },
        Usage(9000, 800, cached_tokens=5000, cache_write_5m_tokens=2000, cache_write_1h_tokens=1000),
        id="Alibaba's explicit cache",
    ),
    pytest.param(
        {
            "prompt_tokens": 9000,
            "completion_tokens": 800,
            "total_tokens": 9800,
            "prompt_tokens_details": {
                "cached_tokens": 5000,
                "cache_creation_tokens": 3000,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
            },
            "cache_creation_input_tokens": 3000,
            "cache_read_input_tokens": 5000,
        },
        Usage(9000, 800, cached_tokens=5000, cache_write_5m_tokens=2000, cache_write_1h_tokens=1000),
        id="LiteLLM, writes inside of the prompt",
    ),
    pytest.param(
        {
            "input_tokens": 1000,
            "output_tokens": 800,
            "cache_read_input_tokens": 5000,
            "cache_creation_input_tokens": 3000,
            "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
            "server_tool_use": {"web_search_requests": 2},
        },
        Usage(
            9000,
            800,
            cached_tokens=5000,
            cache_write_5m_tokens=2000,
            cache_write_1h_tokens=1000,
            tool_calls=(("web_search", 2),),
        ),
        id="Anthropic, writes beside the input",
    ),
    pytest.param(
        {"prompt_tokens": 1000, "completion_tokens": 8, "cache_read_input_tokens": 5000},
        Usage(6000, 8, cached_tokens=5000),
        id="more read from the cache than the prompt can hold",
    ),
    pytest.param(
        {"prompt_tokens": 500, "completion_tokens": 12, "total_tokens": 512, "cached_tokens": 448},
        Usage(500, 12, cached_tokens=448),
        id="Moonshot, cached",
    ),
    pytest.param(
        {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "num_search_queries": 18},
        Usage(5, 9, tool_calls=(("web_search", 18),)),
        id="Perplexity, searches",
    ),
    pytest.param(
        {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "num_sources_used": 4},
        Usage(5, 9, tool_calls=(("web_search", 4),)),
        id="xAI, sources",
    ),
    pytest.param(
        {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2},
            "server_tool_use": {"web_search_requests": 10**6},
        },
        Usage(5, 9, reasoning_tokens=2, tool_calls=(("web_search", MOST_CALLS),), suspicious=True),
        id="searches beyond reason",
    ),
    pytest.param(
        {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": -4},
            "server_tool_use": {"web_search_requests": -3},
        },
        Usage(5, 9, suspicious=True),
        id="a negative search is no credit",
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
        Usage(input_tokens=5, output_tokens=3, cached_tokens=5, reasoning_tokens=3, suspicious=True),
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
    pytest.param({"seconds": 1e-300}, Usage(seconds=Decimal("1e-18")), id="seconds of more digits than a bill has"),
    pytest.param(
        {"prompt_tokens": -7, "completion_tokens": 3},
        Usage(output_tokens=3, suspicious=True),
        id="a negative count is no credit",
    ),
    pytest.param(
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 900}},
        Usage(input_tokens=5, cached_tokens=5, suspicious=True),
        id="a part is at most its whole",
    ),
    pytest.param(
        {"prompt_tokens": 10**30, "completion_tokens": 2**62},
        Usage(input_tokens=MOST_TOKENS, output_tokens=MOST_TOKENS, suspicious=True),
        id="beyond reason",
    ),
    pytest.param(
        {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 105},
        Usage(9, 96, reasoning_tokens=93),
        id="Google, thinking in the total alone",
    ),
    pytest.param(
        {
            "completion_tokens": 0,
            "prompt_tokens": 9,
            "total_tokens": 109,
            "prompt_tokens_details": {"cached_tokens": 5},
        },
        Usage(9, 100, cached_tokens=5, reasoning_tokens=100),
        id="Google, thinking that came to no answer",
    ),
    pytest.param(
        {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264},
        Usage(4, 635),
        id="Mistral, sound in the total alone",
    ),
    pytest.param(
        {"prompt_tokens": 9, "total_tokens": 20},
        Usage(9),
        id="a total beyond an input without an output is no thinking",
    ),
    pytest.param(
        {"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 20}, Usage(0, 5), id="nor is one without an input"
    ),
    pytest.param(
        {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 10}, Usage(9, 5), id="a total that is too small"
    ),
]


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        pytest.param(
            {"choices": [{"usage": {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4}}]},
            Usage(9, 5, cached_tokens=4),
            id="alone",
        ),
        pytest.param(
            {
                "choices": [{"usage": {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4}}, {"index": 1}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
            },
            Usage(9, 12, cached_tokens=4),
            id="beside one that leaves out what was cached",
        ),
        pytest.param({"choices": [None, {"usage": {}}, {"usage": 1}]}, None, id="that says nothing"),
    ],
)
def test_a_usage_among_the_choices(answer: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(answer) == usage


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
        pytest.param({"usage": {"prompt_tokens_details": {"cached_tokens": 5}}}, id="details alone"),
        pytest.param({"usage": {"seconds": True}}, id="seconds that are true"),
    ],
)
def test_what_reports_nothing_is_estimated_later(answer: dict[str, Any]) -> None:
    assert read_usage(answer) is None


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param({"prompt_tokens": -1, "total_tokens": -1}, id="negative counts"),
        pytest.param({"prompt_tokens": 1.5}, id="a part of a token"),
        pytest.param({"seconds": -3}, id="negative seconds"),
        pytest.param({"seconds": float("nan")}, id="seconds that are no number"),
        pytest.param({"seconds": float("inf")}, id="seconds without end"),
        pytest.param({"seconds": 2**40}, id="seconds beyond reason"),
    ],
)
def test_what_reports_nothing_that_can_be_true_is_suspicious(usage: dict[str, Any]) -> None:
    assert usage_from(usage) == Usage(suspicious=True)


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
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
    "cache_write_tokens",
    "server_tool_use",
    "web_search_requests",
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
    parts_in = (
        usage.cached_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.input_audio_tokens,
        usage.input_image_tokens,
    )
    parts_out = (usage.output_audio_tokens, usage.output_image_tokens, usage.reasoning_tokens)
    assert 0 <= usage.input_tokens <= MOST_TOKENS
    assert 0 <= usage.output_tokens <= MOST_TOKENS
    assert 0 <= usage.seconds < MOST_TOKENS
    assert all(0 <= part <= usage.input_tokens for part in parts_in)
    assert all(0 <= part <= usage.output_tokens for part in parts_out)
    assert all(0 < calls <= MOST_CALLS for _, calls in usage.tool_calls)


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
        pytest.param(
            Usage(10, 9), Usage(10, 2), Usage(10, 9, suspicious=True), id="a sum that shrinks contradicts itself"
        ),
        pytest.param(Usage(10, 9), Usage(7, 9), Usage(10, 9, suspicious=True), id="and so does an input"),
        pytest.param(
            Usage(10, 2, tool_calls=(("web_search", 3),)),
            Usage(10, 9, tool_calls=(("file_search", 1), ("web_search", 1))),
            Usage(10, 9, tool_calls=(("file_search", 1), ("web_search", 3))),
            id="of each tool the most calls",
        ),
        pytest.param(
            Usage(10, 2, tool_calls=(("web_search", 3),)),
            Usage(10, 9),
            Usage(10, 9, tool_calls=(("web_search", 3),)),
            id="calls told once",
        ),
    ],
)
def test_reports_of_one_answer_together(earlier: Usage, later: Usage, merged: Usage) -> None:
    assert merge_usage(earlier, later) == merged
