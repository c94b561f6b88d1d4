"""
Changes told at once: who has written publishes a word, and who listens looks at the change list.

The word says nothing but that there is something to see. The list in the database is the truth, and is polled anyway: a
word that is lost costs half a second, and a word too many costs a look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError

from ...config.secret import Secret
from .client import FAILURES, TIMEOUT, pool_of
from .line import TRY_EVERY

log = logging.getLogger("tollway.redis")

CHANNEL = "tollway:changes"
SILENCE = 10.0
"""Seconds without a word after which Redis is asked for a sign of life."""

OnChange = Callable[[], Awaitable[None]]


class Publisher:
    """Says that something was written and committed. Raises `SettingError` for a URL that is none."""

    def __init__(self, url: Secret) -> None:
        self._pool = pool_of(url)

    async def publish(self) -> None:
        """Without Redis nothing happens. Changes are rare: no connection is kept."""
        with suppress(*FAILURES):
            async with asyncio.timeout(TIMEOUT):
                await Redis(connection_pool=self._pool).publish(CHANNEL, "")  # pyright: ignore[reportUnknownMemberType]
        await self._pool.disconnect()


async def listen(url: Secret, on_change: OnChange) -> None:
    """
    Call `on_change` soon after each word, once for several that come together; and after each connecting, for what was
    said meanwhile. Runs until it is cancelled, whether or not Redis is there. Raises `SettingError`.
    """
    pool = pool_of(url)
    told = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_hear(pool, told))
            both.create_task(_look(told, on_change))
    finally:
        await pool.disconnect()


async def _hear(pool: ConnectionPool, told: asyncio.Event) -> None:
    while True:
        with suppress(*FAILURES):
            async with PubSub(pool) as words:
                async with asyncio.timeout(TIMEOUT):
                    await words.subscribe(CHANNEL)
                told.set()
                await _follow(words, told)
        await asyncio.sleep(TRY_EVERY)


async def _follow(words: PubSub, told: asyncio.Event) -> None:
    """Hear words until the connection fails."""
    asked = False
    while True:
        word = await words.get_message(timeout=SILENCE)  # pyright: ignore[reportUnknownVariableType]
        if word is not None:
            asked = False
            if word["type"] == "message":
                told.set()
        elif asked:
            raise ConnectionError("no sign of life")
        else:
            asked = True
            await words.ping()  # pyright: ignore[reportUnknownMemberType]


async def _look(told: asyncio.Event, on_change: OnChange) -> None:
    while True:
        await told.wait()
        told.clear()
        try:
            await on_change()
        except Exception:
            # Polling goes on, and so must the listening for what comes next.
            log.exception("a change that was told cannot be taken over")
