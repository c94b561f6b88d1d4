"""Walking the plan: who is tried, how often, after which pause, and what the pool is told."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from tollway.adapters.errors import NoHealthyChannel, UpstreamError, UpstreamTimeout
from tollway.config.channel import Channel
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.middleware.failover import FailoverMiddleware
from tollway.middleware.memory import MemoryChannelPool
from tollway.middleware.state import Candidate, Ending, Outcome, Plan, Principal, state_of

from .inner import ALICE, Client, Message, broken, channel, scope_of, status_failure

pytestmark = pytest.mark.anyio

MODEL = "gpt-4o"
ONE_ROUND = Options(retry_same=0)
KEY = status_failure(401, fault="key")
DOWN = broken()
Step = BaseException | Ending | None


class Pool(MemoryChannelPool):
    """Notes what it is told."""

    def __init__(self, *channels: Channel, **given: Any) -> None:
        super().__init__(channels, clock=lambda: self.now, **given)
        self.now = 1000.0
        self.told: list[tuple[str, int, int]] = []

    def succeeded(self, candidate: Candidate, model: str, *, affinity: int | None) -> None:
        self.told.append(("succeeded", candidate.channel.id, candidate.key_index))
        super().succeeded(candidate, model, affinity=affinity)

    def failed(self, candidate: Candidate, model: str, failure: UpstreamError) -> None:
        self.told.append(("failed", candidate.channel.id, candidate.key_index))
        super().failed(candidate, model, failure)

    def left(self, candidate: Candidate, model: str) -> None:
        self.told.append(("left", candidate.channel.id, candidate.key_index))
        super().left(candidate, model)


class Walk:
    """One request over channels in this order, with an app inside that takes these steps, the last one for ever."""

    def __init__(
        self,
        channels: list[Channel],
        *steps: Step,
        options: Options = ONE_ROUND,
        pool: Pool | None = None,
        principal: Principal = ALICE,
        byte_first: bool = False,
    ) -> None:
        self.steps = list(steps)
        self.byte_first = byte_first
        self.tried: list[tuple[int, int, int]] = []
        self.pauses: list[float] = []
        self.pool = pool or Pool(*channels)
        self.client = Client()
        self.scope = scope_of()
        state_of(self.scope).principal = principal
        candidates = tuple(Candidate(each, key) for each in channels for key in range(len(each.keys)))
        state_of(self.scope).plan = Plan(candidates, MODEL)
        self.layer = FailoverMiddleware(
            self.inside, pool=self.pool, options=Live(options), sleep=self.sleep, random=Random(7)
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def inside(self, scope: Message, receive: Any, send: Any) -> None:
        attempt = state_of(scope).attempt
        self.tried.append((attempt.number, attempt.channel.id, attempt.candidate.key_index))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if self.byte_first or not isinstance(step, BaseException):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-inside", b"1")]})
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            state_of(scope).outcome = Outcome(step, None)
        await send({"type": "http.response.body", "body": b"done"})

    async def run(self) -> "Walk":
        await self.layer(self.scope, self.client.receive, self.client.send)
        return self

    async def fails(self) -> BaseException:
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            await self.run()
        return caught.value

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(id, key) for _, id, key in self.tried]


async def test_failures_are_kept_for_the_operator() -> None:
    walk = await Walk([channel(1), channel(2), channel(3)], KEY, DOWN, None).run()
    kept = [(each.channel_id, each.key_index, each.code) for each in state_of(walk.scope).failures]
    assert kept == [(1, 0, KEY.code), (2, 0, DOWN.code)]


async def test_the_first_that_answers_ends_the_walk() -> None:
    walk = await Walk([channel(1), channel(2), channel(3)], DOWN, None).run()
    assert walk.tried == [(1, 1, 0), (2, 2, 0)]
    assert walk.pool.told == [("failed", 1, 0), ("succeeded", 2, 0)]
    assert walk.client.body == b"done"
    assert walk.pauses == []


@pytest.mark.parametrize("retry_next", [0, 1, 3, 50])
async def test_retry_next_counts_further_channels(retry_next: int) -> None:
    walk = Walk([channel(id) for id in range(1, 8)], DOWN, options=Options(retry_same=0, retry_next=retry_next))
    assert await walk.fails() is DOWN
    assert len(walk.tried) == min(retry_next + 1, 7)
    assert [number for number, _, _ in walk.tried] == list(range(1, len(walk.tried) + 1))


@pytest.mark.parametrize("retry_same", [0, 1, 2])
async def test_retry_same_counts_further_rounds(retry_same: int) -> None:
    walk = Walk([channel(1), channel(2)], DOWN, options=Options(retry_same=retry_same))
    assert await walk.fails() is DOWN
    assert [id for id, _ in walk.places] == [1, 2] * (retry_same + 1)


async def test_each_further_round_comes_after_a_pause_twice_as_long_with_jitter() -> None:
    walk = Walk([channel(1)], DOWN, options=Options(retry_same=3, retry_backoff_s=0.4))
    await walk.fails()
    assert len(walk.pauses) == 3
    for pause, longest in zip(walk.pauses, (0.4, 0.8, 1.6), strict=True):
        assert longest / 2 <= pause <= longest
    assert len({pause / longest for pause, longest in zip(walk.pauses, (0.4, 0.8, 1.6), strict=True)}) == 3


async def test_after_a_timeout_there_is_no_further_round() -> None:
    walk = Walk([channel(1), channel(2)], UpstreamTimeout("Too slow."), options=Options(retry_same=2))
    assert isinstance(await walk.fails(), UpstreamTimeout)
    assert [id for id, _ in walk.places] == [1, 2]
    assert walk.pauses == []


@pytest.mark.parametrize(
    ("failure", "places"),
    [
        pytest.param(KEY, [(1, 0), (1, 1), (2, 0), (2, 1)], id="a key's fault goes on to the next key"),
        pytest.param(DOWN, [(1, 0), (2, 0)], id="a channel's fault skips its other keys"),
    ],
)
async def test_what_is_tried_next(failure: UpstreamError, places: list[tuple[int, int]]) -> None:
    walk = Walk([channel(1, keys=2), channel(2, keys=2)], failure)
    assert await walk.fails() is failure
    assert walk.places == places


async def test_a_refused_key_is_not_tried_in_a_later_round() -> None:
    walk = Walk([channel(1, keys=2), channel(2)], KEY, DOWN, options=Options(retry_same=1))
    await walk.fails()
    assert walk.places == [(1, 0), (1, 1), (2, 0), (1, 1), (2, 0)]


async def test_once_a_byte_has_left_there_is_no_second_attempt() -> None:
    walk = Walk([channel(1), channel(2)], DOWN, byte_first=True)
    assert await walk.fails() is DOWN
    assert walk.places == [(1, 0)]
    assert walk.pool.told == [("failed", 1, 0)]


async def test_the_callers_own_fault_comes_back_at_once() -> None:
    fault = status_failure(400, fault="caller")
    walk = Walk([channel(1), channel(2)], fault, options=Options(retry_same=2))
    assert await walk.fails() is fault
    assert walk.places == [(1, 0)]


async def test_without_budget_there_is_no_retry() -> None:
    channels = [channel(1), channel(2)]
    pool = Pool(*channels)
    while pool.may_retry():
        pass
    walk = Walk(channels, DOWN, options=Options(retry_same=2), pool=pool)
    assert await walk.fails() is DOWN
    assert walk.places == [(1, 0)]
    assert walk.pauses == []


@pytest.mark.parametrize("failure", [RuntimeError("a defect"), asyncio.CancelledError()], ids=["a defect", "cancelled"])
async def test_what_is_not_the_upstreams_is_not_held_against_it(failure: BaseException) -> None:
    walk = Walk([channel(1), channel(2)], failure)
    assert await walk.fails() is failure
    assert walk.pool.told == [("left", 1, 0)]


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("completed", "succeeded"),
        (None, "succeeded"),
        ("cancelled", "left"),
        ("truncated", "failed"),
        ("failed", "failed"),
    ],
)
async def test_how_an_answer_ended_is_told(ending: Ending | None, told: str) -> None:
    walk = await Walk([channel(1), channel(2)], ending).run()
    assert walk.pool.told == [(told, 1, 0)]
    assert walk.places == [(1, 0)]


async def test_who_leaves_before_the_upstream_was_asked_proves_nothing() -> None:
    async def inside(scope: Message, receive: Any, send: Any) -> None:
        """Returns without an answer and without an outcome, as the relay does then."""

    one = channel(1)
    pool = Pool(one)
    scope, client = scope_of(), Client()
    state_of(scope).plan = Plan((Candidate(one, 0),), MODEL)
    await FailoverMiddleware(inside, pool=pool)(scope, client.receive, client.send)
    assert pool.told == [("left", 1, 0)]


async def test_half_open_lets_exactly_one_of_many_requests_through() -> None:
    one = channel(1)
    pool = Pool(one)
    for _ in range(5):
        pool.failed(Candidate(one, 0), MODEL, DOWN)
    pool.now += 5.0
    go, asked = asyncio.Event(), 0

    async def inside(scope: Message, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        await go.wait()

    async def request() -> None:
        scope, client = scope_of(), Client()
        state_of(scope).plan = Plan((Candidate(one, 0),), MODEL)
        await FailoverMiddleware(inside, pool=pool)(scope, client.receive, client.send)

    requests = [asyncio.create_task(request()) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert asked == 1
    go.set()
    results = await asyncio.gather(*requests, return_exceptions=True)
    refused = [each for each in results if each is not None]
    assert len(refused) == 19
    assert all(isinstance(each, NoHealthyChannel) and each.retry_after for each in refused)
    await request()
    assert asked == 2


async def test_a_busy_probe_sends_requests_on_to_other_channels() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two)
    for _ in range(5):
        pool.failed(Candidate(one, 0), MODEL, DOWN)
    pool.now += 5.0
    assert pool.enter(Candidate(one, 0), MODEL)
    walk = await Walk([one, two], None, pool=pool).run()
    assert walk.tried == [(1, 2, 0)]


@pytest.mark.parametrize(("is_admin", "channel_shown"), [(True, b"2"), (False, None)], ids=["an admin", "anybody else"])
async def test_headers_tell_the_attempts_and_admins_the_channel(is_admin: bool, channel_shown: bytes | None) -> None:
    walk = await Walk([channel(1), channel(2)], DOWN, None, principal=replace(ALICE, is_admin=is_admin)).run()
    assert walk.client.headers[b"x-tollway-attempts"] == b"2"
    assert walk.client.headers.get(b"x-tollway-channel") == channel_shown
    assert walk.client.headers[b"x-inside"] == b"1"


async def test_lifespan_passes() -> None:
    called: list[str] = []

    async def inside(scope: Message, receive: Any, send: Any) -> None:
        called.append(scope["type"])

    client = Client()
    await FailoverMiddleware(inside, pool=MemoryChannelPool())({"type": "lifespan"}, client.receive, client.send)
    assert called == ["lifespan"]
