"""Paths to operations, and what each operation refuses by itself."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.errors import BadRequest
from tollway.adapters.operations import BY_PATH, OPERATIONS, operation_at


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat_completions"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/moderations", "moderations"),
        ("/v1/images/generations", "images_generations"),
        ("/v1/images/edits", "images_edits"),
        ("/v1/images/variations", "images_variations"),
        ("/v1/audio/speech", "audio_speech"),
        ("/v1/audio/transcriptions", "audio_transcriptions"),
        ("/v1/audio/translations", "audio_translations"),
        ("/v1/models", "models_list"),
        ("/v1/models/gpt-4o", "models_get"),
        ("/v1/models/deepseek-ai/DeepSeek-V3", "models_get"),
        ("/v1/models/", None),
        ("/v1/chat/completions/", None),
        ("/v1/chat", None),
        ("/v1", None),
        ("/", None),
        ("", None),
        ("/v1/models/{model}/", "models_get"),
        ("/V1/models", None),
    ],
)
def test_paths(path: str, name: str | None) -> None:
    found = operation_at(path)
    assert (found.name if found else None) == name


def test_every_operation_is_found_by_its_own_path() -> None:
    assert {operation.name for operation in OPERATIONS if operation_at(operation.path) is operation} == {
        operation.name for operation in OPERATIONS
    }


CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("path", "document", "param", "code"),
    [
        (CHAT, {}, "messages", "missing_required_parameter"),
        (CHAT, {"messages": None}, "messages", "missing_required_parameter"),
        (CHAT, {"messages": "hello"}, "messages", "invalid_type"),
        (CHAT, {"messages": []}, "messages", "empty_array"),
        (CHAT, {"messages": [{}] * 100_001}, "messages", "invalid_value"),
        (CHAT, {"messages": [{"content": [{}] * 60_000}] * 2}, "messages", "invalid_value"),
        (CHAT, HELLO | {"tools": [{}] * 100_001}, "tools", "invalid_value"),
        ("/v1/completions", {"prompt": [1] + ["a"] * 100_001}, "prompt", "invalid_value"),
        ("/v1/embeddings", {"input": [[1]] * 100_001}, "input", "invalid_value"),
        (CHAT, {"messages": [{}, "hello"]}, "messages[1]", "invalid_type"),
        (CHAT, {**HELLO, "stream": "true"}, "stream", "invalid_type"),
        (CHAT, {**HELLO, "stream": 1}, "stream", "invalid_type"),
        (CHAT, {**HELLO, "max_tokens": True}, "max_tokens", "invalid_type"),
        (CHAT, {**HELLO, "max_tokens": 1.5}, "max_tokens", "invalid_type"),
        (CHAT, {**HELLO, "max_tokens": 1e30}, "max_tokens", "invalid_type"),
        (CHAT, {**HELLO, "max_tokens": -1}, "max_tokens", "invalid_value"),
        (CHAT, {**HELLO, "max_completion_tokens": 2**30}, "max_completion_tokens", "invalid_value"),
        (CHAT, {**HELLO, "n": 0}, "n", "invalid_value"),
        (CHAT, {**HELLO, "n": 129}, "n", "invalid_value"),
        (CHAT, {**HELLO, "stream_options": []}, "stream_options", "invalid_type"),
        (CHAT, {**HELLO, "stream_options": {"include_usage": 1}}, "include_usage", "invalid_type"),
        ("/v1/completions", {}, "prompt", "missing_required_parameter"),
        ("/v1/completions", {"prompt": 7}, "prompt", "invalid_type"),
        ("/v1/embeddings", {"input": {}}, "input", "invalid_type"),
        ("/v1/moderations", {}, "input", "missing_required_parameter"),
        (IMAGES, {"prompt": ["a"]}, "prompt", "invalid_type"),
        (IMAGES, {"prompt": "a", "n": 1000}, "n", "invalid_value"),
        ("/v1/audio/speech", {"input": ["a"]}, "input", "invalid_type"),
    ],
)
def test_what_the_gateway_must_rely_on_is_checked(path: str, document: dict[str, Any], param: str, code: str) -> None:
    check = BY_PATH[path].check
    assert check is not None
    with pytest.raises(BadRequest) as refused:
        check(document)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (CHAT, HELLO),
        (CHAT, {**HELLO, "stream": None, "max_tokens": None, "n": None, "stream_options": None}),
        (CHAT, {**HELLO, "max_tokens": 0, "n": 128, "temperature": "hot", "unknown": {}}),
        ("/v1/completions", {"prompt": [[1, 2]]}),
        ("/v1/embeddings", {"input": []}),
        (IMAGES, {"prompt": ""}),
    ],
)
def test_everything_else_is_the_upstreams_to_judge(path: str, document: dict[str, Any]) -> None:
    check = BY_PATH[path].check
    assert check is not None
    check(document)


NAMES = ["messages", "prompt", "input", "stream", "max_tokens", "n", "stream_options", "include_usage"]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6))
def test_a_check_refuses_or_agrees(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        if operation.check is not None:
            with suppress(BadRequest):
                operation.check(document)
