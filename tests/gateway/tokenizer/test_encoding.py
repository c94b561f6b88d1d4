"""The encodings are OpenAI's own, and each model gets its own."""

import hashlib
import subprocess
import sys
from typing import Any

import pytest
import tiktoken_ext.openai_public
from tiktoken.model import MODEL_TO_ENCODING
from tollway.gateway.tokenizer import encoding_for
from tollway.gateway.tokenizer.encoding import PATTERNS, RANKS, EncodingName, read_ranks

NAMES: tuple[EncodingName, ...] = ("o200k_base", "cl100k_base")


@pytest.mark.parametrize("name", NAMES)
def test_ranks_and_patterns_are_those_that_tiktoken_itself_wants(
    name: EncodingName, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[str] = []

    def note(address: str, expected_hash: str) -> dict[bytes, int]:
        wanted.append(expected_hash)
        return {}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", note)
    theirs: dict[str, Any] = getattr(tiktoken_ext.openai_public, name)()
    assert [hashlib.sha256(read_ranks(name)).hexdigest()] == wanted
    assert "|".join(PATTERNS[name]) == theirs["pat_str"]


def test_the_licence_goes_along() -> None:
    notice = (RANKS / "NOTICE").read_text()
    assert "MIT License" in notice
    for name in NAMES:
        assert f"{name}.tiktoken.xz" in notice
        assert hashlib.sha256(read_ranks(name)).hexdigest() in notice


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.1-codex", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("o4-mini-deep-research", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("GPT-4o", "o200k_base"),
        ("openai/gpt-4o:free", "o200k_base"),
        ("ft:gpt-4o-mini:acme::abc", "o200k_base"),
        ("ft:gpt-4:acme::abc", "cl100k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("claude-sonnet-4-5", None),
        ("gemini-2.5-flash", None),
        ("deepseek-chat", None),
        ("gpt-neo-2.7b", None),
        ("o1x", None),
        ("", None),
        ("/", None),
    ],
)
def test_each_model_has_its_own_encoding_or_none(model: str, name: str | None) -> None:
    assert encoding_for(model) == name


def test_no_model_has_another_encoding_than_tiktoken_says() -> None:
    for model, theirs in MODEL_TO_ENCODING.items():
        assert encoding_for(model) in (theirs, None), model


def test_nothing_is_loaded_before_it_is_needed() -> None:
    script = "import sys, tollway.gateway.tokenizer; sys.exit('tiktoken' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
