"""An answer that has begun is all that a probe has to show: the breaker closes with its first byte, not its last."""

from dataclasses import dataclass
from typing import Any

import pytest
from tollway.adapters.errors import UpstreamError
from tollway.adapters.operations import BY_PATH
from tollway.config.channel import Channel
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.middleware.failover import FailoverMiddleware
from tollway.middleware.memory import MemoryChannelPool
from tollway.middleware.state import Candidate, Ending, Outcome, Plan, state_of

from .inner import ALICE, Client, Inside, Message, broken, channel, scope_of, status_failure

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o"
CHAT = BY_PATH["/v1/chat/completions"]
OPTIONS = Options(retry_same=0, breaker_failures=3, breaker_cooldown_s=5.0, breaker_cooldown_max_s=60.0)
SLOW_DOWN = status_failure(429, fault="key", retry_after=1.0)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Pool(MemoryChannelPool):
    """One channel, and requests that come to it by hand."""

    def __init__(self, *channels: Channel) -> None:
        self.clock = Clock()
        self.known = channels or (channel(1),)
        super().__init__(self.known, options=Live(OPTIONS), clock=self.clock)

    def newcomer(self, number: int = 0) -> Candidate:
        """A candidate of a request's own: breakers tell requests apart by it."""
        return Candidate(self.known[number], 0)

    def enters(self) -> bool:
        """Whether another request would be let in; it leaves at once, without news."""
        candidate = self.newcomer()
        entered = self.enter(candidate, MODEL)
        if entered:
            self.left(candidate, MODEL)
        return entered

    def fails(self, failure: UpstreamError, times: int = 1) -> None:
        for _ in range(times):
            candidate = self.newcomer()
            assert self.enter(candidate, MODEL)
            self.failed(candidate, MODEL, failure)

    def probing(self) -> Candidate:
        """A probe that has just entered, after a refusal and the wait that it asked for."""
        self.fails(SLOW_DOWN)
        assert not self.enters()
        self.clock.now += 1.0
        probe = self.newcomer()
        assert self.enter(probe, MODEL)
        return probe


def test_others_wait_for_a_probe_until_its_answer_begins() -> None:
    pool = Pool()
    probe = pool.probing()
    assert not pool.enters()
    pool.began(probe, MODEL)
    assert [pool.enters() for _ in range(3)] == [True, True, True]
    pool.succeeded(probe, MODEL, affinity=None)
    assert pool.enters()


def test_a_probe_that_breaks_off_behind_its_beginning_counts_as_one_failure() -> None:
    pool = Pool()
    probe = pool.probing()
    pool.began(probe, MODEL)
    pool.failed(probe, MODEL, broken())
    assert pool.enters(), "one failure does not open it"
    pool.fails(broken())
    assert pool.enters(), "nor do two"
    pool.fails(broken())
    assert not pool.enters(), "the third in a row does"


def test_a_probe_that_is_left_behind_its_beginning_is_no_news() -> None:
    pool = Pool()
    probe = pool.probing()
    pool.began(probe, MODEL)
    pool.left(probe, MODEL)
    assert pool.enters()


def test_only_the_probes_own_answer_closes_it() -> None:
    """A request that had entered before the breaker opened begins late: that says nothing about now."""
    pool = Pool()
    early = pool.newcomer()
    assert pool.enter(early, MODEL)
    pool.fails(SLOW_DOWN)
    pool.began(early, MODEL)
    assert not pool.enters()
    pool.clock.now += 1.0
    probe = pool.newcomer()
    assert pool.enter(probe, MODEL)
    pool.began(early, MODEL)
    assert not pool.enters()


def test_answers_that_begin_do_not_wipe_out_those_that_break_off() -> None:
    """A channel whose every stream breaks off in the middle is taken out of service, though each of them begins."""
    pool = Pool()
    for _ in range(OPTIONS.breaker_failures):
        candidate = pool.newcomer()
        assert pool.enter(candidate, MODEL)
        pool.began(candidate, MODEL)
        pool.failed(candidate, MODEL, broken())
    assert not pool.enters()


@pytest.mark.parametrize("wait", [0.0, -1.0])
def test_to_come_again_at_once_is_no_reason_to_wait(wait: float) -> None:
    pool = Pool()
    pool.fails(status_failure(429, fault="key", retry_after=wait), OPTIONS.breaker_failures - 1)
    assert pool.enters()
    pool.fails(status_failure(429, fault="key", retry_after=wait))
    assert not pool.enters(), "but it is a failure like any other"


class Slow(Inside):
    """An app that begins its answer, lets others be asked about, and ends it in this way."""

    def __init__(self, pool: Pool, ending: Ending | UpstreamError) -> None:
        super().__init__()
        self.pool = pool
        self.ending = ending
        self.entered: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.append(self.pool.enters())
        await send({**self.start})
        self.entered.append(self.pool.enters())
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        if isinstance(self.ending, UpstreamError):
            raise self.ending
        state_of(scope).outcome = Outcome(self.ending, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def request(pool: Pool) -> Message:
    """The scope of a request whose plan is a candidate of its own."""
    scope = scope_of()
    state_of(scope).principal = ALICE
    state_of(scope).plan = pool.plan(ALICE, (MODEL,), CHAT)
    return scope


async def ask(pool: Pool, scope: Message, ending: Ending | UpstreamError) -> Slow:
    inside, client = Slow(pool, ending), Client()
    app = FailoverMiddleware(inside, pool=pool, options=Live(OPTIONS))
    if isinstance(ending, UpstreamError):
        with pytest.raises(UpstreamError):
            await app(scope, client.receive, client.send)
    else:
        await app(scope, client.receive, client.send)
    return inside


ENDINGS: dict[str, Ending | UpstreamError] = {
    "and ends well": "completed",
    "and breaks off": "truncated",
    "and tells of an error inside": "failed",
    "and its client leaves": "cancelled",
    "and the connection is lost": broken(),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_others_are_served_while_the_probes_answer_flows(ending: Ending | UpstreamError) -> None:
    pool = Pool()
    pool.fails(SLOW_DOWN)
    pool.clock.now += 1.0
    inside = await ask(pool, request(pool), ending)
    assert inside.entered == [False, True]
    assert pool.enters()


async def test_streams_that_break_off_open_it_at_the_last_of_the_failures_in_a_row() -> None:
    pool = Pool()
    pool.fails(SLOW_DOWN)
    pool.clock.now += 1.0
    opened: list[bool] = []
    for _ in range(OPTIONS.breaker_failures):
        await ask(pool, request(pool), "truncated")
        opened.append(not pool.enters())
    assert opened == [False, False, True]


async def test_an_answer_begins_once_whatever_number_of_pieces_it_comes_in() -> None:
    told: list[tuple[int, str]] = []

    class Listening(Pool):
        def began(self, candidate: Candidate, model: str) -> None:
            told.append((candidate.channel.id, model))
            super().began(candidate, model)

    pool = Listening(channel(1), channel(2))
    steps = [broken(), None]

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        if (failure := steps.pop(0)) is not None:
            raise failure
        await Inside(b"a", b"b", b"c")(scope, receive, send)

    scope = scope_of()
    state_of(scope).principal = ALICE
    state_of(scope).plan = Plan((pool.newcomer(0), pool.newcomer(1)), MODEL)
    client = Client()
    await FailoverMiddleware(inside, pool=pool, options=Live(OPTIONS))(scope, client.receive, client.send)
    assert client.body == b"abc"
    assert told == [(2, MODEL)]
