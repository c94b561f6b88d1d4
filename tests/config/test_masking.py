"""What a channel's overrides hold of secrets is not told to clients by an upstream that quotes it."""

import pytest
from tollway.config.channel import Channel, ChannelType
from tollway.config.secret import MASK, Secret


def channel(headers: dict[str, str] | None = None, fields: dict[str, object] | None = None) -> Channel:
    return Channel(
        1,
        "c",
        ChannelType.OPENAI,
        ("m",),
        keys=(Secret("sk-upstream"),),
        header_override=headers or {},
        param_override=fields or {},
    )


@pytest.mark.parametrize(
    ("headers", "said", "left"),
    [
        pytest.param({"x-pass": "s3cret/word"}, "s3cret/word", MASK, id="a value"),
        pytest.param({"x-pass": "s3cret/word"}, r"s3cret\/word", MASK, id="a value with JSON's escapes"),
        pytest.param({"X-Gate": "Bearer s3cretword"}, "s3cretword", MASK, id="what follows a scheme"),
        pytest.param({"X-Gate": "Bearer s3cretword"}, "Bearer s3cretword", MASK, id="a scheme and what follows it"),
        pytest.param({"Cookie": "id=s3cretword; n=2"}, "id: s3cretword", f"id: {MASK}", id="a cookie's value"),
        pytest.param({"Authorization": "k {api_key}-s3cretword"}, "sk-upstream", MASK, id="the key in a value"),
        pytest.param(
            {"X-Key": "{api_key}:s3cretword"}, "sk-upstream:s3cretword", f"{MASK}:{MASK}", id="what is beside the key"
        ),
        pytest.param({"x-pass": "gehe\u00efmnis"}, "gehe\u00efmnis", MASK, id="letters beyond ASCII"),
        pytest.param({"x-pass": "gehe\u00efmnis"}, r"gehe\u00EFmnis", MASK, id="letters beyond ASCII, escaped"),
        pytest.param({"x-a": "s3cretword", "x-b": "my-s3cretword"}, "my-s3cretword", MASK, id="one inside another"),
        pytest.param({"x-flag": "enabled"}, "not enabled", "not enabled", id="less than 8 characters"),
        pytest.param({"X-Title": "deep research"}, "no research", "no research", id="a word of a sentence"),
        pytest.param({"Accept": "application/json"}, "no application/json", "no application/json", id="no secret"),
    ],
)
def test_values_of_header_override(headers: dict[str, str], said: str, left: str) -> None:
    with_headers = channel(headers)
    assert with_headers.without_secrets(f"<{said}>") == f"<{left}>"
    assert with_headers.bytes_without_secrets(f"<{said}>".encode()).decode() == f"<{left}>"


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        pytest.param({"api_key": "s3cretword"}, MASK, id="named like a secret"),
        pytest.param({"metadata": {"accessToken": "s3cretword"}}, MASK, id="inside"),
        pytest.param({"credentials": [{"id": "s3cretword"}]}, MASK, id="in one that is named so"),
        pytest.param({"model": "s3cretword", "max_tokens": 10_000_000}, "s3cretword", id="named otherwise"),
    ],
)
def test_texts_of_param_override(fields: dict[str, object], left: str) -> None:
    assert channel(fields=fields).without_secrets("s3cretword, 10000000") == f"{left}, 10000000"
