"""A channel that fails before its first byte: the next one answers, and nobody but the operator can tell."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tollway.config.channel import ChannelStatus
from tollway.config.secret import Secret
from tollway.gateway.store import channels

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import Peer, Script, always, answers, ends, holds
from .wire import (
    CHAT,
    HELLO,
    JSON,
    LAST_CHUNK,
    QUOTA,
    SERVER_ERROR,
    chunk,
    completion,
    event,
    sse_head,
    whole,
)

ANSWER = completion("from the second channel")
ERROR_EVENT = event({"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}})


@dataclass(frozen=True)
class Fault:
    """How the first channel fails. Without a script it is not even reached: `url` is where it points then."""

    script: Script | None
    url: str = ""
    requests: int = 1
    """How many requests of one call reach it."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Where nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


async def speaks_plain_http(peer: Peer) -> None:
    await peer.reader.read(1)
    await peer.send(whole(b"This is an HTTP port.", 400, b"text/plain"))


async def deaf(peer: Peer) -> None:
    await peer.gone()


def status(code: int, *headers: bytes) -> Fault:
    return Fault(always(whole(SERVER_ERROR, code, JSON, *headers)))


FAULTS: dict[str, Fault] = {
    "it refuses connections": Fault(None, "refusing", 0),
    "it does not speak TLS": Fault(speaks_plain_http, "tls", 0),
    "it never shakes hands": Fault(deaf, "tls", 0),
    "it resolves to nothing": Fault(None, "http://nobody.invalid", 0),
    "it closes the connection": Fault(ends()),
    "it does not answer in time": Fault(holds()),
    "it answers something that is not HTTP": Fault(ends(b"220 smtp.example ESMTP\r\n")),
    "it answers 429 with Retry-After": status(429, b"retry-after: 20"),
    "it answers 500": status(500),
    "it answers 502": status(502),
    "it answers 503": status(503),
    "it answers 529": status(529),
    "it answers 401": status(401),
    "it answers 403": status(403),
    "it answers 402": status(402),
    "it redirects": status(302, b"location: http://127.0.0.1/elsewhere"),
    "it has not the model": Fault(
        always(whole(b'{"error":{"message":"no such model","code":"model_not_found"}}', 404))
    ),
    "its base URL is wrong": Fault(always(whole(b"<html>Not Found</html>", 404, b"text/html"))),
    "it answers with a web page": Fault(always(whole(b"<html>Welcome</html>", 200, b"text/html"))),
    "it answers with an error in a success": Fault(always(whole(SERVER_ERROR))),
    "it answers with a list": Fault(always(whole(b"[]"))),
    "it answers with nothing": Fault(always(whole(b""))),
    "its answer is cut short": Fault(ends(whole(completion())[:-20])),
}
STREAM_FAULTS: dict[str, Fault] = {
    "its stream is cut before the first event": Fault(ends(sse_head())),
    "its stream is cut inside the first event": Fault(ends(sse_head(), chunk(b'data: {"choices":[{"ind'))),
    "its stream is cut after a comment": Fault(ends(sse_head(), chunk(b": one moment\n\n"))),
    "its stream begins with an error": Fault(ends(sse_head(), chunk(ERROR_EVENT), LAST_CHUNK)),
    "its stream is empty": Fault(ends(sse_head(), LAST_CHUNK)),
    "its stream stays silent": Fault(holds(sse_head())),
    "it answers a stream with a web page": Fault(always(whole(b"<html>Welcome</html>", 200, b"text/html"))),
    "it answers a stream with an error in JSON": Fault(always(whole(SERVER_ERROR))),
}


def url_of(fault: Fault, upstream: UpstreamOf, refusing: str) -> tuple[str, Callable[[], int]]:
    """Where the failing channel points, and how many requests have reached it."""
    if fault.script is None:
        return refusing if fault.url == "refusing" else fault.url, lambda: 0
    first = upstream(fault.script)
    url = first.url.replace("http://", "https://") if fault.url == "tls" else first.url
    return url, lambda: len(first.requests)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_second_channel_answers(
    fault: Fault, gateway: Gateway, account: Account, upstream: UpstreamOf, refusing: str
) -> None:
    url, reached = url_of(fault, upstream, refusing)
    second = upstream(always(whole(ANSWER)))
    gateway.channel(account, url, priority=10)
    channel = gateway.channel(account, second.url)
    answer = gateway.chat(account, CHAT)
    assert (answer.status, answer.body) == (200, ANSWER)
    assert answer.headers["x-tollway-attempts"] == "2"
    assert (reached(), len(second.requests)) == (fault.requests, 1)
    charge = gateway.charge(account)
    assert (charge.channel_id, charge.channel_name, charge.attempts) == (channel.id, channel.name, 2)
    assert (charge.quota, charge.outcome, charge.status) == (QUOTA, "completed", 200)
    assert gateway.held(account) == (0, 0)


@pytest.mark.parametrize("fault", STREAM_FAULTS.values(), ids=STREAM_FAULTS)
def test_the_second_channel_streams(
    fault: Fault, gateway: Gateway, account: Account, upstream: UpstreamOf, refusing: str
) -> None:
    url, reached = url_of(fault, upstream, refusing)
    second = upstream(always(HELLO))
    gateway.channel(account, url, priority=10)
    channel = gateway.channel(account, second.url)
    answer = gateway.chat(account, CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    assert answer.status == 200
    assert answer.headers["x-tollway-attempts"] == "2"
    assert answer.body.count(b"data: ") == 4
    assert b"error" not in answer.body
    assert (reached(), len(second.requests)) == (1, 1)
    charge = gateway.charge(account)
    assert (charge.channel_id, charge.attempts, charge.quota) == (channel.id, 2, QUOTA)
    assert charge.is_stream


def test_a_key_that_is_refused_is_written_off(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """Of several keys only the one; with the last one the channel."""
    refuses = always(whole(SERVER_ERROR, 401))
    dead = gateway.channel(account, upstream(refuses).url, priority=10)
    gateway.channel(account, upstream(always(whole(ANSWER))).url)
    assert gateway.chat(account, CHAT).status == 200
    give_up = time.monotonic() + 1
    while True:
        found, state = gateway.change(
            lambda store, vault: both(channels.get(store, vault, dead.id), channels.states(store, [dead.id]))
        )
        if found.disabled_keys or time.monotonic() > give_up:
            break
        time.sleep(0.01)
    assert (found.disabled_keys, found.status) == (frozenset({0}), ChannelStatus.AUTO_DISABLED)
    assert "401" in state[dead.id].disabled_keys[0]
    assert "401" in state[dead.id].status_reason


async def both(one, other):
    return await one, await other


def test_another_key_of_the_channel_is_tried(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            good = request.headers[b"authorization"] == b"Bearer sk-good"
            await peer.send(whole(ANSWER) if good else whole(SERVER_ERROR, 429))

    shared = upstream(script)
    gateway.channel(account, shared.url, keys=tuple(map(Secret, ("sk-bad", "sk-good"))), key_mode="polling")
    # Different conversations: one and the same would stay with the key that has served it.
    talks = [CHAT | {"messages": [{"role": "user", "content": f"talk {number}"}]} for number in range(4)]
    attempts = [gateway.chat(account, talk).headers["x-tollway-attempts"] for talk in talks]
    assert sorted(attempts) == ["1", "1", "2", "2"]
    assert all(charge.quota == QUOTA for charge in gateway.charges(account))


def test_when_all_channels_fail_there_is_one_clean_error_and_no_charge(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    broken = [upstream(always(whole(b'{"error":{"message":"account acct-7 is over"}}', 500))) for _ in range(3)]
    for each in broken:
        gateway.channel(account, each.url)
    for stream in (False, True):
        answer = gateway.chat(account, CHAT | {"stream": stream})
        assert (answer.status, answer.error["code"]) == (502, "upstream_status")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-should-retry"] == "false"
        assert "acct-7" not in answer.body.decode()
    # Each channel once, and once more after a pause, for each of the two calls.
    assert [len(each.requests) for each in broken] == [4, 4, 4]
    assert gateway.charges(account) == []
    assert gateway.held(account) == (0, 0)


def test_what_failed_attempts_took_is_not_the_gateways_own_time(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(holds()).url, priority=10)
    gateway.channel(account, upstream(always(whole(ANSWER))).url)
    began = time.monotonic()
    answer = gateway.chat(account, CHAT)
    took_ms = (time.monotonic() - began) * 1000
    assert answer.headers["x-tollway-attempts"] == "2"
    assert float(answer.headers["x-tollway-overhead-ms"]) < took_ms / 2


def test_a_channel_that_recovers_in_time_answers(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    gateway.channel(account, upstream(answers(whole(SERVER_ERROR, 503), whole(ANSWER))).url)
    answer = gateway.chat(account, CHAT)
    assert (answer.status, answer.headers["x-tollway-attempts"]) == (200, "2")
    assert gateway.charge(account).attempts == 2


def test_a_channel_that_keeps_failing_is_left_alone(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    broken = upstream(always(whole(SERVER_ERROR, 500)))
    gateway.channel(account, broken.url, priority=10)
    gateway.channel(account, upstream(always(whole(ANSWER))).url)
    attempts = [gateway.chat(account, CHAT).headers["x-tollway-attempts"] for _ in range(8)]
    assert attempts == ["2"] * 5 + ["1"] * 3
    assert len(broken.requests) == 5


CALLERS_OWN = {
    400: b'{"error": {"message":"Bad \\u00e9","type":"invalid_request_error","param":"temperature","code":null}}\n',
    404: b'{"error":{"message":"No such file","type":"invalid_request_error","param":"file_id","code":"not_found"}}',
    409: b'{"error":{"message":"Conflict"}, "extra" : 1.0}',
    413: b"too much",
    415: b'{"error":{"message":"Not this type"}}',
    422: b'{"detail":[{"loc":["body","messages"],"msg":"field required"}]}',
}


@pytest.mark.parametrize("code", CALLERS_OWN)
def test_a_callers_own_fault_comes_back_as_it_is(
    code: int, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """Once, without a charge, and without a mark against the channel however often it happens."""
    body = CALLERS_OWN[code]
    refusals = [whole(body, code, b"application/json; odd=1", b"x-their-account: acct-7")] * 20
    first, second = upstream(answers(*refusals, whole(ANSWER))), upstream(always(whole(ANSWER)))
    channel = gateway.channel(account, first.url, priority=10)
    gateway.channel(account, second.url)
    for number in range(20):
        answer = gateway.chat(account, CHAT | {"stream": number % 2 == 1})
        assert (answer.status, answer.body) == (code, body)
        assert answer.headers["content-type"] == "application/json; odd=1"
        assert "x-their-account" not in answer.headers
    assert gateway.charges(account) == []
    assert gateway.chat(account, CHAT).body == ANSWER
    assert gateway.charge(account).channel_id == channel.id
    assert (len(first.requests), len(second.requests)) == (21, 0)
