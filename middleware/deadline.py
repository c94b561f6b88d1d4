"""A time limit that costs a request next to nothing: one timer looks through all that wait, once a second."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY = 1.0


class Deadline:
    """
    `await deadline.within(awaitable)` raises `TimeoutError` when that takes longer than `seconds`, or up to a second
    more. For limits that are hardly ever reached; `asyncio.timeout` is exact, and costs a timer each time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def within(self, awaitable: Awaitable[T]) -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs an asyncio task to interrupt")
        loop = asyncio.get_running_loop()
        self._waiting[task] = loop.time() + self.seconds
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(min(LOOK_EVERY, self.seconds), self._look)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Ours, unless somebody else has cancelled the task as well.
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._waiting.pop(task, None)
            self._expired.discard(task)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, due in tuple(self._waiting.items()):
            if due <= now:
                del self._waiting[task]
                self._expired.add(task)
                task.cancel()
        self._timer = loop.call_later(min(LOOK_EVERY, self.seconds), self._look) if self._waiting else None
