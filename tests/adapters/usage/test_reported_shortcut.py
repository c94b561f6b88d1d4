"""A report in the usual form is read by a shortcut; it says what the careful reading says."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.usage.reported import usage_from
from tollway.config.pricing import Usage

COUNTS = st.sampled_from([0, 1, 5, 30, -1, None, 2.5])
INPUTS = [
    "cached_tokens",
    "audio_tokens",
    "image_tokens",
    "text_tokens",
    "cache_write_tokens",
    "cached_creation_tokens",
    "cache_creation_tokens",
]
OUTPUTS = ["reasoning_tokens", "audio_tokens", "image_tokens", "accepted_prediction_tokens"]
MORE: dict[str, Any] = {
    "total_tokens": 40,
    "cached_tokens": 3,
    "cost": 0.1,
    "prompt_cache_hit_tokens": 3,
    "cache_read_input_tokens": 3,
    "cache_creation_input_tokens": 20,
    "cache_creation": {"ephemeral_1h_input_tokens": 3},
    "claude_cache_creation_1_h_tokens": 3,
    "num_search_queries": 2,
    "num_sources_used": 2,
    "server_tool_use": {"web_search_requests": 2},
}


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(
    st.dictionaries(st.sampled_from(INPUTS), COUNTS, max_size=3),
    st.dictionaries(st.sampled_from(OUTPUTS), COUNTS, max_size=3),
    st.sets(st.sampled_from(list(MORE)), max_size=2),
)
def test_the_shortcut_loses_nothing(inputs: dict[str, Any], outputs: dict[str, Any], more: set[str]) -> None:
    report = {
        "prompt_tokens": 30,
        "completion_tokens": 10,
        "prompt_tokens_details": inputs,
        "completion_tokens_details": outputs,
        **{name: MORE[name] for name in more},
    }
    # The shortcut is for whole numbers only.
    assert usage_from(report) == usage_from({**report, "prompt_tokens": 30.0})


def test_few_details_may_have_a_price_too() -> None:
    written = {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 25}}
    seen = {"prompt_tokens_details": {"image_tokens": 25}}
    counts = {"prompt_tokens": 30, "completion_tokens": 10}
    assert usage_from({**counts, **written}) == Usage(30, 10, cache_write_5m_tokens=25)
    assert usage_from({**counts, **seen}) == Usage(30, 10, input_image_tokens=25)
    both = {"prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 2}}
    searched = Usage(30, 10, cached_tokens=5, reasoning_tokens=2, tool_calls=(("web_search", 2),))
    assert usage_from({**counts, **both, "num_search_queries": 2}) == searched
