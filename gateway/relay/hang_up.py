"""Learn soon that a client has hung up, at no cost for the requests that are over before one could."""

import asyncio
import time
from typing import Protocol

from starlette.types import Receive

GRACE = 0.03
"""Seconds between two looks at what is new. Listening takes a task; what ends within two looks needs none."""
PATIENCE = 1.0
"""Seconds between two looks while nothing is new: only at clients that may have stopped reading."""


class Watched(Protocol):
    """The request that is watched over."""

    def client_left(self) -> None: ...

    def stop(self) -> None:
        """Break off at once: the client takes nothing of what it is sent."""
        ...


class HangUp:
    """
    One request's watch for `http.disconnect` while the endpoint is busy with the upstream.

    `sending` is the very object that the endpoint is sending now, None while it is not sending: looked at now and
    then, it tells whether the client takes anything, without a clock for each event.
    """

    __slots__ = ("_receive", "_task", "request", "seen", "sending", "stuck", "stuck_since")

    def __init__(self, receive: Receive, request: Watched) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self.request: Watched | None = request
        self.seen = False
        self.sending: bytes | None = None
        self.stuck: bytes | None = None
        """What was being sent at the last look, and the monotonic time of the first look that found it so."""
        self.stuck_since = 0.0

    def stuck_for(self, now: float) -> float:
        """Seconds for which looks have found the same piece being sent."""
        if self.sending is None or self.sending is not self.stuck:
            self.stuck, self.stuck_since = self.sending, now
        return now - self.stuck_since

    def listen(self) -> None:
        self._task = asyncio.create_task(self._listen())

    def stop(self) -> None:
        # Request and watch know each other; parted, both go at once and need no garbage collector.
        self.request = None
        if self._task is not None:
            self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.request is not None:
            self.request.client_left()


class HangUps:
    """
    The watches of all requests under way, with one timer for all of them.

    `client_left` is called, once, when the client leaves: at once, or within 60 ms for a request that has just begun.
    `stop` is called when the client has taken nothing of what was sent for `stall` seconds (0: never).
    """

    def __init__(self, *, stall: float = 0.0) -> None:
        self._stall = stall
        self._new: dict[HangUp, None] = {}
        self._old: dict[HangUp, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        """The timer is set for the long pause."""

    def watch(self, receive: Receive, request: Watched) -> HangUp:
        hang_up = HangUp(receive, request)
        self._new[hang_up] = None
        if self._timer is None or self._resting:
            self._set(GRACE)
        return hang_up

    def stop(self, hang_up: HangUp) -> None:
        """The request is over."""
        if hang_up in self._new:
            del self._new[hang_up]
        else:
            self._old.pop(hang_up, None)
        hang_up.stop()

    def _look(self) -> None:
        for hang_up in tuple(self._new):
            if hang_up.seen:
                del self._new[hang_up]
                self._old[hang_up] = None
                hang_up.listen()
            else:
                hang_up.seen = True
        if self._stall:
            now = time.monotonic()
            for hang_up in tuple(self._old):
                if hang_up.stuck_for(now) > self._stall and hang_up.request is not None:
                    del self._old[hang_up]
                    hang_up.request.stop()
        self._timer = None
        if self._new:
            self._set(GRACE)
        elif self._old:
            self._set(PATIENCE)

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._resting = seconds == PATIENCE
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)
