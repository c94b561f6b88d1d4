"""The limiter in Redis: the contract of all limiters, the same answers as in memory, and what it leaves behind."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollway.config.secret import Secret
from tollway.config.settings import SettingError
from tollway.gateway.redis import RedisLimiter
from tollway.middleware.memory import MemoryLimiter
from tollway.middleware.ports import Admission, Places, Rate, Window

from tests.middleware.limiter_contract import DAY, SOON, LimiterContract
from tests.middleware.outer import Clock, until

from .conftest import LimitedInRedis, OwnServer, limited_at, limiter_at

CHECKS = (Rate("rate", 5, DAY, 2), Rate("debt", 4, DAY, 0), Window("total", 6, DAY), Window("successes", 4, DAY))


class TestRedisLimiter(LimiterContract):
    @pytest.fixture
    async def limited(self, redis_url: str) -> AsyncGenerator[LimitedInRedis]:
        async with limited_at(redis_url) as limited:
            yield limited
            assert limited.limiter.local_admissions == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pause"), st.integers(1, 12)),
            st.tuples(st.just("ask"), st.sets(st.sampled_from(CHECKS), min_size=1)),
            st.tuples(st.just("charge"), st.integers(1, 6)),
            st.tuples(st.just("fail"), st.integers(0, 9)),
        ),
        max_size=30,
    )
)
def test_the_answers_are_those_of_memory(server: OwnServer, steps: list[tuple[str, object]]) -> None:
    async def compare() -> None:
        with server.client() as client:
            client.flushall()
        clock = Clock()
        memory, open_ones = MemoryLimiter(clock), list[tuple[Admission, Admission]]()
        async with limited_at(server.url) as there:
            for kind, value in steps:
                if kind == "pause" and isinstance(value, int):
                    clock.now += value * DAY / 8
                    await there.advance(value * DAY / 8)
                elif kind == "charge" and isinstance(value, int):
                    memory.charge([CHECKS[1]], value)
                    there.limiter.charge([CHECKS[1]], value)
                elif kind == "fail" and isinstance(value, int) and open_ones:
                    for each in open_ones.pop(value % len(open_ones)):
                        each.leave(give_back=CHECKS[3])
                elif isinstance(value, set):
                    checks = [check for check in CHECKS if check in value]
                    ours, theirs = await memory.admit(checks), await there.limiter.admit(checks)
                    assert ours.passed == theirs.passed
                    for one, other in zip(ours.answers, theirs.answers, strict=True):
                        assert (one.limit, one.remaining) == (other.limit, other.remaining)
                        assert (one.wait, one.reset) == (
                            pytest.approx(other.wait, abs=SOON),
                            pytest.approx(other.reset, abs=SOON),
                        )
                    if ours.passed and CHECKS[3] in checks:
                        open_ones.append((ours, theirs))

    asyncio.run(compare())


@pytest.mark.anyio
async def test_everything_in_redis_expires_soon_after_it_has_lost_its_meaning(server: OwnServer) -> None:
    checks = (Rate("rate", 4, 60.0), Window("window", 4, 120.0), Places("places", 4))
    async with limiter_at(server.url) as limiter:
        await limiter.admit(checks)
        limiter.charge([Rate("charged", 10, 60.0)], 50)
        await limiter.admit(())
        with server.client() as client:
            left = {key: client.pttl(key) / 1000 for key in client.scan_iter()}
    wanted = {"rate": 15, "window": 120, "places": 30, "charged": 300}
    assert left == {f"tollway:{name}": pytest.approx(seconds, abs=2) for name, seconds in wanted.items()}


@pytest.mark.anyio
async def test_a_request_is_one_round_trip_however_many_limits_it_has(server: OwnServer) -> None:
    checks = [Rate(f"rate:{n}", 9, 60.0) for n in range(6)]
    async with limiter_at(server.url) as limiter:
        with server.client() as client:
            before = client.info("stats")["total_reads_processed"]
            for _ in range(10):
                await limiter.admit((*checks, Window("window", 99, 60.0), Places("places", 99)))
            asked = client.info("stats")["total_reads_processed"] - before
    assert asked <= 10 + 2


@pytest.mark.anyio
async def test_places_are_held_as_long_as_the_request_is_open_and_no_longer(server: OwnServer) -> None:
    check = Places("places", 1)
    async with limiter_at(server.url, lease=0.6) as limiter:
        admission = await limiter.admit([check])
        for _ in range(6):
            await asyncio.sleep(0.2)
            assert not (await limiter.admit([check])).passed
        admission.leave()
        assert (await limiter.admit([check])).passed


@pytest.mark.anyio
async def test_a_client_that_leaves_while_its_limits_are_asked_holds_nothing(server: OwnServer) -> None:
    checks = Places("places", 1), Window("window", 1, DAY)
    async with limiter_at(server.url) as limiter:
        server.pause()
        task = asyncio.create_task(limiter.admit(checks))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.go_on()
        assert (await limiter.admit(checks)).passed


@pytest.mark.anyio
async def test_what_is_given_back_last_arrives_before_the_limiter_closes(server: OwnServer) -> None:
    check = Places("places", 300)
    async with limiter_at(server.url) as limiter:
        for admission in await asyncio.gather(*(limiter.admit([check]) for _ in range(300))):
            assert admission.passed
            admission.leave()
    with server.client() as client:
        assert client.dbsize() == 0


@pytest.mark.anyio
async def test_installations_with_prefixes_of_their_own_do_not_share(server: OwnServer) -> None:
    async with limiter_at(server.url, prefix="one:") as one, limiter_at(server.url, prefix="two:") as two:
        for limiter in (one, two):
            assert (await limiter.admit([Rate("key", 1, DAY)])).passed


@pytest.mark.anyio
@pytest.mark.parametrize("step", [-3600, 3600], ids=["back", "forward"])
async def test_a_clock_that_is_set_by_an_hour_locks_nobody_out(server: OwnServer, step: int) -> None:
    """A clock that is set back is the same as state from the future."""
    checks = Rate("rate", 1, 60.0), Window("window", 1, 60.0), Places("places", 1)
    async with limited_at(server.url) as limited:
        await limited.limiter.admit(checks)
        await limited.advance(step)
        answers = (await limited.limiter.admit(checks)).answers
        assert max(answer.wait for answer in answers) <= 60.0
        assert [answer.wait for answer in answers[1:]] == [0.0, 0.0]


@pytest.mark.parametrize("url", ["redis://:secret-word@h:99999999/0", "redis://:secret-word@h:1/0?socket_timeout=x"])
def test_a_url_that_is_none_is_refused_and_not_shown(url: str) -> None:
    async def open_it() -> None:
        async with RedisLimiter.opened(Secret(url)):
            pass

    with pytest.raises(SettingError, match="REDIS_CONN_STRING") as caught:
        asyncio.run(open_it())
    assert "secret-word" not in str(caught.value)


@pytest.mark.anyio
async def test_many_at_once_are_all_answered(server: OwnServer) -> None:
    async with limiter_at(server.url) as limiter:
        found = await asyncio.gather(*(limiter.admit([Window("key", 700, DAY)]) for _ in range(1000)))
        assert sum(each.passed for each in found) == 700
        await until(lambda: limiter.is_up)
