"""The channels in memory: what failures and successes do to the plans that follow."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from tollway.adapters.errors import NoHealthyChannel, UpstreamError, UpstreamTimeout
from tollway.config.channel import Channel
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.middleware.memory import MemoryChannelPool
from tollway.middleware.state import Candidate, Plan

from .inner import ALICE, CHAT, broken, channel, ids, places, status_failure

MODEL = "gpt-4o"
QUIET = Options(affinity_seconds=0.0)


class Pool(MemoryChannelPool):
    """A pool at a time that the test sets."""

    now = 1000.0

    def __init__(self, *channels: Channel, options: Options | None = None, **given: Any) -> None:
        self.dead: list[tuple[int, int]] = []
        super().__init__(
            channels,
            options=Live(options or Options()),
            on_dead_key=lambda candidate, _: self.dead.append((candidate.channel.id, candidate.key_index)),
            clock=lambda: self.now,
            random=Random(7),
            **given,
        )

    def ask(self, affinity: Callable[[], int | None] | None = None, model: str = MODEL) -> Plan:
        return self.plan(ALICE, (model,), CHAT, affinity=affinity)

    def fail(self, candidate: Candidate, failure: UpstreamError, times: int = 1) -> None:
        for _ in range(times):
            self.failed(candidate, MODEL, failure)


def test_a_429_with_retry_after_opens_at_once_for_that_long() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two)
    pool.fail(Candidate(one, 0), status_failure(429, fault="key", retry_after=30.0))
    assert ids(pool.ask().candidates) == [2]
    pool.now += 29.9
    assert ids(pool.ask().candidates) == [2]
    pool.now += 0.1
    assert set(ids(pool.ask().candidates)) == {1, 2}


def test_a_failure_without_retry_after_opens_at_the_fifth() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two)
    pool.fail(Candidate(one, 0), broken(), times=4)
    assert len(pool.ask().candidates) == 2
    pool.fail(Candidate(one, 0), broken())
    assert ids(pool.ask().candidates) == [2]


def test_it_opens_for_one_model_and_one_key_only() -> None:
    one = channel(1, MODEL, "o3", keys=2)
    pool = Pool(one)
    pool.fail(Candidate(one, 0), broken(), times=5)
    assert places(pool.ask().candidates) == [(1, 1)]
    assert len(pool.ask(model="o3").candidates) == 2


def test_the_callers_own_fault_never_counts() -> None:
    one = channel(1)
    pool = Pool(one)
    pool.fail(Candidate(one, 0), status_failure(400, fault="caller", retry_after=60.0), times=100)
    assert ids(pool.ask().candidates) == [1]


def test_the_callers_own_fault_frees_the_place_of_a_probe() -> None:
    one = channel(1)
    pool, place = Pool(one), Candidate(one, 0)
    pool.fail(place, broken(), times=5)
    pool.now += 5.0
    assert [pool.enter(place, MODEL), pool.enter(place, MODEL)] == [True, False]
    pool.fail(place, status_failure(400, fault="caller"))
    assert pool.enter(place, MODEL)


def test_one_success_forgets_failures() -> None:
    one = channel(1)
    pool, place = Pool(one), Candidate(one, 0)
    for _ in range(5):
        pool.fail(place, broken(), times=4)
        pool.succeeded(place, MODEL, affinity=None)
    assert ids(pool.ask().candidates) == [1]


def test_when_all_are_open_the_shortest_wait_is_told() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two)
    pool.fail(Candidate(one, 0), status_failure(429, fault="key", retry_after=30.0))
    pool.fail(Candidate(two, 0), status_failure(429, fault="key", retry_after=12.0))
    with pytest.raises(NoHealthyChannel) as caught:
        pool.ask()
    assert caught.value.retry_after == 12.0


CREDIT = b'{"error": {"message": "Your credit balance is TOO LOW to go on."}}'


@pytest.mark.parametrize(
    ("failure", "dead"),
    [
        pytest.param(status_failure(401, fault="key"), True, id="401"),
        pytest.param(status_failure(403, fault="key", body=CREDIT), True, id="403 with a keyword"),
        pytest.param(status_failure(500, body=CREDIT), True, id="500 with a keyword"),
        pytest.param(status_failure(403, fault="key"), False, id="403 without one"),
        pytest.param(status_failure(429, fault="key"), False, id="429"),
        pytest.param(status_failure(500), False, id="500"),
        pytest.param(status_failure(400, fault="caller", body=CREDIT), False, id="the caller's fault with a keyword"),
        pytest.param(UpstreamTimeout("Too slow."), False, id="a timeout"),
    ],
)
def test_dead_keys_are_reported(failure: UpstreamError, dead: bool) -> None:
    one = channel(1, keys=2)
    pool = Pool(one)
    pool.fail(Candidate(one, 1), failure)
    assert pool.dead == ([(1, 1)] if dead else [])


@pytest.mark.parametrize(
    ("options", "auto_ban"),
    [
        pytest.param(Options(), False, id="for the channel"),
        pytest.param(Options(automatic_disable=False), True, id="for all channels"),
    ],
)
def test_dead_keys_are_not_reported_where_that_is_off(options: Options, auto_ban: bool) -> None:
    one = channel(1, auto_ban=auto_ban)
    pool = Pool(one, options=options)
    pool.fail(Candidate(one, 0), status_failure(401, fault="key"))
    assert pool.dead == []


def test_replacing_forgets_what_was_known_of_changed_channels_only() -> None:
    one, two, three = channel(1), channel(2), channel(3)
    pool = Pool(one, two, three)
    for each in (one, two):
        pool.fail(Candidate(each, 0), broken(), times=5)
    pool.replace([channel(1, weight=9), channel(2), three])
    assert set(ids(pool.ask().candidates)) == {1, 3}


def test_a_channel_that_was_removed_and_comes_back_starts_afresh() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two)
    pool.fail(Candidate(one, 0), broken(), times=5)
    pool.replace([two])
    assert list(pool.health.states(pool.now)) == []
    pool.replace([one, two])
    assert set(ids(pool.ask().candidates)) == {1, 2}


def test_a_channel_without_rivals_is_replaced_with_the_next_request() -> None:
    pool = Pool(channel(1))
    assert ids(pool.ask().candidates) == ids(pool.ask().candidates) == [1]
    pool.replace([channel(2)])
    assert ids(pool.ask().candidates) == [2]


def test_a_channel_without_rivals_is_out_while_its_breaker_is_open() -> None:
    one = channel(1)
    pool = Pool(one)
    pool.ask()
    pool.fail(Candidate(one, 0), broken(), times=5)
    with pytest.raises(NoHealthyChannel):
        pool.ask()
    pool.now += 5.0
    assert ids(pool.ask().candidates) == [1]


def test_what_is_served_alone_in_one_group_is_not_open_to_another() -> None:
    pool = Pool(channel(1), channel(2, groups=("vip",)))
    vip = pool.plan(type(ALICE)(token_id=2, user_id=2, group="vip"), (MODEL,), CHAT, affinity=None)
    assert (ids(pool.ask().candidates), ids(vip.candidates)) == ([1], [2])


def test_a_conversation_stays_where_it_was_served() -> None:
    one, two = channel(1, keys=3), channel(2, keys=3)
    pool = Pool(one, two)
    pool.succeeded(Candidate(two, 1), MODEL, affinity=77)
    for _ in range(30):
        assert places(pool.ask(affinity=lambda: 77).candidates)[0] == (2, 1)
    assert len({places(pool.ask(affinity=lambda: 78).candidates)[0] for _ in range(60)}) > 1
    pool.now += 3600.0
    assert len({places(pool.ask(affinity=lambda: 77).candidates)[0] for _ in range(60)}) > 1


def test_conversations_are_not_followed_where_that_is_off() -> None:
    one, two = channel(1), channel(2)
    pool = Pool(one, two, options=QUIET)
    pool.succeeded(Candidate(two, 0), MODEL, affinity=77)
    assert {ids(pool.ask(affinity=lambda: 77).candidates)[0] for _ in range(60)} == {1, 2}


def test_retries_are_a_share_of_the_plans_made() -> None:
    pool = Pool(channel(1), options=Options(retry_share=0.1))
    retries = 0
    for _ in range(1000):
        pool.ask()
        retries += pool.may_retry()
    assert 99 <= retries <= 110


def test_polling_keys_take_turns_from_request_to_request() -> None:
    pool = Pool(channel(1, keys=3, key_mode="polling"))
    assert {places(pool.ask().candidates)[0] for _ in range(3)} == {(1, 0), (1, 1), (1, 2)}
