"""
The four timeouts of one request, kept by a single loop timer.

Each phase only moves a due time; the timer is armed again when it fires too early, or when the new due time lies
before it. A stream of events therefore costs two attribute writes an event and no timer.
"""

import asyncio
from collections.abc import Callable
from math import inf

from ...adapters.errors import UpstreamTimeout
from .port import Timeouts

# uvloop counts whole milliseconds, so that a timer may fire a fraction of one too early.
GRAIN = 0.001


def connect_timeout(seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"The upstream was not reached within {seconds:g} s.", code="upstream_connect_timeout")


def first_byte_timeout(seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"The upstream sent no answer within {seconds:g} s.", code="upstream_first_byte_timeout")


def idle_timeout(seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"The upstream fell silent for {seconds:g} s inside its answer.", code="upstream_idle_timeout"
    )


def total_timeout(seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"The upstream's answer took longer than {seconds:g} s.", code="upstream_total_timeout")


def total_end(timeouts: Timeouts, started: float) -> float:
    """The loop time at which the whole exchange is over; infinite when it may last for ever."""
    return started + timeouts.total if timeouts.total else inf


class Watch:
    """
    Calls `expired` once, with the timeout that ran out, unless stopped before.

    It starts in the first-byte phase. `started` is the loop time at which the whole exchange began. Connecting has
    its own timeout, before there is anything to watch.
    """

    __slots__ = ("_armed", "_due", "_end", "_expired", "_handle", "_idle", "_loop", "_timeouts", "_waits_for_body")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        started: float,
        expired: Callable[[UpstreamTimeout], None],
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._end = total_end(timeouts, started)
        self._due = loop.time() + timeouts.first_byte if timeouts.first_byte else inf
        self._idle = timeouts.idle or inf
        self._waits_for_body = False
        self._expired: Callable[[UpstreamTimeout], None] | None = expired
        self._armed = due = self._due if self._due < self._end else self._end
        self._handle = loop.call_at(due, self._fire) if due < inf else None

    def restart_first_byte(self) -> None:
        """A part of a large request went out: the wait for the answer begins anew."""
        if self._timeouts.first_byte:
            self._due = self._loop.time() + self._timeouts.first_byte

    def await_body(self) -> None:
        """The reader waits for the upstream from now on."""
        self._waits_for_body = True
        self._due = due = self._loop.time() + self._idle
        if due < self._armed:
            self._arm(due)

    def rest(self) -> None:
        """Nobody waits: the upstream is not to blame for the time that passes. Only the total runs on."""
        self._due = inf

    def stop(self) -> None:
        self._expired = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = due
        self._handle = self._loop.call_at(due, self._fire) if due < inf else None

    def _fire(self) -> None:
        self._handle = None
        expired = self._expired
        if expired is None:
            return
        soon = self._loop.time() + GRAIN
        if soon < self._due and soon < self._end:
            self._arm(min(self._due, self._end))
            return
        self._expired = None
        expired(self._reason(soon))

    def _reason(self, soon: float) -> UpstreamTimeout:
        if soon >= self._end:
            return total_timeout(self._timeouts.total)
        if self._waits_for_body:
            return idle_timeout(self._timeouts.idle)
        return first_byte_timeout(self._timeouts.first_byte)
