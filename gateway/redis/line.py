"""
One connection to Redis that everything goes through in order, many commands at a time.

When a command fails, or no answer comes in time, Redis counts as away: all who wait are told at once, and nobody waits
again until a try in the background, every few seconds, has found it back. So a Redis that is dead or slow costs those
one timeout who were waiting just then, and the others nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from msgspec import Struct
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from .client import FAILURES, TIMEOUT

log = logging.getLogger("tollway.redis")

TRY_EVERY = 2.0
MOST_AT_ONCE = 128

Command = Sequence[str | int | float]


class Away(Exception):
    """Redis cannot be used now."""


class Sent(Struct, eq=False):
    """A command on its way. One that nobody waits for may have to arrive, or says what to do if it does not."""

    command: Command
    answer: "asyncio.Future[Any] | None" = None
    use_until: float = 0.0
    """On the loop's clock: until then it is sent again after a failure, so it must be harmless twice."""
    instead: Callable[[], None] | None = None


class RedisLine:
    """Sends commands. `scripts` are loaded whenever it connects, so that they can be called by their digests."""

    def __init__(self, pool: ConnectionPool, scripts: Sequence[str], *, timeout: float = TIMEOUT) -> None:
        self.is_up = False
        self._pool = pool
        self._scripts = scripts
        self._timeout = timeout
        self._queue: deque[Sent] = deque()
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._up_since = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and go on without Redis if that fails: it will be tried again."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def close(self) -> None:
        """Send what waits, if Redis takes it."""
        with suppress(Away):
            await self.ask(("PING",))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.is_up = False
        self._fail(())

    async def ask(self, command: Command) -> Any:
        """Redis' answer. Raises `Away`."""
        if not self.is_up:
            raise Away
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(Sent(command, answer))
        self._wake.set()
        return await answer

    def tell(self, command: Command, *, keep: float = 0.0, instead: Callable[[], None] | None = None) -> None:
        """
        Send a command that nobody waits for. After a failure it is sent again for `keep` seconds, which must be
        harmless; with `keep` 0 it is not, and `instead` is called.
        """
        if self.is_up or keep:
            use_until = asyncio.get_running_loop().time() + keep if keep else 0.0
            self._queue.append(Sent(command, None, use_until, instead))
            self._wake.set()
        elif instead is not None:
            instead()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection = self._pool.make_connection()
            at_once = False
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.connect()
                    for script in self._scripts:
                        await connection.send_command("SCRIPT", "LOAD", script, check_health=False)
                        await connection.read_response()
                self._rise()
                await self._serve(connection)
            except FAILURES as error:
                # A connection that had served well may just have been closed: by a restart, or for being idle.
                steady = self.is_up and loop.time() - self._up_since > TRY_EVERY
                at_once = steady and not isinstance(error, TimeoutError)
                self._fall(error)
            finally:
                await connection.disconnect(nowait=True)
            if not at_once:
                await asyncio.sleep(TRY_EVERY)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Send whatever is queued. Raises one of `FAILURES` as soon as something fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_AT_ONCE))]
                answered = 0
                try:
                    async with asyncio.timeout(self._timeout):
                        packed = connection.pack_commands([sent.command for sent in batch])
                        await connection.send_packed_command(packed, check_health=False)
                        for sent in batch:
                            answer = cast(Any, await connection.read_response())
                            answered += 1
                            if sent.answer is not None and not sent.answer.done():
                                sent.answer.set_result(answer)
                finally:
                    if answered < len(batch):
                        self._fail(batch[answered:])

    def _rise(self) -> None:
        if self._tried.is_set():
            log.warning("Redis is back")
        self.is_up = True
        self._up_since = asyncio.get_running_loop().time()
        self._tried.set()

    def _fall(self, error: BaseException) -> None:
        if self.is_up or not self._tried.is_set():
            log.warning(
                "Redis is away (%s: %s): until it is back, limits are as the option limits_without_redis says",
                type(error).__name__,
                error,
            )
        self.is_up = False
        self._fail(())
        self._tried.set()

    def _fail(self, unanswered: Sequence[Sent]) -> None:
        """Tell who waits that Redis is away, and keep what must still arrive."""
        now = asyncio.get_running_loop().time()
        sent_or_not, self._queue = (*unanswered, *self._queue), deque[Sent]()
        for sent in sent_or_not:
            if sent.answer is not None:
                if not sent.answer.done():
                    sent.answer.set_exception(Away())
            elif sent.use_until > now:
                self._queue.append(sent)
            elif sent.instead is not None:
                sent.instead()
        if self._queue:
            self._wake.set()
