"""Upstreams that flood, cut and mislead, and clients who would use them so: nobody else is the worse for it."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_data_dir
from tollway.gateway.store import logs
from tollway.gateway.store.records import LogRow

from .conftest import SILENCE_S, UpstreamOf
from .gateway import Account, Gateway, new_account, new_channel
from .running import serving_process
from .scripted import Peer, Script, always, answers, ends, holds
from .wire import (
    CHAT,
    DONE,
    HELLO,
    JSON,
    LAST_CHUNK,
    OpenRequest,
    ask,
    chunk,
    completion,
    delta,
    sse_head,
    usage_event,
    whole,
)

STREAM = CHAT | {"stream": True}
PATH = "/v1/chat/completions"
MIB = 1024 * 1024


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a script waits for: set in the end even if the test fails, so that nothing waits for ever."""
    release = threading.Event()
    yield release
    release.set()


def with_lines(gateway: Gateway, account: Account, *lines: tuple[str, str]) -> tuple[int, Any]:
    """Status and document of a conversation whose headers have these lines beside the usual ones."""
    body = json.dumps(CHAT).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.served.port, timeout=10)) as connection:
        connection.putrequest("POST", PATH, skip_accept_encoding=True)
        usual = ("Authorization", f"Bearer {account.key}"), ("Content-Type", "application/json")
        for name, value in (*usual, ("Content-Length", str(len(body))), *lines):
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


FORWARDED = ["Accept", "OpenAI-Beta"]
LINES: dict[str, Callable[[str], list[tuple[str, str]]]] = {
    "one that is long": lambda name: [(name, "a" * 1025)],
    "one that is endless": lambda name: [(name, "a" * 60_000)],
    "very many short ones": lambda name: [(name, f"a{number}") for number in range(1000)],
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("name", FORWARDED)
def test_headers_out_of_proportion_are_the_callers_own_fault(
    name: str,
    lines: Callable[[str], list[tuple[str, str]]],
    gateway: Gateway,
    account: Account,
    upstream: UpstreamOf,
) -> None:
    well = upstream(always(whole(completion())))
    gateway.channel(account, well.url)
    for _ in range(6):
        status, document = with_lines(gateway, account, *lines(name))
        assert (status, document["error"]["param"]) == (400, name.lower())
    assert well.connections == 0
    assert gateway.chat(account, CHAT).status == 200
    assert len(gateway.charges(account)) == 1


@pytest.mark.parametrize("name", FORWARDED)
def test_a_few_lines_of_one_header_go_on_as_one(
    name: str, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    well = upstream(always(whole(completion())))
    gateway.channel(account, well.url)
    assert with_lines(gateway, account, (name, "a=1"), (name, "b=2"), (name, "c" * 1000))[0] == 200
    (request,) = well.requests
    wanted = b"a=1, b=2, " + b"c" * 1000
    assert request.headers[name.lower().encode()] == wanted
    assert request.head.lower().count(b"\r\n" + name.lower().encode() + b": ") == 1


def refusing_at_first(refusal: bytes, then: Callable[[Peer], Any]) -> tuple[Script, threading.Event]:
    """A script that refuses with these bytes until the event is set."""
    well = threading.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if well.is_set():
                await then(peer)
            else:
                await peer.send(refusal)

    return script, well


def slow_down(retry_after: bytes) -> bytes:
    return whole(b'{"error":{"message":"Slow down."}}', 429, JSON, b"retry-after: " + retry_after)


@pytest.mark.parametrize("breaks", [False, True], ids=["ends well", "breaks off"])
def test_others_are_served_while_a_slow_stream_proves_the_channel_well(
    breaks: bool, release: threading.Event, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    async def slowly(peer: Peer) -> None:
        await peer.send(sse_head(), chunk(delta("first")))
        await peer.wait(release)
        if breaks:
            raise ConnectionError
        await peer.send(chunk(delta("last")), chunk(usage_event()), chunk(DONE), LAST_CHUNK)

    script, well = refusing_at_first(slow_down(b"1"), slowly)
    gateway.channel(account, upstream(script).url)
    assert gateway.chat(account, STREAM).status == 429
    well.set()
    time.sleep(1.05)
    with gateway.open_chat(account, STREAM) as probe:
        assert b" 200 " in probe.read_until(b"first")
        for _ in range(2):
            with gateway.open_chat(account, STREAM) as other:
                assert b" 200 " in other.read_until(b"first")
        release.set()
        probe.read_until(b'"error"' if breaks else DONE)
    for _ in range(2):
        with gateway.open_chat(account, STREAM) as other:
            assert b" 200 " in other.read_until(b"first")


def test_a_refusal_that_says_come_again_at_once_keeps_nobody_out(
    release: threading.Event, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    async def patiently(peer: Peer) -> None:
        await peer.wait(release)
        await peer.send(whole(completion()))

    script, well = refusing_at_first(slow_down(b"0"), patiently)
    seen = upstream(script)
    gateway.channel(account, seen.url)
    assert gateway.chat(account, CHAT).status == 429
    refused = len(seen.requests)
    well.set()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(gateway.chat, account, CHAT) for _ in range(4)]
        give_up = time.monotonic() + 0.4
        while len(seen.requests) < refused + 4 and time.monotonic() < give_up:
            time.sleep(0.005)
        release.set()
        assert [each.result().status for each in asked] == [200] * 4


FLOODS = {
    "comments": b": keep-alive\n\n",
    "comments in one endless block": b": keep-alive\n",
    "blank lines": b"\n\n",
    "events without data": b"event: ping\n\n",
    "other fields": b"id: 1\nretry: 1\n\n",
    "line ends of another kind": b": keep-alive\r\n\r\n",
}


@pytest.mark.parametrize("line", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_nothing_is_refused_and_another_channel_asked(
    line: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    flood = chunk(line * (60_000 // len(line)))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head())
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(flood)
                await asyncio.sleep(0)

    bad = upstream(script)
    gateway.channel(account, bad.url, priority=10)
    pauses: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            since = time.monotonic()
            assert ask(gateway.address, "/healthz").status == 200
            pauses.append(time.monotonic() - since)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            alone = gateway.chat(account, STREAM)
            gateway.channel(account, upstream(always(HELLO)).url)
            among = gateway.chat(account, STREAM)
        finally:
            over.set()
        looking.result()
    assert (alone.status, alone.error["code"]) == (502, "upstream_bad_response")
    assert (among.status, among.headers["x-tollway-attempts"]) == (200, "2")
    assert max(peer.sent for peer in bad.peers) < 48 * MIB
    assert max(pauses) < 2, "others have to wait for it"
    assert len(gateway.charges(account)) == 1


def test_comments_are_refused_at_the_first_mebibyte(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """Fewer of them, as a slow model sends to keep the connection, are passed on."""
    some = b": keep-alive\n\n" * 70_000
    few = upstream(always(sse_head() + chunk(some) + chunk(delta("x") + usage_event() + DONE) + LAST_CHUNK))
    gateway.channel(account, few.url)
    answer = gateway.chat(account, STREAM)
    assert (answer.status, answer.body) == (200, some + delta("x") + DONE)
    gateway.channel(account, upstream(holds(sse_head() + chunk(some) + chunk(some))).url, priority=10)
    since = time.monotonic()
    assert gateway.chat(account, STREAM).headers["x-tollway-attempts"] == "2"
    assert time.monotonic() - since < SILENCE_S, "it was the silence behind them that was refused"


NESTS: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "content, lists": (PATH, b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":', b"[", b"]"),
    "content, objects": (PATH, b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":', b'{"a":', b"}"),
    "a part of content": (PATH, b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":[1,', b"[", b"]"),
    "tools": (PATH, b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x"}],"tools":', b"[", b"]"),
    "a prompt": ("/v1/completions", b'{"model":"gpt-4o-mini","prompt":', b"[", b"]"),
    "an input": ("/v1/embeddings", b'{"model":"gpt-4o-mini","input":', b"[", b"]"),
}


@pytest.mark.parametrize("stream", [b"false", b"true"], ids=["whole", "stream"])
@pytest.mark.parametrize("case", NESTS.values(), ids=NESTS)
def test_bodies_nested_deep_are_served_or_refused(
    case: tuple[str, bytes, bytes, bytes], stream: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    path, head, opening, closing_mark = case
    answer_to_all = completion().replace(b"{", b'{"data":[],', 1)
    well = upstream(always(whole(answer_to_all)))
    for _ in range(2):  # with a choice of channels, so that the conversation is looked at
        gateway.channel(account, well.url, model_mapping={"gpt-4o-mini": "inner"})
    for depth in (2, 100, 250, 260, 500, *range(900, 1101, 10)):
        nest = opening * depth + (b"1" if opening != b"[" else b"") + closing_mark * depth
        tail = nest + b"]" * head.endswith(b"[1,") + b"}]" * head.count(b'content":') * (b'"x"' not in head)
        body = head + tail + b',"stream":' + stream + b"}"
        answer = gateway.ask(path, account, body)
        assert answer.status in (200, 400), (depth, answer.body[:300])
        if answer.status == 400:
            assert answer.error["type"] == "invalid_request_error"
    assert gateway.chat(account, CHAT).status == 200


def test_a_conversation_in_parts_stays_where_it_was_served(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    """Each is known by its first part, and they do not all go one way."""
    first, second = upstream(always(whole(completion()))), upstream(always(whole(completion())))
    for each in first, second:
        gateway.channel(account, each.url)
    went: list[bool] = []
    for number in range(16):
        before, parts = len(first.requests), [{"type": "text", "text": f"conversation {number}"}]
        for turn in range(3):
            content = [*parts, {"type": "text", "text": f"turn {turn}"}]
            gateway.chat(account, CHAT | {"messages": [{"role": "user", "content": content}]})
        count = len(first.requests) - before
        assert count in (0, 3)
        went.append(count == 3)
    assert len(set(went)) == 2


SPOKEN = {"model": "gpt-4o-mini-tts", "voice": "a", "input": "One two three. " * 50}
SOUND = b"x" * 200_000
CUTS = {
    "cut short of its length": ends(whole(SOUND * 2, 200, b"audio/mpeg")[: len(SOUND)]),
    "cut between chunks": ends(sse_head(b"audio/mpeg"), chunk(SOUND)),
    "cut inside a chunk": ends(sse_head(b"audio/mpeg"), chunk(SOUND)[:-100_000]),
    "chunks that are none": ends(sse_head(b"audio/mpeg"), chunk(SOUND), b"zz\r\n"),
    "silence": holds(sse_head(b"audio/mpeg"), chunk(SOUND)),
}


def in_data_dir(data_dir: Path, url: str = "") -> tuple[Account | None, tuple[LogRow, ...]]:
    """With a URL, an account and a channel of speech made in a data directory; without, its charges."""

    async def on_loop() -> tuple[Account | None, tuple[LogRow, ...]]:
        opened = await open_data_dir(Settings(data_dir=data_dir))
        try:
            if not url:
                return None, tuple(await logs.find(opened.store, logs.LogFilter()))
            account = await new_account(opened.store, opened.vault)
            await new_channel(opened.store, opened.vault, account.group, url, models=(SPOKEN["model"],))
            return account, ()
        finally:
            await opened.store.close()

    return asyncio.run(on_loop())


@pytest.mark.parametrize("script", CUTS.values(), ids=CUTS)
def test_speech_that_is_cut_breaks_the_connection_and_is_charged(
    script: Script, data_dir: Path, upstream: UpstreamOf
) -> None:
    account, _ = in_data_dir(data_dir, upstream(script).url)
    assert account is not None
    with serving_process(data_dir, STREAMING_TIMEOUT="1") as process:
        with OpenRequest(process.address, account.key, SPOKEN, "/v1/audio/speech") as client:
            client.read_until(b"\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while data := client.socket.recv(65536):
                    client.seen += data
        assert client.seen.startswith(b"HTTP/1.1 200 ")
        assert client.seen.count(b"x") > 50_000
        assert not client.seen.endswith(b"0\r\n\r\n"), "half of the sound ends as if it were whole"
        assert ask(process.address, "/healthz").status == 200
        process.terminate()
        assert process.ended() == 0
    assert "Traceback" not in process.out + process.err
    _, (charge,) = in_data_dir(data_dir)
    assert (charge.outcome, charge.status) == ("truncated", 200)
    assert charge.output_tokens > 0
    assert charge.quota > 0


@pytest.mark.parametrize("charset", ["utf-16", "UTF-8", "utf-7", "latin-1"])
def test_the_upstream_is_told_no_charset(
    charset: str, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url)
    assert gateway.ask(PATH, account, CHAT, content_type=f"application/json; charset={charset}").status == 200
    assert seen.requests[0].headers[b"content-type"] == b"application/json"


PARTLY = {"a whole answer": (CHAT, whole(completion())), "a stream": (STREAM, HELLO)}


@pytest.mark.parametrize("status", [205, 206])
@pytest.mark.parametrize("case", PARTLY.values(), ids=PARTLY)
def test_a_status_that_denies_the_body_becomes_200(
    status: int, case: tuple[dict[str, Any], bytes], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    body, wire = case
    gateway.channel(account, upstream(answers(wire.replace(b" 200 ", b" %d " % status, 1), wire)).url)
    odd, plain = gateway.chat(account, body), gateway.chat(account, body)
    assert (odd.status, odd.body) == (200, plain.body)
    assert len({charge.quota for charge in gateway.charges(account)}) == 1


@pytest.mark.parametrize("override", [{}, {"service_tier": "flex"}], ids=["none", "the channel's own"])
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
def test_the_tier_of_service_is_the_operators_to_choose(
    body: dict[str, Any], override: dict[str, Any], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(HELLO if "stream" in body else whole(completion())))
    gateway.channel(account, seen.url, param_override=override)
    for tier in ("priority", None, "auto"):
        assert gateway.chat(account, body | {"service_tier": tier}).status == 200
        sent = json.loads(seen.requests[-1].body)
        assert sent.get("service_tier", "none") == override.get("service_tier", "none")
        assert sent["messages"] == body["messages"]
