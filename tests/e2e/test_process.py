"""`tollway serve` in a process of its own: its orderly end, a slow reader's memory, and what it never writes down."""

import asyncio
import http.client
import json
import re
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.data_dir import DataDir, open_data_dir
from tollway.gateway.store import logs
from tollway.gateway.store.records import LogRow

from .conftest import UpstreamOf
from .gateway import Account, new_account, new_channel
from .running import serving_process
from .scripted import Peer, answers, holds
from .wire import (
    CHAT,
    DONE,
    LAST_CHUNK,
    QUOTA,
    OpenRequest,
    ask,
    chunk,
    completion,
    delta,
    sse_head,
    usage_event,
    whole,
)
from .wire import (
    stream as events,
)

T = TypeVar("T")
STREAM = CHAT | {"stream": True}
MIB = 1024 * 1024
BIG = 50 * MIB


def in_data_dir(data_dir: Path, work: Callable[[DataDir], Awaitable[T]]) -> T:
    async def on_loop() -> T:
        opened = await open_data_dir(Settings(data_dir=data_dir))
        try:
            return await work(opened)
        finally:
            await opened.store.close()

    return asyncio.run(on_loop())


def made(data_dir: Path, url: str, key: str = "sk-upstream") -> Account:
    """An account and a channel at `url`, in a new data directory."""

    async def work(opened: DataDir) -> Account:
        account = await new_account(opened.store, opened.vault)
        await new_channel(opened.store, opened.vault, account.group, url, keys=(Secret(key),))
        return account

    return in_data_dir(data_dir, work)


def charges_in(data_dir: Path) -> tuple[LogRow, ...]:
    return in_data_dir(data_dir, lambda opened: logs.find(opened.store, logs.LogFilter()))


def accepts(address: str) -> bool:
    try:
        return ask(address, "/healthz").status == 200
    except OSError:
        return False


def test_sigterm_lets_an_open_stream_finish(data_dir: Path, upstream: UpstreamOf) -> None:
    release = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head(), chunk(delta("before")))
        await peer.wait(release)
        await peer.send(chunk(delta("after")), chunk(usage_event()), chunk(DONE), LAST_CHUNK)

    account = made(data_dir, upstream(script).url)
    with serving_process(data_dir) as process:
        with OpenRequest(process.address, account.key, STREAM) as client:
            client.read_until(b"before")
            process.terminate()
            give_up = time.monotonic() + 5
            while accepts(process.address):
                assert time.monotonic() < give_up, "new connections are still accepted"
                time.sleep(0.01)
            assert process.popen.poll() is None
            release.set()
            assert b"after" in client.read_until(DONE)
        assert process.ended() == 0
    (charge,) = charges_in(data_dir)
    assert (charge.quota, charge.outcome) == (QUOTA, "completed")


def test_a_request_on_its_way_as_the_end_begins_is_served(data_dir: Path, upstream: UpstreamOf) -> None:
    account = made(data_dir, upstream(answers(whole(completion()))).url)
    with serving_process(data_dir) as process:
        address = process.address.removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=5)) as connection:
            connection.connect()
            assert accepts(process.address)  # and so the one before was accepted
            process.terminate()
            while accepts(process.address):
                time.sleep(0.01)
            headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), headers)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("connection")) == (200, "close")
            answer.read()
        assert process.ended() == 0


def test_sigterm_does_not_wait_for_ever(data_dir: Path, upstream: UpstreamOf) -> None:
    """A stream that does not end in time is broken off and charged for what was delivered."""
    account = made(data_dir, upstream(holds(sse_head(), chunk(delta("One two three four five")))).url)
    with (
        serving_process(data_dir, SHUTDOWN_TIMEOUT_SECONDS="1") as process,
        OpenRequest(process.address, account.key, STREAM) as client,
    ):
        client.read_until(b"five")
        since = time.monotonic()
        process.terminate()
        assert process.ended() == 0
        assert 0.8 < time.monotonic() - since < 5
        assert "Traceback" not in process.err
    (charge,) = charges_in(data_dir)
    assert (charge.outcome, charge.estimated) == ("cancelled", True)
    assert charge.output_tokens > 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_ctrl_c_cuts_open_requests_off(data_dir: Path, upstream: UpstreamOf, workers: str) -> None:
    """In order, too: what was delivered is charged, nothing stays in the journal, and nobody is shown a traceback."""
    account = made(data_dir, upstream(holds(sse_head(), chunk(delta("One two three four five")))).url)
    with (
        serving_process(data_dir, "--workers", workers) as process,
        OpenRequest(process.address, account.key, STREAM) as client,
    ):
        client.read_until(b"five")
        process.press_ctrl_c()
        while accepts(process.address):
            time.sleep(0.01)
        assert process.popen.poll() is None
        process.press_ctrl_c()
        assert process.ended() == 0
        # Perhaps beside the one that has just asked whether connections are still accepted.
        assert re.search(r"Waiting for \d open requests? to end, for 120 s at most; Ctrl-C cuts them off", process.err)
        assert "Traceback" not in process.err
    (charge,) = charges_in(data_dir)
    assert (charge.outcome, charge.estimated) == ("cancelled", True)
    assert charge.output_tokens > 0


@pytest.mark.parametrize("seconds", [0.02, 0.2, 0.4, 0.7])
def test_ctrl_c_while_workers_start_is_no_accident(data_dir: Path, seconds: float) -> None:
    with serving_process(data_dir, "--workers", "2", ready=False) as process:
        assert process.popen.stderr is not None
        assert "is a new database" in process.popen.stderr.readline()
        assert "listens on" in process.popen.stderr.readline()
        time.sleep(seconds)
        process.press_ctrl_c()
        assert process.ended() == 0
        assert "Traceback" not in process.err


def test_a_slow_reader_fills_no_memory(data_dir: Path, upstream: UpstreamOf) -> None:
    """50 MB that nobody reads wait at the upstream; read at last, all of them arrive."""
    words = delta("x" * (64 * 1024))
    count = BIG // len(words)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head())
        for _ in range(count if len(fast.peers) > 1 else 1):
            peer.writer.write(chunk(words))
            await peer.writer.drain()
            peer.sent += len(words)
        await peer.send(chunk(DONE), LAST_CHUNK)

    fast = upstream(script)
    account = made(data_dir, fast.url)
    with serving_process(data_dir) as process, ExitStack() as stack:
        with OpenRequest(process.address, account.key, STREAM) as client:
            client.read_until(DONE)  # the first that has to be counted brings the tokenizer into memory
        client = stack.enter_context(OpenRequest(process.address, account.key, STREAM))
        client.read_until(b"xxx")
        before = process.resident_bytes
        time.sleep(0.5)
        waiting = fast.peers[1].sent
        assert waiting < BIG / 2, "the upstream was read although nobody reads the answer"
        assert process.resident_bytes - before < 12 * MIB
        size, tail = len(client.seen), client.seen
        while DONE not in tail:
            data = client.socket.recv(MIB)
            assert data
            size, tail = size + len(data), (tail + data)[-64:]
        assert size > BIG - len(words)
        assert process.resident_bytes - before < 12 * MIB
        process.terminate()
        assert process.ended() == 0
    charge, _ = charges_in(data_dir)
    assert (charge.outcome, charge.estimated) == ("completed", True)
    assert charge.output_tokens > BIG / 10


@pytest.mark.parametrize(
    ("proxies", "status"), [("", 403), ("192.0.2.0/24", 403), ("127.0.0.0/8", 200)], ids=["none", "another", "this"]
)
def test_a_forwarded_address_counts_from_trusted_proxies_only(proxies: str, status: int, data_dir: Path) -> None:
    async def work(opened: DataDir) -> Account:
        account = await new_account(opened.store, opened.vault, unlimited=True, allow_ips=["10.0.0.0/8"])
        await new_channel(opened.store, opened.vault, account.group)
        return account

    account = in_data_dir(data_dir, work)
    with serving_process(data_dir, TRUSTED_PROXIES=proxies) as process:
        headers = {"X-Forwarded-For": "10.1.2.3"}
        assert ask(process.address, "/v1/chat/completions", account.key, CHAT, headers=headers).status == status


CLIENT_SECRET = "sk-CLIENTCANARY0123456789abcdefghij"
CHANNEL_SECRET = "sk-CHANNELCANARY0123456789abcdefghij"
PROMPT = "PROMPTCANARY what is the meaning of this"
ANSWER = "ANSWERCANARY forty-two"


def test_keys_prompts_and_answers_are_written_nowhere(data_dir: Path, upstream: UpstreamOf) -> None:
    """Successes and failures of every kind, and then a look at everything that was written or shown."""
    leaky = b'{"error":{"message":"Incorrect API key %b, organization org-CANARY"}}' % CHANNEL_SECRET.encode()
    answers = iter(
        [
            whole(completion(ANSWER)),
            events(delta(ANSWER), usage_event(), DONE),
            whole(leaky, 500),
            whole(leaky, 500),
            whole(leaky),
            whole(leaky),
            whole(completion(ANSWER)),
            sse_head() + chunk(delta(ANSWER)) + b"zz\r\n",
            whole(leaky, 401),
        ]
    )

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(next(answers))

    account = made(data_dir, upstream(script).url, CHANNEL_SECRET)
    key = account.key
    path = "/v1/chat/completions"
    body = CHAT | {"messages": [{"role": "user", "content": PROMPT}]}
    stream = body | {"stream": True}
    errors: list[bytes] = []
    with serving_process(data_dir) as process:

        def tell(status: int, *asked: Any, **how: Any) -> None:
            answer = ask(process.address, *asked, **how)
            assert answer.status == status, answer.body
            errors.append(answer.body)
            errors.append(str(answer.headers).encode())

        assert ANSWER.encode() in ask(process.address, path, key, body).body
        assert b"ANSWERCANARY" in ask(process.address, path, key, stream).body
        tell(502, path, key, body)
        tell(502, path, key, stream)
        assert ANSWER.encode() in ask(process.address, path, key, body).body
        assert b"upstream_bad_response" in ask(process.address, path, key, stream).body
        tell(502, path, key, body)
        tell(401, path, CLIENT_SECRET, body)
        tell(401, f"{path}?key={CLIENT_SECRET}", None, body)
        tell(401, path, None, body, headers={"x-api-key": CLIENT_SECRET})
        tell(404, path, key, body | {"model": "gpt-9"})
        tell(400, path, key, body | {"n": "many"})
        tell(400, path, key, PROMPT.encode())
        tell(415, path, key, PROMPT.encode(), content_type="text/plain")
        tell(404, "/v1/nothing", key, body)
        metrics = ask(process.address, "/metrics").body
        time.sleep(0.3)
        journal = b"".join(file.read_bytes() for file in (data_dir / "journal").iterdir())
        process.terminate()
        assert process.ended() == 0
    assert len(charges_in(data_dir)) == 4
    written = b"".join(
        file.read_bytes() for file in data_dir.iterdir() if file.is_file() and file.name != "crypto_secret"
    )
    assert len(re.findall('"path":"/v1/', process.out)) == 15
    places = {
        "the log": (process.out + process.err).encode(),
        "the metrics": metrics,
        "the journal": journal,
        "an error": b"".join(errors),
        "the data directory": written,
    }
    secrets = [key, key.removeprefix("sk-")[5:-5], CLIENT_SECRET, CHANNEL_SECRET, "CHANNELCANARY", "CLIENTCANARY"]
    for name, text in places.items():
        for secret in (*secrets, "PROMPTCANARY", "ANSWERCANARY", "org-CANARY"):
            assert secret.encode() not in text, f"{secret} stands in {name}"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_connects_once_it_says_that_it_listens_is_served(workers: str, data_dir: Path) -> None:
    with serving_process(data_dir, "--workers", workers, ready=False) as process:
        assert process.popen.stderr is not None
        assert "is a new database" in process.popen.stderr.readline()
        line = process.popen.stderr.readline()
        assert line.endswith(f" listens on {process.address}\n")
        with urllib.request.urlopen(f"{process.address}/healthz", timeout=20) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.ended() == 0
