"""The test of a channel: what is asked, which keys are tried, what the result says, and what it changes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from tollway.adapters.errors import UpstreamTimeout
from tollway.adapters.outgoing import Headers, Outgoing
from tollway.adapters.requests.upstream_request import UpstreamRequestBuilder
from tollway.config.channel import Channel, ChannelStatus, ChannelType
from tollway.config.secret import Secret
from tollway.gateway.channel_test import ChannelTester, Verdict, save_test, smallest_call
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import channels
from tollway.gateway.upstream.port import Incoming, Timeouts

pytestmark = pytest.mark.anyio

GOOD = b'{"id": "x", "choices": []}'


@dataclass
class Answer:
    """An `Incoming` that is all there."""

    status: int = 200
    body: bytes = GOOD
    headers: Headers = field(default_factory=lambda: [(b"content-type", b"application/json")])
    complete: bool = True

    async def read(self) -> bytes:
        body, self.body = self.body, b""
        return body

    def close(self) -> None:
        self.body = b""


@dataclass
class Script:
    """An `Upstream` that gives one answer after the other, and remembers what it was asked."""

    answers: list[Answer | Exception]
    asked: list[Outgoing] = field(default_factory=list)

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Incoming:
        self.asked.append(outgoing)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.answers.clear()


def channel(**fields: Any) -> Channel:
    values = {"name": "c", "type": ChannelType.OPENAI, "models": ("gpt-4o-mini",), "keys": (Secret("sk-upstream-one"),)}
    return Channel(**{"id": 1, **values, **fields})


async def verdict(tested: Channel, *answers: Answer | Exception) -> tuple[Verdict, list[Outgoing]]:
    script = Script(list(answers))
    tester = ChannelTester(upstream=script, requests=UpstreamRequestBuilder(), timeouts=Timeouts())
    return await tester.test(tested), script.asked


def refused(status: int, message: str = "no") -> Answer:
    return Answer(status, orjson.dumps({"error": {"message": message}}))


async def test_a_chat_of_one_word_is_asked_for() -> None:
    result, (outgoing,) = await verdict(channel(model_mapping={"gpt-4o-mini": "mini"}), Answer())
    assert (result.passed, result.http_status, result.reason) == (True, 200, "")
    assert result.response_ms is not None
    assert result.response_ms >= 1
    assert outgoing.url == "https://api.openai.com/v1/chat/completions"
    assert orjson.loads(outgoing.body) == {
        "model": "mini",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 16,
    }


@pytest.mark.parametrize(
    ("model", "operation", "field"),
    [
        ("gpt-4o-mini", "chat_completions", "max_tokens"),
        ("o3-mini-high", "chat_completions", "max_completion_tokens"),
        ("gpt-5", "chat_completions", "max_completion_tokens"),
        ("openai/o4-mini", "chat_completions", "max_completion_tokens"),
        ("text-embedding-3-small", "embeddings", "input"),
        ("BAAI/bge-m3", "embeddings", "input"),
        ("omni-moderation-latest", "moderations", "input"),
        ("gpt-4o-mini-tts", "audio_speech", "voice"),
        ("gpt-3.5-turbo-instruct", "completions", "prompt"),
    ],
)
def test_a_model_is_asked_what_it_can_answer(model: str, operation: str, field: str) -> None:
    call = smallest_call(channel(models=(model,)))
    assert call is not None
    assert call.operation.name == operation
    assert field in (call.document or {})


@pytest.mark.parametrize("model", ["whisper-1", "dall-e-3", "gpt-image-1", "gpt-4o-transcribe"])
async def test_what_would_cost_more_than_a_test_should_is_not_asked(model: str) -> None:
    result, asked = await verdict(channel(models=(model,)))
    assert (result.passed, asked) == (False, [])
    assert "--test-model" in result.reason


def test_the_test_model_goes_before_the_first_that_can_be_asked() -> None:
    assert (call := smallest_call(channel(models=("dall-e-3", "a", "b")))) is not None
    assert call.model == "a"
    assert (call := smallest_call(channel(models=("a", "b"), test_model="b"))) is not None
    assert call.model == "b"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (refused(400, "bad"), 400, "The upstream answered with status 400. It says: bad"),
        (Answer(500, b"<html>"), 500, "The upstream answered with status 500."),
        (refused(401, "Incorrect API key provided: sk-upstream-one."), 401, "Incorrect API key provided: ********."),
        (Answer(200, b'{"error": {"message": "no"}}'), 200, "error inside"),
        (Answer(200, b"<html>", [(b"content-type", b"text/html")]), 200, "not JSON"),
        (UpstreamTimeout("No answer within 5 s."), None, "No answer within 5 s."),
    ],
    ids=["a refusal", "no JSON", "a refused key", "an error in a 200", "a web page", "a timeout"],
)
async def test_a_failure_says_why_and_never_shows_the_key(
    answer: Answer | Exception, status: int | None, reason: str
) -> None:
    result, _ = await verdict(channel(), answer)
    assert (result.passed, result.http_status, result.response_ms) == (False, status, None)
    assert reason in result.reason
    assert "sk-upstream-one" not in result.reason


async def test_the_next_key_is_tried_when_one_is_refused_and_not_when_the_channel_fails() -> None:
    several = channel(keys=(Secret("a"), Secret("b"), Secret("c")), disabled_keys=frozenset({0}))
    result, asked = await verdict(several, refused(401), Answer())
    assert (result.passed, result.key_index) == (True, 2)
    assert [dict(outgoing.headers)[b"authorization"] for outgoing in asked] == [b"Bearer b", b"Bearer c"]
    result, asked = await verdict(several, refused(500), Answer())
    assert (result.passed, len(asked)) == (False, 1)


async def test_a_channel_that_cannot_be_asked_fails_with_the_reason() -> None:
    result, asked = await verdict(channel(model_mapping={"gpt-4o-mini": "a", "a": "gpt-4o-mini"}))
    assert (result.passed, asked) == (False, [])
    assert "circle" in result.reason


Changes = Callable[[DataDir], Any]


def saved(in_store: Callable[..., Any], before: Channel, *answers: Answer | Exception, meanwhile: Any = None) -> Any:
    """Store a channel, test it, save the result: what was said, and the channel and its state after it."""

    async def work(opened: DataDir) -> Any:
        created = await channels.create(opened.store, opened.vault, before, now_ms=1)
        result, _ = await verdict(created, *answers)
        if meanwhile is not None:
            await channels.set_status(opened.store, created.id, meanwhile, now_ms=2)
        result = await save_test(opened.store, opened.vault, result, now_ms=3)
        after = await channels.get(opened.store, opened.vault, created.id)
        return result, after, (await channels.states(opened.store))[created.id]

    return in_store(work)


AUTO = ChannelStatus.AUTO_DISABLED


def test_a_pass_brings_back_the_channel_with_the_key_that_passed(in_store: Callable[..., Any]) -> None:
    ill = channel(status=AUTO, keys=(Secret("a"), Secret("b")), disabled_keys=frozenset({0, 1}))
    result, after, state = saved(in_store, ill, refused(401), Answer())
    assert result.enabled_again
    assert (after.status, after.disabled_keys) == (ChannelStatus.ENABLED, {0})
    assert (state.tested_at, state.response_ms) == (3, result.response_ms)


def test_a_failure_is_written_down_and_brings_nothing_back(in_store: Callable[..., Any]) -> None:
    result, after, state = saved(in_store, channel(status=AUTO), refused(500))
    assert not result.enabled_again
    assert (after.status, state.tested_at, state.response_ms) == (AUTO, 3, None)


def test_a_channel_that_an_operator_disabled_stays_disabled(in_store: Callable[..., Any]) -> None:
    for before, meanwhile in ((ChannelStatus.DISABLED, None), (AUTO, ChannelStatus.DISABLED)):
        result, after, _ = saved(in_store, channel(status=before), Answer(), meanwhile=meanwhile)
        assert result.passed
        assert not result.enabled_again
        assert after.status is ChannelStatus.DISABLED
