"""Reasoning effort in a model's name."""

import pytest
from tollway.adapters.requests.model_suffix import ModelName, parse_model


@pytest.mark.parametrize(
    ("name", "base", "effort"),
    [
        ("o3-mini-high", "o3-mini", "high"),
        ("o1-low", "o1", "low"),
        ("o4-mini-medium", "o4-mini", "medium"),
        ("gpt-5-minimal", "gpt-5", "minimal"),
        ("gpt-5-mini-high", "gpt-5-mini", "high"),
        ("gpt-5.1-none", "gpt-5.1", "none"),
        ("gpt-5.1-codex-max-xhigh", "gpt-5.1-codex-max", "xhigh"),
        ("gpt-5-2025-08-07-low", "gpt-5-2025-08-07", "low"),
        ("gpt-5-high-low", "gpt-5-high", "low"),
    ],
)
def test_an_effort_is_taken_from_the_name(name: str, base: str, effort: str) -> None:
    assert parse_model(name) == ModelName(base, effort)


@pytest.mark.parametrize(
    "name",
    [
        "o3",
        "o3-mini",
        "gpt-5",
        "gpt-4o-high",
        "claude-high",
        "o3-",
        "o3-High",
        "o3-mini-high ",
        "-high",
        "high",
        "o30-high",
        "o1ive-low",
        "gpt-50-high",
        "gpt-5turbo-low",
        "openai/o3-high",
        "o2-high",
        "",
    ],
)
def test_any_other_name_is_left_alone(name: str) -> None:
    assert parse_model(name) == ModelName(name)
