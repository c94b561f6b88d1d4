"""The providers' rows, and where each of them sends a request."""

import re

import pytest
from tollway.adapters.operations import OPERATIONS, operation_at
from tollway.adapters.providers import azure, deepseek, perplexity
from tollway.adapters.providers.provider import Provider, Target, same_path, whole_url
from tollway.adapters.providers.registry import PROVIDERS
from tollway.config.channel import ChannelType

# The numbers that New API's channels have in the databases of those who come from there.
NEW_API = {
    1: ("OpenAI", "https://api.openai.com"),
    3: ("Azure", ""),
    6: ("OpenAIMax", "https://api.openaimax.com"),
    7: ("OhMyGPT", "https://api.ohmygpt.com"),
    8: ("Custom", ""),
    9: ("AILS", "https://api.caipacity.com"),
    10: ("AIProxy", "https://api.aiproxy.io"),
    12: ("API2GPT", "https://api.api2gpt.com"),
    13: ("AIGC2D", "https://api.aigc2d.com"),
    19: ("360", "https://api.360.cn"),
    20: ("OpenRouter", "https://openrouter.ai/api"),
    22: ("FastGPT", "https://fastgpt.run/api/openapi"),
    25: ("Moonshot", "https://api.moonshot.cn"),
    27: ("Perplexity", "https://api.perplexity.ai"),
    31: ("LingYiWanWu", "https://api.lingyiwanwu.com"),
    40: ("SiliconFlow", "https://api.siliconflow.cn"),
    42: ("Mistral", "https://api.mistral.ai"),
    43: ("DeepSeek", "https://api.deepseek.com"),
    47: ("Xinference", ""),
    48: ("xAI", "https://api.x.ai"),
    53: ("Submodel", "https://llm.submodel.ai"),
    60: ("New API", ""),
}
NEVER_USED = {28, 29, 30, 32}

ROWS = [pytest.param(provider, id=provider.name) for provider in PROVIDERS.values()]


def test_numbers_names_and_addresses_are_new_apis() -> None:
    ours = {int(row.type): (row.name, row.base_url) for row in PROVIDERS.values() if row.type < 1000}
    assert ours == NEW_API
    assert not NEVER_USED & set(map(int, PROVIDERS))


def test_every_type_has_one_row_and_every_name_is_its_own() -> None:
    assert set(PROVIDERS) == set(ChannelType)
    assert all(PROVIDERS[type].type is type for type in ChannelType)
    assert len({row.name for row in PROVIDERS.values()}) == len(PROVIDERS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_sound(row: Provider) -> None:
    if row.transport == "http":
        assert re.fullmatch(r"|https://[a-z0-9.]+[a-z](/[a-z0-9/]*[a-z0-9])?", row.base_url)
    relayed = {operation.name for operation in OPERATIONS if operation.relayed}
    assert row.operations
    assert row.operations <= relayed
    # What cannot be asked for must not be asked for.
    assert not (row.stream_usage and "stream_options" in row.unsupported)


def target(base_url: str, path: str = "/v1/chat/completions", *, model: str = "m", query: str = "") -> Target:
    operation = operation_at(path)
    assert operation is not None
    return Target(base_url, operation, model, "2024-10-21", query)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.example.com", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/v1", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/v1//", "https://api.example.com/v1/chat/completions"),
        ("https://example.com/api/v1", "https://example.com/api/v1/chat/completions"),
        ("https://example.com/api", "https://example.com/api/v1/chat/completions"),
        ("https://example.com/xv1", "https://example.com/xv1/v1/chat/completions"),
        ("http://v1", "http://v1/v1/chat/completions"),
        ("http://v1:8000/v1", "http://v1:8000/v1/chat/completions"),
    ],
)
def test_same_path(base_url: str, url: str) -> None:
    assert same_path(target(base_url)) == url


@pytest.mark.parametrize(
    ("base_url", "model", "url"),
    [
        ("https://example.com/chat", "m", "https://example.com/chat"),
        ("https://example.com/chat/", "m", "https://example.com/chat/"),
        ("https://example.com/{model}/chat", "gpt-4o", "https://example.com/gpt-4o/chat"),
        ("https://example.com/{model}/{model}", "org/name", "https://example.com/org/name/org/name"),
        ("https://example.com/?m={model}", "a b?c&d#e%f", "https://example.com/?m=a%20b%3Fc%26d%23e%25f"),
        ("https://example.com/{model}", "模", "https://example.com/%E6%A8%A1"),
        ("https://example.com/{model}", "a\r\nb", "https://example.com/a%0D%0Ab"),
    ],
)
def test_whole_url(base_url: str, model: str, url: str) -> None:
    assert whole_url(target(base_url, model=model)) == url


AZURE = "https://x.openai.azure.com/openai/deployments"


@pytest.mark.parametrize(
    ("asked", "url"),
    [
        (target("https://x.openai.azure.com"), f"{AZURE}/m/chat/completions?api-version=2024-10-21"),
        (
            target("https://x.openai.azure.com/", model="a/b?c"),
            f"{AZURE}/a%2Fb%3Fc/chat/completions?api-version=2024-10-21",
        ),
        (
            target("https://x.openai.azure.com", query="x=1&api-version=2025-01-01-preview"),
            f"{AZURE}/m/chat/completions?api-version=2025-01-01-preview",
        ),
        (
            target("https://x.openai.azure.com", query="api-version=1%26a%3Db%0D%0A"),
            f"{AZURE}/m/chat/completions?api-version=1%26a%3Db%0D%0A",
        ),
        (
            target("https://x.openai.azure.com", query="api-version="),
            f"{AZURE}/m/chat/completions?api-version=2024-10-21",
        ),
        (target("https://x.openai.azure.com", "/v1/audio/speech"), f"{AZURE}/m/audio/speech?api-version=2024-10-21"),
    ],
)
def test_azure(asked: Target, url: str) -> None:
    assert azure.address(asked) == url


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://api.deepseek.com", "/v1/chat/completions", "https://api.deepseek.com/v1/chat/completions"),
        ("https://api.deepseek.com", "/v1/completions", "https://api.deepseek.com/beta/completions"),
        ("https://api.deepseek.com/v1", "/v1/completions", "https://api.deepseek.com/beta/completions"),
        ("https://api.deepseek.com/beta", "/v1/completions", "https://api.deepseek.com/beta/completions"),
    ],
)
def test_deepseek(base_url: str, path: str, url: str) -> None:
    assert deepseek.address(target(base_url, path)) == url


def test_perplexity() -> None:
    assert perplexity.address(target("https://api.perplexity.ai/")) == "https://api.perplexity.ai/chat/completions"
