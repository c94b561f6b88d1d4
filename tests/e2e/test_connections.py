"""Connections of clients: used again, refused early, compressed, upgraded, and not kept waiting by an upstream."""

import gzip
import http.client
import json
import socket
import threading
import time
from contextlib import closing

import openai
import pytest

from .conftest import ClientOf, UpstreamOf
from .gateway import Account, Gateway
from .scripted import Peer, always, ends, holds
from .wire import CHAT, DONE, MODEL, chunk, completion, delta, sse_head, whole

PATH = "/v1/chat/completions"
STREAM = CHAT | {"stream": True}


def test_one_connection_serves_requests_and_refusals_in_turn(gateway: Gateway, account: Account) -> None:
    """A refusal that does not read the body must not leave it behind for the next request."""
    gateway.channel(account)
    large = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 300_000}]})
    asked = [
        (PATH, account.key, json.dumps(CHAT), 200),
        (PATH, "sk-nobody", large, 401),
        (PATH, account.key, json.dumps(STREAM), 200),
        ("/v1/nothing", account.key, large, 404),
        (PATH, account.key, large, 200),
        (PATH, account.key, "{", 400),
        (PATH, account.key, json.dumps(CHAT | {"model": "gpt-9"}), 404),
        (PATH, account.key, json.dumps(CHAT), 200),
    ]
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.served.port, timeout=10)) as connection:
        connection.connect()
        place = connection.sock.getsockname()
        for path, key, body, status in asked:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert connection.sock.getsockname() == place


@pytest.mark.parametrize("mebibytes", [2, 40])
def test_a_body_far_too_large_is_refused_and_the_client_hears_of_it(
    mebibytes: int, gateway: Gateway, account: Account, client_of: ClientOf
) -> None:
    messages = [{"role": "user", "content": "x" * mebibytes * 1024 * 1024}]
    with pytest.raises(openai.APIStatusError) as caught:
        client_of(account.key).chat.completions.create(model=MODEL, messages=messages)
    assert caught.value.status_code == 413


def test_a_body_in_chunks_and_in_gzip(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url)
    body = json.dumps(CHAT, indent=3).encode()
    headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.served.port, timeout=10)) as connection:
        connection.request("POST", PATH, iter([body[:9], body[9:20], body[20:]]), headers, encode_chunked=True)
        assert connection.getresponse().read() == completion()
        connection.request("POST", PATH, gzip.compress(body), headers | {"Content-Encoding": "gzip"})
        assert connection.getresponse().read() == completion()
        connection.request("POST", PATH, b"\x1f\x8b no gzip", headers | {"Content-Encoding": "gzip"})
        assert connection.getresponse().status == 400
    assert [request.body for request in seen.requests] == [body, body]
    assert all(b"content-encoding" not in request.headers for request in seen.requests)


def test_a_compressed_answer_that_nobody_asked_for(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    packed = whole(gzip.compress(completion()), 200, b"application/json", b"content-encoding: gzip")
    gateway.channel(account, upstream(always(packed)).url)
    answer = gateway.chat(account, CHAT)
    assert (answer.status, answer.body) == (200, completion())
    assert "content-encoding" not in answer.headers


def test_a_websocket_is_refused(gateway: Gateway, account: Account) -> None:
    with socket.create_connection(("127.0.0.1", gateway.served.port), timeout=5) as client:
        client.sendall(
            b"GET /v1/realtime?model=gpt-4o-realtime-preview HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 403")


def test_connections_to_an_upstream_are_used_again(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url)
    for _ in range(5):
        assert gateway.chat(account, CHAT).status == 200
    assert (seen.connections, len(seen.requests)) == (1, 5)


def test_a_connection_that_has_gone_stale_costs_no_attempt(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """The upstream closes after each answer without having said so."""
    seen = upstream(ends(whole(completion())))
    gateway.channel(account, seen.url)
    for _ in range(5):
        answer = gateway.chat(account, CHAT)
        assert (answer.status, answer.headers["x-tollway-attempts"]) == (200, "1")
    assert len(gateway.charges(account)) == 5


def test_an_upstream_that_lingers_behind_its_end_mark_holds_nobody_up(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    lingering = upstream(holds(sse_head(), chunk(delta("all")), chunk(DONE)))
    gateway.channel(account, lingering.url)
    since = time.monotonic()
    answer = gateway.chat(account, STREAM)
    assert answer.body == delta("all") + DONE
    assert time.monotonic() - since < 0.95  # its connection may linger a second
    assert gateway.charge(account).outcome == "completed"
    assert lingering.left.wait(2), "the upstream's connection is kept for nothing"


def test_fifty_streams_at_once_do_not_mix(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    async def script(peer: Peer) -> None:
        while True:
            said = json.loads((await peer.request()).body)["messages"][0]["content"]
            await peer.send(
                sse_head(), *(chunk(delta(f"{said}-{word} ")) for word in range(10)), chunk(DONE), b"0\r\n\r\n"
            )

    gateway.channel(account, upstream(script).url)
    found: dict[int, bytes] = {}

    def ask_one(number: int) -> None:
        messages = [{"role": "user", "content": f"talk{number}"}]
        found[number] = gateway.chat(account, STREAM | {"messages": messages}).body

    threads = [threading.Thread(target=ask_one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(50):
        assert found[number] == b"".join(delta(f"talk{number}-{word} ") for word in range(10)) + DONE
    assert len(gateway.charges(account)) == 50
