"""Clients that hang up: the upstream is left at once, and what is charged follows the channel's policy."""

import contextlib
import threading
import time

import pytest
from tollway.adapters.usage.token_estimates import estimate_input

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import Peer, Script, ScriptedUpstream, always, holds
from .wire import CHAT, DONE, LAST_CHUNK, OpenRequest, chunk, completion, delta, sse_head, usage_event, whole

STREAM = CHAT | {"stream": True}
WORDS = "One two three four five six seven eight nine ten. "
WITHIN_S = 0.15
"""100 ms are promised; the rest is for a busy machine."""


def left_within(upstream: ScriptedUpstream, since: float) -> float:
    """Seconds from `since` until the gateway had closed its connection to the upstream."""
    assert upstream.left.wait(5), "the upstream was never left"
    return upstream.left_at[-1] - since


@pytest.mark.parametrize("age", [0.0, 0.02, 0.25], ids=["at once", "after 20 ms", "after 250 ms"])
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["a whole answer", "a stream"])
def test_before_the_first_byte_the_upstream_is_left_and_the_prompt_charged(
    body: dict[str, object], age: float, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    silent = upstream(holds())
    channel = gateway.channel(account, silent.url)
    with gateway.open_chat(account, body) as client:
        assert silent.asked.wait(5)
        time.sleep(age)
        since = time.monotonic()
        client.hang_up()
        assert left_within(silent, since) < WITHIN_S
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.channel_id) == ("cancelled", True, channel.id)
    assert (charge.input_tokens, charge.output_tokens) == (estimate_input(CHAT), 0)
    assert charge.quota >= 1
    assert (charge.status, charge.attempts) == (499, 1)
    assert len(silent.requests) == 1
    assert gateway.held(account) == (0, 0)


def test_in_the_middle_of_a_stream_what_was_delivered_is_charged_too(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    endless = upstream(holds(sse_head(), *[chunk(delta(WORDS))] * 10))
    gateway.channel(account, endless.url)
    with gateway.open_chat(account, STREAM) as client:
        while client.seen.count(b"One two") < 10:
            client.seen += client.socket.recv(65536)
        since = time.monotonic()
        client.hang_up()
        assert left_within(endless, since) < WITHIN_S
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.status) == ("cancelled", True, 200)
    assert charge.input_tokens == estimate_input(CHAT)
    assert 100 <= charge.output_tokens <= 200
    assert charge.first_byte_ms is not None
    assert gateway.held(account) == (0, 0)


def later(release: threading.Event, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*before)
        await peer.wait(release)
        await peer.send(*after)
        await peer.gone()

    return script


LATER = {
    "before the first byte of a whole answer": (CHAT, (), (whole(completion()),)),
    "before the first byte of a stream": (
        STREAM,
        (),
        (sse_head(), chunk(delta(WORDS)), chunk(usage_event()), chunk(DONE), LAST_CHUNK),
    ),
    "in the middle of a stream": (
        STREAM,
        (sse_head(), chunk(delta(WORDS))),
        (chunk(delta(WORDS)), chunk(usage_event()), chunk(DONE), LAST_CHUNK),
    ),
}


@pytest.mark.parametrize("case", LATER.values(), ids=LATER)
def test_a_channel_that_drains_is_read_to_its_end_and_charged_by_its_usage(
    case: tuple[dict[str, object], tuple[bytes, ...], tuple[bytes, ...]],
    gateway: Gateway,
    account: Account,
    upstream: UpstreamOf,
) -> None:
    body, before, after = case
    release = threading.Event()
    patient = upstream(later(release, before, after))
    gateway.channel(account, patient.url, disconnect="drain")
    with gateway.open_chat(account, body) as client:
        assert patient.asked.wait(5)
        if before:
            client.read_until(b"One two")
        client.hang_up()
        time.sleep(0.1)
        assert not patient.left.is_set()
        assert gateway.charges(account) == []
        release.set()
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens, charge.estimated) == (1000, 500, False)
    assert charge.outcome == "completed"
    assert gateway.held(account) == (0, 0)


def test_a_client_that_left_before_anything_was_sent_pays_nothing(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """The upstream has taken the connection but not yet shaken hands on TLS."""

    async def never_shakes_hands(peer: Peer) -> None:
        await peer.gone()

    deaf = upstream(never_shakes_hands)
    gateway.channel(account, deaf.url.replace("http:", "https:"))
    with gateway.open_chat(account, CHAT) as client:
        assert deaf.connected.wait(5)
        time.sleep(0.05)
        since = time.monotonic()
        client.hang_up()
        assert left_within(deaf, since) < WITHIN_S
    assert gateway.charges(account) == []
    assert gateway.held(account) == (0, 0)


def test_a_client_that_left_inside_its_request_pays_nothing(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    unasked = upstream(holds())
    gateway.channel(account, unasked.url)
    with OpenRequest(gateway.address, account.key, CHAT, declared=1000):
        time.sleep(0.05)
    time.sleep(0.1)
    assert unasked.connections == 0
    assert gateway.charges(account) == []


def test_the_next_channel_is_not_asked_for_a_client_that_left(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    first, second = upstream(holds()), upstream(holds())
    gateway.channel(account, first.url, priority=10)
    gateway.channel(account, second.url)
    with gateway.open_chat(account, CHAT) as client:
        assert first.asked.wait(5)
        client.hang_up()
        assert first.left.wait(5)
    assert gateway.charge(account).outcome == "cancelled"
    assert second.connections == 0


def test_a_client_that_hangs_up_is_no_mark_against_the_channel(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    silent, second = upstream(holds()), upstream(always(whole(completion())))
    gateway.channel(account, silent.url, priority=10)
    gateway.channel(account, second.url)
    for number in range(6):
        with gateway.open_chat(account, CHAT):
            while len(silent.requests) <= number:
                assert silent.asked.wait(5)
                time.sleep(0.002)
    assert second.connections == 0
    assert len(silent.requests) == 6


def test_a_client_that_leaves_gives_its_place_to_the_next(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(unlimited=True, parallel_requests=1)
    endless = upstream(holds(sse_head(), chunk(delta(WORDS))))
    gateway.channel(account, endless.url)
    with gateway.open_chat(account, STREAM) as client:
        client.read_until(b"One two")
        assert gateway.chat(account, CHAT).status == 429
        client.hang_up()
        assert endless.left.wait(5)
    # Its place is free when what it was delivered has been counted and charged.
    give_up = time.monotonic() + 5
    while True:
        with gateway.open_chat(account, STREAM) as client:
            if b" 200 " in client.read_until(b"\r\n").partition(b"\r\n")[0]:
                client.read_until(b"One two")
                break
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_reader_that_was_slow_and_leaves(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """The gateway waits for the client to take more, not for the upstream, when the client hangs up."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head())
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(chunk(delta("x" * 65536)))
        await peer.gone()

    flood = upstream(script)
    gateway.channel(account, flood.url)
    with gateway.open_chat(account, STREAM) as client:
        client.read_until(b"xxx")
        time.sleep(0.4)
        since = time.monotonic()
        client.hang_up()
        assert left_within(flood, since) < WITHIN_S
    assert gateway.charge(account).outcome == "cancelled"


def test_a_channel_that_drains_and_fails_is_not_followed_by_another(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    release = threading.Event()
    first = upstream(later(release, (), (whole(b"{}", 500),)))
    second = upstream(always(whole(completion())))
    gateway.channel(account, first.url, priority=10, disconnect="drain")
    gateway.channel(account, second.url, disconnect="drain")
    with gateway.open_chat(account, CHAT) as client:
        assert first.asked.wait(5)
        client.hang_up()
        time.sleep(0.1)
        release.set()
        time.sleep(0.1)
    assert second.connections == 0
    assert gateway.charges(account) == []
    assert gateway.held(account) == (0, 0)
