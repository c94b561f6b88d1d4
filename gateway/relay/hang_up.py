"""Learn soon that a client has hung up, at no cost for the requests that are over before one could."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive

GRACE = 0.03
"""Seconds between two looks at what is new. Listening takes a task; what ends within two looks needs none."""


class HangUp:
    """One request's watch for `http.disconnect` while the endpoint is busy with the upstream."""

    __slots__ = ("_on_gone", "_receive", "_task", "seen")

    def __init__(self, receive: Receive, on_gone: Callable[[], None]) -> None:
        self._receive = receive
        self._on_gone = on_gone
        self._task: asyncio.Task[None] | None = None
        self.seen = False

    def listen(self) -> None:
        self._task = asyncio.create_task(self._listen())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._on_gone()


class HangUps:
    """
    The watches of all requests under way, with one timer for all of them.

    `on_gone` is called, once, when the client leaves: at once, or within 60 ms for a request that has just begun.
    """

    def __init__(self) -> None:
        self._new: dict[HangUp, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive, on_gone: Callable[[], None]) -> HangUp:
        hang_up = HangUp(receive, on_gone)
        self._new[hang_up] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._look)
        return hang_up

    def stop(self, hang_up: HangUp) -> None:
        """The request is over."""
        self._new.pop(hang_up, None)
        hang_up.stop()

    def _look(self) -> None:
        for hang_up in tuple(self._new):
            if hang_up.seen:
                del self._new[hang_up]
                hang_up.listen()
            else:
                hang_up.seen = True
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._look) if self._new else None
