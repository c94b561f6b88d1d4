"""Redis that is killed, flushed, paused, full or never there: what it costs, who counts meanwhile, and what is said."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tollway.adapters.errors import Unavailable
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.gateway.redis import RedisLimiter, RedisMetrics
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.ports import Check, Places, Rate, Window
from tollway.middleware.rate_limit import RateLimitMiddleware

from tests.middleware.inner import ALICE, Inside
from tests.middleware.outer import call, state_with, whole_scope

from .conftest import OwnServer, limiter_at

pytestmark = pytest.mark.anyio

DAY = 86400.0
CHECK = Window("key", 3, DAY)
RATE = Rate("rate", 3, DAY)
PATIENCE = 0.25


@pytest.fixture(autouse=True)
def _tries_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollway.gateway.redis.line.TRY_EVERY", 0.2)


async def passed(limiter: RedisLimiter, times: int, check: Check = CHECK) -> int:
    return sum([(await limiter.admit([check])).passed for _ in range(times)])


async def until_up(limiter: RedisLimiter, up: bool = True) -> None:
    async with asyncio.timeout(10):
        while limiter.is_up is not up:  # noqa: ASYNC110 - what is waited for happens by itself
            await asyncio.sleep(0.01)


async def test_a_redis_that_is_killed_is_replaced_by_this_process_and_found_again(
    server: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with limiter_at(server.url) as limiter:
        assert await passed(limiter, 2) == 2
        server.kill()
        assert await passed(limiter, 9) == 3
        assert (limiter.is_up, limiter.local_admissions) == (False, 9)
        server.start()
        await until_up(limiter)
        assert await passed(limiter, 9) == 3
        assert limiter.local_admissions == 9
    told = [record.getMessage() for record in caplog.records if record.name == "tollway.redis"]
    assert [text.partition(" (")[0] for text in told] == ["Redis is away", "Redis is back"]
    assert "limits_without_redis" in told[0]


async def test_a_redis_that_was_restarted_between_two_requests_costs_no_limit_its_exactness_for_long(
    server: OwnServer,
) -> None:
    async with limiter_at(server.url) as limiter:
        await asyncio.sleep(0.3)
        server.kill()
        server.start()
        await passed(limiter, 1)
        await until_up(limiter)
        assert await passed(limiter, 9) == 3


async def test_a_redis_that_is_not_there_at_the_start_is_found_later(server: OwnServer) -> None:
    server.kill()
    async with limiter_at(server.url) as limiter:
        assert await passed(limiter, 9) == 3
        server.start()
        await until_up(limiter)
        assert await passed(limiter, 9) == 3


async def test_a_redis_that_is_flushed_counts_from_nothing_and_holds_open_places_again(server: OwnServer) -> None:
    place = Places("places", 1)
    async with limiter_at(server.url, lease=0.6) as limiter:
        await limiter.admit([place])
        assert await passed(limiter, 9) == 3
        with server.client() as client:
            client.flushall()
        assert await passed(limiter, 9) == 3
        await asyncio.sleep(0.4)
        assert not (await limiter.admit([place])).passed
        assert limiter.local_admissions == 0


async def test_scripts_that_redis_has_forgotten_are_loaded_again(server: OwnServer) -> None:
    async with limiter_at(server.url) as limiter:
        with server.client() as client:
            client.script_flush()
        assert (await limiter.admit([CHECK])).passed
        await until_up(limiter)
        assert await passed(limiter, 9) == 3


async def test_a_redis_that_takes_no_more_writes_is_one_that_is_away(server: OwnServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")
        async with limiter_at(server.url) as limiter:
            assert await passed(limiter, 9, RATE) == 3
            assert limiter.local_admissions == 9
            client.config_set("maxmemory", "0")
            await until_up(limiter)
            assert await passed(limiter, 9, RATE) == 3
            assert limiter.local_admissions == 9


async def test_a_redis_that_hangs_costs_one_wait_and_then_none(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.gateway.redis.line.TRY_EVERY", 2.0)
    async with limiter_at(server.url, patience=PATIENCE) as limiter:
        server.pause()
        begun = time.monotonic()
        first = await asyncio.gather(*(limiter.admit([CHECK]) for _ in range(50)))
        waited = time.monotonic() - begun
        begun = time.monotonic()
        await passed(limiter, 50)
        after = time.monotonic() - begun
        server.go_on()
    assert sum(each.passed for each in first) == 3
    assert waited >= PATIENCE
    assert waited < PATIENCE + 1
    assert after < PATIENCE / 2


async def test_what_a_hanging_redis_was_asked_for_is_given_back_when_it_goes_on(server: OwnServer) -> None:
    place, window = Places("places", 1), Window("window", 1, DAY)
    async with limiter_at(server.url, patience=PATIENCE) as limiter:
        server.pause()
        local = await limiter.admit([place, window])
        assert local.passed
        server.go_on()
        await until_up(limiter)
        assert (await limiter.admit([place, window])).passed
        local.leave(give_back=window)
        assert not (await limiter.admit([place])).passed, "what was taken here is given back here"


async def test_a_place_given_back_while_redis_is_away_is_free_when_it_is_back(server: OwnServer) -> None:
    place = Places("places", 1)
    async with limiter_at(server.url, patience=PATIENCE) as limiter:
        admission = await limiter.admit([place])
        server.pause()
        await limiter.admit([CHECK])
        admission.leave()
        assert not limiter.is_up
        server.go_on()
        await until_up(limiter)
        assert (await limiter.admit([place])).passed


async def test_tokens_used_while_redis_is_away_are_counted_here(server: OwnServer) -> None:
    tokens = Rate("tokens", 100, DAY, 0)
    async with limiter_at(server.url) as limiter:
        server.kill()
        await limiter.admit([tokens])
        limiter.charge([tokens], 150)
        assert (await limiter.admit([tokens])).answers[0].wait > 0.0


@pytest.mark.parametrize(("choice", "status"), [("local", 200), ("refuse", 503)])
async def test_what_clients_are_told_without_redis(server: OwnServer, choice: str, status: int) -> None:
    options = Live(Options(requests_per_minute_user=1000, limits_without_redis=choice))
    async with limiter_at(server.url, options=options) as limiter:
        server.kill()
        app = ErrorEnvelopeMiddleware(RateLimitMiddleware(Inside(), limiter=limiter, options=options))
        for _ in range(3):
            client = await call(app, whole_scope(state=state_with(principal=ALICE)))
            assert client.status == status
            assert (b"retry-after" in client.headers) == (status == 503)


async def test_who_has_no_limit_is_served_without_redis(server: OwnServer) -> None:
    options = Live(Options(limits_without_redis="refuse"))
    server.kill()
    async with limiter_at(server.url, options=options) as limiter:
        app = RateLimitMiddleware(Inside(), limiter=limiter, options=options)
        assert (await call(app, whole_scope(state=state_with(principal=ALICE)))).status == 200
        with pytest.raises(Unavailable):
            await limiter.admit([CHECK])


async def test_metrics_tell(server: OwnServer) -> None:
    registry = CollectorRegistry()
    async with limiter_at(server.url) as limiter:
        registry.register(RedisMetrics(limiter))
        await limiter.admit([CHECK])
        assert b"tollway_redis_up 1.0\n" in generate_latest(registry)
        server.kill()
        await limiter.admit([CHECK])
        shown = generate_latest(registry)
    assert b"tollway_redis_up 0.0\n" in shown
    assert b"tollway_limits_local_total 1.0\n" in shown


async def test_an_idle_process_notices_that_redis_is_gone(server: OwnServer) -> None:
    async with limiter_at(server.url, lease=0.6) as limiter:
        server.kill()
        await until_up(limiter, False)


async def test_closing_does_not_wait_for_a_redis_that_hangs(server: OwnServer) -> None:
    async with limiter_at(server.url, patience=PATIENCE) as limiter:
        admission = await limiter.admit([Places("places", 1)])
        server.pause()
        begun = time.monotonic()
        admission.leave()
    assert time.monotonic() - begun < PATIENCE + 1
    server.go_on()
