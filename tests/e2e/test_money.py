"""What is charged, once, to whom, and what happens when the balance does not cover it."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tollway.config.channel import ChannelType
from tollway.config.settings import Settings
from tollway.gateway.app import create_app
from tollway.gateway.store import groups, options, prices
from tollway.gateway.store.records import GroupRow

from .conftest import UpstreamOf
from .gateway import Account, Gateway, now_ms
from .running import served
from .scripted import Peer, always, answers
from .wire import (
    CHAT,
    DONE,
    HELLO,
    MODEL,
    QUOTA,
    SERVER_ERROR,
    USAGE,
    completion,
    delta,
    event,
    stream,
    usage_event,
    whole,
)

FLAT = """
[models."flat"]
per_call = 0.001
source = "a contract"
checked = 2026-11-21
"""
FLAT_QUOTA = 500
STREAM = CHAT | {"stream": True}
ASKING = STREAM | {"stream_options": {"include_usage": True}}


@pytest.fixture(scope="module", autouse=True)
def flat_price(gateway: Gateway) -> None:
    gateway.change(lambda store, vault: prices.put(store, "flat", FLAT, now_ms=now_ms()))


@pytest.mark.parametrize("side", ["user", "token"])
def test_a_hundred_at_once_on_a_balance_for_ten(side: str, gateway: Gateway, upstream: UpstreamOf) -> None:
    """Ten are let through, the others are refused while those are still open; nothing is overdrawn."""
    covered = 10 * FLAT_QUOTA + FLAT_QUOTA - 1
    account = gateway.account(quota=covered) if side == "user" else gateway.account(remain_quota=covered)
    release = threading.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.wait(release)
            await peer.send(whole(completion()))

    patient = upstream(script)
    gateway.channel(account, patient.url, models=("flat",))
    statuses: list[int] = []
    lock = threading.Lock()

    def ask_one(_: int) -> None:
        answer = gateway.chat(account, CHAT | {"model": "flat"}, timeout=20)
        with lock:
            statuses.append(answer.status)
            if statuses.count(402) == 90:
                release.set()

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(ask_one, range(100)))
    assert (statuses.count(200), statuses.count(402)) == (10, 90)
    assert len(patient.requests) == 10
    assert [charge.quota for charge in gateway.charges(account)] == [FLAT_QUOTA] * 10
    balance = gateway.balance(account)
    assert (balance.quota if side == "user" else balance.token_remains) == FLAT_QUOTA - 1
    assert balance.used == balance.token_used == 10 * FLAT_QUOTA
    assert gateway.held(account) == (0, 0)


def test_what_a_failure_held_is_there_again(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(quota=FLAT_QUOTA)
    gateway.channel(
        account,
        upstream(answers(*[whole(SERVER_ERROR, 500)] * 2, whole(SERVER_ERROR, 400), whole(completion()))).url,
        models=("flat",),
    )
    body = CHAT | {"model": "flat"}
    assert [gateway.chat(account, body).status for _ in range(4)] == [502, 400, 200, 402]
    assert gateway.balance(account).quota == 0


def test_a_refused_request_never_reaches_an_upstream(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(quota=FLAT_QUOTA - 1)
    unasked = upstream(always(whole(completion())))
    gateway.channel(account, unasked.url, models=("flat",))
    answer = gateway.chat(account, CHAT | {"model": "flat"})
    assert (answer.status, answer.error["code"]) == (402, "insufficient_quota")
    assert unasked.connections == 0


def test_a_request_for_more_than_there_is_money_is_refused(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(whole(completion()))).url, models=("gpt-3.5-turbo-instruct",))
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": ["a"] * 1000, "best_of": 128, "max_tokens": 10**9}
    answer = gateway.ask("/v1/completions", account, body)
    assert (answer.status, answer.error["code"]) == (402, "insufficient_quota")


def test_who_cannot_pay_is_told_what_it_takes_and_how_it_takes_less(gateway: Gateway) -> None:
    account = gateway.account(quota=100)
    gateway.channel(account, type=ChannelType.ECHO)
    told = gateway.chat(account, CHAT | {"max_tokens": 1_000_000}).error["message"]
    assert re.fullmatch(
        r"The balance does not cover this: it may cost \$0\.6\d+, of \$0\.0002 left\. Send a smaller max_tokens: .*",
        told,
    )


def test_an_answer_that_costs_more_than_was_held_is_charged_in_full(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(quota=100)
    gateway.channel(account, upstream(always(whole(completion()))).url)
    assert gateway.chat(account, CHAT).status == 200
    assert gateway.charge(account).quota == QUOTA
    assert gateway.balance(account).quota == 100 - QUOTA
    assert gateway.chat(account, CHAT).status == 402


def test_user_and_token_both_pay(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(quota=10_000, remain_quota=5_000)
    gateway.channel(account, upstream(always(whole(completion()))).url)
    answer = gateway.chat(account, CHAT)
    assert answer.headers["x-tollway-cost"] == "0.000450"
    balance = gateway.balance(account)
    assert (balance.quota, balance.used, balance.requests) == (10_000 - QUOTA, QUOTA, 1)
    assert (balance.token_remains, balance.token_used) == (5_000 - QUOTA, QUOTA)


def test_an_unlimited_token_counts_what_it_uses(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    gateway.channel(account, upstream(always(whole(completion()))).url)
    gateway.chat(account, CHAT)
    balance = gateway.balance(account)
    assert (balance.token_remains, balance.token_used) == (0, QUOTA)


def test_the_log_says_what_was_charged_and_why(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 400}}
    channel = gateway.channel(
        account, upstream(always(whole(completion(usage=usage)))).url, model_mapping={MODEL: "inner"}
    )
    gateway.chat(account, CHAT, headers={"X-Request-Id": "mine-3"})
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens, charge.cached_tokens) == (1000, 500, 400)
    # 600 x 0.075 + 400 x 0.0375 + 500 x 0.3
    assert charge.quota == 210
    # Units, and dollars for a million of them: with 500,000 quota to the dollar, these are the 210.
    assert charge.breakdown == {
        "group_ratio": "1",
        "input": [600, "0.15"],
        "cached_input": [400, "0.075"],
        "output": [500, "0.6"],
    }
    assert charge.price_version
    assert (charge.model, charge.upstream_model, charge.operation) == (MODEL, "inner", "chat_completions")
    assert (charge.user_id, charge.token_id, charge.group) == (account.user_id, account.token_id, account.group)
    assert (charge.channel_id, charge.channel_name) == (channel.id, channel.name)
    assert (charge.request_id, charge.ip, charge.status) == ("mine-3", "127.0.0.1", 200)
    assert (charge.outcome, charge.estimated, charge.is_stream, charge.attempts) == ("completed", False, False, 1)
    assert charge.created_at == pytest.approx(time.time() * 1000, abs=5000)


def test_a_groups_ratio_counts(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    row = GroupRow(account.group, Decimal("0.5"), "")
    gateway.change(lambda store, vault: groups.put(store, row, now_ms=now_ms()))
    gateway.channel(account, upstream(always(whole(completion()))).url)
    gateway.chat(account, CHAT)
    assert gateway.charge(account).quota == 113  # 112.5, rounded half up


def test_an_unknown_usage_is_estimated_and_says_so(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    words = "One two three four five six seven eight nine ten."
    silent = upstream(answers(stream(delta(words), DONE), whole(completion(words, usage=None))))
    gateway.channel(account, silent.url)
    assert b"usage" not in gateway.chat(account, STREAM).body
    gateway.chat(account, CHAT)
    streamed, at_once = gateway.charges(account)
    for charge in streamed, at_once:
        assert (charge.estimated, charge.outcome) == (True, "completed")
        assert 10 <= charge.output_tokens <= 20
        assert charge.quota >= 1
    assert streamed.output_tokens == at_once.output_tokens
    assert streamed.input_tokens == at_once.input_tokens


def test_the_usage_chunk_is_for_those_who_asked(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    gateway.channel(account, upstream(always(HELLO)).url)
    not_asked = gateway.chat(account, STREAM).body
    asked = gateway.chat(account, ASKING).body
    assert not_asked == delta("Hel") + delta("lo!") + DONE
    assert asked == delta("Hel") + delta("lo!") + usage_event() + DONE
    assert [(charge.quota, charge.estimated) for charge in gateway.charges(account)] == [(QUOTA, False)] * 2


def test_usage_beside_the_last_words_is_kept(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """Some vendors report it in the chunk that also ends the choice: that one is the client's."""
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    last = event({"id": "c", "object": "chat.completion.chunk", "choices": [choice], "usage": USAGE})
    gateway.channel(account, upstream(always(stream(delta("Hi"), last, DONE))).url)
    assert gateway.chat(account, STREAM).body == delta("Hi") + last + DONE
    assert gateway.charge(account).quota == QUOTA


def test_without_the_option_streams_are_left_alone(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(HELLO))
    gateway.channel(account, seen.url)
    body = b'{"stream":true, "model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
    name = "force_stream_usage"
    gateway.change(lambda store, vault: options.set_many(store, {name: "false"}, now_ms=now_ms()))
    try:
        answer = gateway.chat(account, body)
    finally:
        gateway.change(lambda store, vault: options.unset(store, name, now_ms=now_ms()))
    assert seen.requests[0].body == body
    assert answer.body == delta("Hel") + delta("lo!") + usage_event() + DONE
    assert gateway.charge(account).quota == QUOTA


def test_the_setting_turns_it_off_too(tmp_path: Path, upstream: UpstreamOf) -> None:
    app = create_app(Settings(data_dir=tmp_path, access_log=False, force_stream_option=False))
    with served(app) as server:
        gateway = Gateway(app, server)
        account = gateway.account()
        seen = upstream(always(HELLO))
        gateway.channel(account, seen.url)
        assert gateway.chat(account, STREAM).status == 200
        assert b"stream_options" not in seen.requests[0].body


def test_the_end_of_an_answer_is_charged_before_it_is_seen(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """Who has read the last byte has been charged: the balance in memory knows of it already."""
    gateway.channel(account, upstream(answers(whole(completion()), HELLO)).url)
    for number, body in enumerate((CHAT, ASKING), 1):
        with gateway.open_chat(account, body) as client:
            client.read_until(b'"total_tokens": 1500}}' if number == 1 else DONE)
            user = gateway.ledger.core.users[account.user_id]
            assert user.leased + user.left - user.owed == 500_000 - number * QUOTA


UNITS: dict[str, tuple[str, dict[str, Any], bytes, int]] = {
    "a picture by the piece": (
        "/v1/images/generations",
        {"model": "dall-e-3", "prompt": "a cat", "n": 2, "size": "1024x1792", "quality": "hd"},
        b'{"created":1,"data":[{"b64_json":"AA=="},{"b64_json":"AA=="}]}',
        2 * 60_000,
    ),
    "a picture of a size that nobody has": (
        "/v1/images/generations",
        {"model": "dall-e-3", "prompt": "a cat", "size": "x" * 100_000, "quality": "y" * 100_000},
        b'{"created":1,"data":[{"b64_json":"AA=="}]}',
        20_000,
    ),
    "speech by its characters": ("/v1/audio/speech", {"model": "tts-1", "voice": "a", "input": "x" * 1000}, b"", 7500),
    "vectors by their tokens": (
        "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": "x"},
        b'{"object":"list","data":[],"usage":{"prompt_tokens":1000,"total_tokens":1000}}',
        10,
    ),
    "a moderation for nothing": (
        "/v1/moderations",
        {"model": "omni-moderation-latest", "input": "x"},
        b'{"id":"m","results":[]}',
        0,
    ),
}


@pytest.mark.parametrize("case", UNITS.values(), ids=UNITS)
def test_each_operation_has_its_unit(
    case: tuple[str, dict[str, Any], bytes, int], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    path, body, answer, quota = case
    wire = whole(answer) if answer else whole(b"ID3 sound", 200, b"audio/mpeg")
    gateway.channel(account, upstream(always(wire)).url, models=(body["model"],))
    assert gateway.ask(path, account, body).status == 200
    charge = gateway.charge(account)
    assert (charge.quota, charge.operation) == (quota, path.removeprefix("/v1/").replace("/", "_"))


@pytest.mark.parametrize(
    ("asked", "override"),
    [pytest.param(2, {}, id="as the client asks"), pytest.param(1, {"n": 2}, id="as the channel overrides")],
)
def test_every_picture_of_a_stream_arrives_and_is_charged(
    asked: int, override: dict[str, int], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    usage = {"input_tokens": 50, "output_tokens": 1000, "total_tokens": 1050}
    picture = event({"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage})
    body = {"model": "gpt-image-1", "prompt": "a cat", "n": asked, "size": "1024x1024", "quality": "medium"}
    pictures = upstream(always(stream(picture, picture)))
    gateway.channel(account, pictures.url, models=("gpt-image-1",), param_override=override)
    assert gateway.ask("/v1/images/generations", account, body | {"stream": True}).body == picture * 2
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens, charge.outcome) == (50, 2000, "completed")
