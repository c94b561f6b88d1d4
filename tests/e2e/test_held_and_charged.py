"""What is held and what is charged when clients leave early, stop reading, ask for more, or ask all at once."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from tollway.adapters.usage.token_estimates import estimate_input
from tollway.config.settings import Settings
from tollway.gateway.app import create_app
from tollway.gateway.store import options

from .conftest import OPTIONS, UpstreamOf
from .gateway import DOLLAR, Account, Gateway, now_ms
from .running import served
from .scripted import Peer, Script, ScriptedUpstream, always, holds
from .wire import (
    CHAT,
    DONE,
    LAST_CHUNK,
    MODEL,
    QUOTA,
    SSE,
    Answer,
    OpenRequest,
    ask,
    chunk,
    completion,
    delta,
    event,
    sse_head,
    usage_event,
    whole,
)

STREAM = CHAT | {"stream": True}
WORDS = "One two three four five six seven eight nine ten. "
SOON_S = 0.15
"""100 ms are promised; the rest is for a busy machine."""
FAREWELL_S = 2.0
SILENCE_S = 1.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One that gives up soon on clients who do not read."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("held"), streaming_timeout=SILENCE_S, first_byte_timeout=5, access_log=False
    )
    app = create_app(settings)
    with served(app) as server:
        gateway = Gateway(app, server)
        gateway.change(lambda store, vault: options.set_many(store, OPTIONS, now_ms=now_ms()))
        yield gateway


@contextlib.contextmanager
def waited_for() -> Iterator[threading.Event]:
    """What a script waits for: set in the end even if the test fails, so that nothing waits for ever."""
    release = threading.Event()
    try:
        yield release
    finally:
        release.set()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    with waited_for() as release:
        yield release


def finish(reason: str | None = "stop", spaced: bool = True) -> bytes:
    """The event with which a choice ends."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    written = event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]})
    return written if spaced else written.replace(b'": ', b'":').replace(b", ", b",")


def left_after(upstream: ScriptedUpstream, since: float) -> float:
    assert upstream.left.wait(5), "the upstream was never left"
    return upstream.left_at[-1] - since


FINISHES = {
    "stop": finish(),
    "length": finish("length"),
    "without spaces": finish(spaced=False),
    "beside the last words": delta(WORDS).replace(b'"finish_reason": null', b'"finish_reason": "stop"'),
}


@pytest.mark.parametrize("last", FINISHES.values(), ids=FINISHES)
def test_who_leaves_a_finished_answer_pays_by_the_usage_behind_it(
    last: bytes, release: threading.Event, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head(), chunk(delta(WORDS)), chunk(last))
        await peer.wait(release)
        await peer.send(chunk(usage_event()), chunk(DONE), LAST_CHUNK)
        await peer.gone()

    finished = upstream(script)
    gateway.channel(account, finished.url)
    with gateway.open_chat(account, STREAM) as client:
        client.read_until(last)
        client.hang_up()
        time.sleep(0.4)
        assert not finished.left.is_set()
        release.set()
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens, charge.estimated) == (1000, 500, False)
    assert (charge.quota, charge.outcome) == (QUOTA, "completed")
    assert gateway.held(account) == (0, 0)


def test_a_usage_that_does_not_come_is_not_waited_for_long(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head(), chunk(delta(WORDS)), chunk(finish()))
        leaving = asyncio.create_task(peer.gone())
        with contextlib.suppress(ConnectionError):
            while not leaving.done():
                await peer.send(chunk(b": still here\n\n"))
                await asyncio.sleep(0.2)
        await leaving

    endless = upstream(script)
    gateway.channel(account, endless.url)
    with gateway.open_chat(account, STREAM) as client:
        client.read_until(finish())
        since = time.monotonic()
        client.hang_up()
        assert FAREWELL_S - 0.2 < left_after(endless, since) < FAREWELL_S + SOON_S
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.input_tokens) == ("cancelled", True, estimate_input(CHAT))
    assert 10 <= charge.output_tokens <= 20
    assert gateway.held(account) == (0, 0)


UNFINISHED = {
    "a reason that is null": delta(WORDS) + finish(None) + finish(None, spaced=False),
    "words that speak of one": delta(WORDS + '{"finish_reason":"stop", "finish_reason": "stop"}'),
    "half of the event that would finish it": delta(WORDS) + finish()[:-20],
}


@pytest.mark.parametrize("said", UNFINISHED.values(), ids=UNFINISHED)
def test_who_leaves_before_the_end_pays_at_once_for_what_came(
    said: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    endless = upstream(holds(sse_head(), chunk(said)))
    gateway.channel(account, endless.url)
    with gateway.open_chat(account, STREAM) as client:
        client.read_until(b"ten. ")
        time.sleep(0.1)
        since = time.monotonic()
        client.hang_up()
        assert left_after(endless, since) < SOON_S
    charge = gateway.charge(account)
    assert (charge.outcome, charge.estimated, charge.input_tokens) == ("cancelled", True, estimate_input(CHAT))
    assert 10 <= charge.output_tokens <= 50
    assert gateway.held(account) == (0, 0)


SPEECH = "/v1/audio/speech"
SPOKEN = {"model": "tts-1", "voice": "a", "input": "x" * 1000}
STALLS: dict[str, tuple[str, dict[str, Any], bytes, bytes]] = {
    "a stream": ("/v1/chat/completions", STREAM, SSE, delta("x" * 65536)),
    "speech": (SPEECH, SPOKEN, b"audio/mpeg", b"x" * 65536),
}


ELSEWHERE = CHAT | {"model": "served-by-nobody"}


@pytest.mark.parametrize("disconnect", ["cancel", "drain"])
@pytest.mark.parametrize("case", STALLS.values(), ids=STALLS)
def test_a_client_that_stops_reading_is_given_up(
    case: tuple[str, dict[str, Any], bytes, bytes], disconnect: str, gateway: Gateway, upstream: UpstreamOf
) -> None:
    path, body, content_type, piece = case

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head(content_type))
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(chunk(piece))
        await peer.gone()

    flood = upstream(script)
    account = gateway.account(unlimited=True, parallel_requests=1)
    gateway.channel(account, flood.url, models=(body["model"],), disconnect=disconnect)
    with OpenRequest(gateway.address, account.key, body, path) as client:
        client.read_until(b"xxx")
        since = time.monotonic()
        assert gateway.chat(account, ELSEWHERE).status == 429
        assert left_after(flood, since) < 2 * SILENCE_S + 1.0
        charge = gateway.charge(account)
        assert charge.outcome == "cancelled"
        assert charge.quota > 0
        assert path == SPEECH or charge.output_tokens > 10_000
        assert gateway.held(account) == (0, 0)
        assert gateway.chat(account, ELSEWHERE).status == 404, "its place is not free again"


HIGH = CHAT | {"model": "gpt-5-high"}


def model_asked(upstream: ScriptedUpstream) -> tuple[str, str | None]:
    asked = json.loads(upstream.requests[-1].body)
    return asked["model"], asked.get("reasoning_effort")


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        pytest.param(("gpt-5",), ("gpt-5", "high"), id="the model: more effort of it"),
        pytest.param(("gpt-5-high",), ("gpt-5-pro", "high"), id="the longer name: what the channel makes of it"),
        pytest.param(("gpt-5", "gpt-5-high"), ("gpt-5-pro", "high"), id="both: the longer name"),
    ],
)
def test_a_key_that_may_use_a_model_gets_no_other_by_a_suffix(
    allowed: tuple[str, ...], asked: tuple[str, str], gateway: Gateway, upstream: UpstreamOf
) -> None:
    account, seen = gateway.account(models=allowed, unlimited=True), upstream(always(whole(completion())))
    mapping = {"gpt-5-high": "gpt-5-pro"}
    gateway.channel(account, seen.url, models=("gpt-5", "gpt-5-high"), model_mapping=mapping)
    assert gateway.chat(account, HIGH).status == 200
    assert model_asked(seen) == asked
    assert gateway.charge(account).model == ("gpt-5" if asked[0] == "gpt-5" else "gpt-5-high")


def test_a_channel_of_the_longer_name_alone_does_not_serve_such_a_key(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(models=("gpt-5",), unlimited=True)
    dear, plain = upstream(always(whole(completion()))), upstream(always(whole(completion())))
    gateway.channel(account, dear.url, models=("gpt-5-high",), model_mapping={"gpt-5-high": "gpt-5-pro"}, priority=10)
    assert gateway.chat(account, HIGH).status == 404
    gateway.channel(account, plain.url, models=("gpt-5",))
    assert gateway.chat(account, HIGH).status == 200
    assert model_asked(plain) == ("gpt-5", "high")
    assert gateway.chat(account, HIGH | {"model": "gpt-5-pro"}).status == 403
    assert dear.connections == 0


@dataclass(frozen=True)
class Case:
    """A request, and the dearest answer that it may well get."""

    path: str
    body: bytes | dict[str, Any]
    answer: bytes
    model: str
    content_type: str = "application/json"


def form(model: str, file: bytes, *fields: tuple[str, str], name: str = "file") -> bytes:
    text = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (key.encode(), value.encode())
        for key, value in (("model", model), *fields)
    )
    head = b'--B\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\n' % name.encode()
    return text + head + file + b"\r\n--B--\r\n"


def heard(model: str, answer: bytes, kind: bytes = b"text/plain; charset=utf-8") -> Case:
    body = form(model, b"x" * 800_000, ("response_format", "text"))
    return Case("/v1/audio/transcriptions", body, whole(answer, 200, kind), model, "multipart/form-data; boundary=B")


def spoken(model: str) -> Case:
    body = {"model": model, "voice": "a", "input": "word " * 200}
    return Case(SPEECH, body, whole(b"x" * 50_000, 200, b"audio/mpeg"), model)


def drawn(model: str, answer: bytes, **more: Any) -> Case:
    return Case("/v1/images/generations", {"model": model, "prompt": "a cat", **more}, whole(answer), model)


def edited(model: str) -> Case:
    body = form(model, b"x" * 1000, ("prompt", "a cat"), name="image")
    return Case("/v1/images/edits", body, whole(PICTURE), model, "multipart/form-data; boundary=B")


def completed(tokens: int, **body: Any) -> Case:
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
    model = "gpt-3.5-turbo-instruct"
    return Case("/v1/completions", {"model": model, **body}, whole(completion(usage=usage)), model)


def chatted(usage: Any, text: str = "Hello!", **more: Any) -> Case:
    return Case("/v1/chat/completions", CHAT | more, whole(completion(text, usage)), MODEL)


PICTURE = b'{"created":1,"data":[{"b64_json":"AA=="}]}'
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
CASES = {
    "whisper as text": heard("whisper-1", b"hello"),
    "whisper, no word": heard("whisper-1", b" "),
    "a transcript as text": heard("gpt-4o-transcribe", b"hello " * 400),
    "a transcript as JSON": heard("gpt-4o-mini-transcribe", b'{"text":"hello"}', b"application/json"),
    "tts-1": spoken("tts-1"),
    "tts-1-hd": spoken("tts-1-hd"),
    "gpt-4o-mini-tts": spoken("gpt-4o-mini-tts"),
    "dall-e-3 without usage": drawn("dall-e-3", PICTURE, quality="hd", size="1792x1024"),
    "dall-e-2, nobody knows how many": drawn("dall-e-2", b'{"created":1}', n=2),
    "gpt-image-1 without usage": drawn("gpt-image-1", PICTURE),
    "gpt-image-1, an edit": edited("gpt-image-1"),
    "a list of prompts": completed(20 * 100, prompt=["a"] * 20, max_tokens=100),
    "best_of": completed(20 * 100, prompt="a", best_of=20, max_tokens=100),
    "n": chatted({"prompt_tokens": 10, "completion_tokens": 8 * 16, "total_tokens": 138}, n=8),
    "a chat without usage": chatted(None),
    "a chat with a usage of nothing": chatted(NOTHING),
}
AT_ONCE = 25


def asked(gateway: Gateway, account: Account, case: Case) -> Answer:
    return ask(gateway.address, case.path, account.key, case.body, content_type=case.content_type, timeout=20)


def patient(release: threading.Event, answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.wait(release)
            await peer.send(answer)

    return script


def held_and_charged(case: Case, gateway: Gateway, upstream: UpstreamOf) -> tuple[int, int]:
    """What one request holds while its upstream is waited for, and what it costs then."""
    account = gateway.account(quota=100 * DOLLAR)
    with ThreadPoolExecutor(1) as pool, waited_for() as release:
        waiting = upstream(patient(release, case.answer))
        gateway.channel(account, waiting.url, models=(case.model,))
        one = pool.submit(asked, gateway, account, case)
        assert waiting.asked.wait(5)
        held, _ = gateway.held(account)
        release.set()
        assert one.result().status == 200
    return held, gateway.charge(account).quota


def all_at_once(case: Case, quota: int, gateway: Gateway, upstream: UpstreamOf) -> tuple[int, Account]:
    """How many of 25 requests at once are served to somebody who has this much; the others are refused."""
    account = gateway.account(quota=quota)
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def one(_: int) -> None:
        status = asked(gateway, account, case).status
        with lock:
            statuses[status] += 1

    with ThreadPoolExecutor(AT_ONCE) as pool, waited_for() as release:
        waiting = upstream(patient(release, case.answer))
        gateway.channel(account, waiting.url, models=(case.model,))
        each = pool.map(one, range(AT_ONCE))
        give_up = time.monotonic() + 4
        while statuses.total() + len(waiting.requests) < AT_ONCE and time.monotonic() < give_up:
            time.sleep(0.01)
        release.set()
        list(each)
    assert set(statuses) <= {200, 402}
    assert len(waiting.requests) == statuses[200]
    return statuses[200], account


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nobody_is_served_beyond_his_balance_and_nothing_for_nothing(
    case: Case, gateway: Gateway, upstream: UpstreamOf
) -> None:
    held, price = held_and_charged(case, gateway, upstream)
    assert 1 <= price <= held
    for quota, most in ((1, 1 // price), (price, 1), (4 * held - 1, 3)):
        count, account = all_at_once(case, quota, gateway, upstream)
        assert count == most if quota > price else count <= most
        assert [charge.quota for charge in gateway.charges(account)] == [price] * count
        assert gateway.balance(account).quota == quota - count * price >= 0
        assert gateway.held(account) == (0, 0)
