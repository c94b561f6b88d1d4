"""Upstreams that speak OpenAI's dialect in ways of their own: understood, and charged for what they did."""

import json
from typing import Any

import pytest
from tollway.config.channel import ChannelType

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import always
from .wire import CHAT, completion, whole


@pytest.mark.parametrize("field", ["models", "fallbacks"])
@pytest.mark.parametrize("override", [{}, {"models": ["m"], "fallbacks": ["m"]}], ids=["none", "the channel's own"])
def test_no_other_model_than_the_one_that_is_charged_is_asked(
    override: dict[str, Any], field: str, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url, type=ChannelType.OPENROUTER, param_override=override)
    assert gateway.chat(account, CHAT | {field: ["anthropic/claude-opus-4"]}).status == 200
    sent = json.loads(seen.requests[-1].body)
    assert sent.get(field) == override.get(field)
    assert sent["messages"] == CHAT["messages"]
