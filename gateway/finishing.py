"""
Work that is finished though whoever began it is cancelled: a start, or an end, that is given up leaves no lock behind.

A thread cannot be cancelled. Who stops waiting for it loses what it makes, and with it the only way to give that back.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

FINISH_WITHIN_S = 10.0
"""For so long somebody who is cancelled waits for what he has begun."""


async def finished(work: "asyncio.Future[T]") -> T:
    """The result of a task or future. Who is cancelled waits for its end first, unless it hangs."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work], timeout=FINISH_WITHIN_S)
        raise


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """As `asyncio.to_thread`, but no task, which the end of the event loop would cancel."""
    return asyncio.get_running_loop().run_in_executor(None, work)


async def made(make: Callable[[], T], give_back: Callable[[T], object]) -> T:
    """What `make` makes in a thread. `give_back` is called with it when nobody wants it any more."""
    making = in_thread(make)

    def take_back(_: object = None) -> None:
        with suppress(Exception):  # what failed has made nothing
            give_back(making.result())

    try:
        return await finished(making)
    except asyncio.CancelledError:
        if making.done():
            take_back()
        else:
            making.add_done_callback(take_back)
        raise
