"""What is held is for the request that the upstream gets: with the overrides of the channel, and for one model."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tollway.config.settings import Settings
from tollway.gateway.app import create_app
from tollway.gateway.store import options

from .conftest import OPTIONS, UpstreamOf
from .gateway import DOLLAR, Account, Gateway, now_ms
from .running import served
from .scripted import Peer, always
from .wire import CHAT, HELLO, completion, whole

STREAM = CHAT | {"stream": True}


@pytest.fixture(scope="module")
def clamping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that answers shorter where the balance does not cover a request."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("clamping"), access_log=False))
    with served(app) as server:
        gateway = Gateway(app, server)
        chosen = OPTIONS | {"clamp_max_tokens": "true"}
        gateway.change(lambda store, vault: options.set_many(store, chosen, now_ms=now_ms()))
        yield gateway


async def writes_all_it_may(peer: Peer) -> None:
    """Each answer is as long as the request allows."""
    while True:
        asked = json.loads((await peer.request()).body)
        written = asked["max_tokens"] * asked.get("n", 1)
        await peer.send(whole(completion(usage={"prompt_tokens": 10, "completion_tokens": written})))


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("field", ["models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_no_other_model_may_answer_at_the_price_of_the_one_named(
    field: str, body: dict[str, Any], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(HELLO if "stream" in body else whole(completion())))
    gateway.channel(account, seen.url)
    assert gateway.chat(account, body | {field: ["gpt-5-pro"]}).status == 200
    sent = json.loads(seen.requests[-1].body)
    assert field not in sent
    assert sent["messages"] == body["messages"]


def test_a_field_that_another_reader_may_take_for_it_is_refused(gateway: Gateway, account: Account) -> None:
    answer = gateway.chat(account, CHAT | {"Models": ["gpt-5-pro"]})
    assert (answer.status, answer.error["code"]) == (400, "duplicate_parameter")


OVERRIDES: dict[str, dict[str, Any]] = {
    "a longer answer": {"max_tokens": 8000},
    "more answers": {"n": 100},
    "both": {"max_tokens": 1000, "n": 10},
}


@pytest.mark.parametrize("clamps", [False, True], ids=["refused", "clamped"])
@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_what_a_channel_overrides_is_held(
    override: dict[str, Any], clamps: bool, gateway: Gateway, clamping: Gateway, upstream: UpstreamOf
) -> None:
    gateway = clamping if clamps else gateway
    greedy = upstream(writes_all_it_may)
    poor, rich = gateway.account(quota=400), gateway.account(quota=DOLLAR)
    for account in (poor, rich):
        gateway.channel(account, greedy.url, param_override=override)
    assert gateway.chat(rich, CHAT).status == 200
    assert gateway.charge(rich).quota > 400
    gateway.chat(poor, CHAT)
    assert gateway.balance(poor).quota >= 0


def test_the_picture_that_a_channel_asks_for_is_charged(gateway: Gateway, upstream: UpstreamOf) -> None:
    drawing = upstream(always(whole(b'{"created": 1, "data": [{"url": "https://example.com/a.png"}]}')))
    account, better = gateway.account(), {"quality": "hd", "size": "1792x1024"}
    gateway.channel(account, drawing.url, models=("dall-e-3",), param_override=better)
    asked = {"model": "dall-e-3", "prompt": "A cat.", "quality": "standard", "size": "1024x1024"}
    assert gateway.ask("/v1/images/generations", account, asked).status == 200
    assert gateway.charge(account).quota == 60_000  # $0.12, where what was asked for costs $0.04
