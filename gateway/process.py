"""Settings of the whole process, for when Tollway has one of its own. Mounted in another app, it leaves them alone."""

import asyncio
import ctypes
import gc
import os
import sys

SWITCH_INTERVAL = 0.0005
GC_THRESHOLD = (25_000, 20, 20)
M_ARENA_MAX = -8  # malloc.h of the GNU C library
TRIM_EVERY = 1.0
TRIM_AGAIN_AFTER = 10
WORTH_TRIMMING = 4 * 1024 * 1024
"""Bytes that the process must have grown by before the allocator is asked for what it holds unused."""
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def share_one_heap() -> None:
    """
    Call once, before threads are made.

    The GNU allocator gives each thread a heap of its own, which is kept when its content is gone: ten megabytes, here,
    for threads that write rows and lines one after the other.
    """
    allocator = _gnu_allocator()
    if allocator is not None:
        allocator.mallopt(M_ARENA_MAX, 1)


def settle_process() -> None:
    """
    Call once, inside the event loop, when everything is loaded.

    Threads that write the database or a log get their turn ten times sooner beside a busy event loop (Python's default
    is 5 ms a turn, which starves them). What is loaded now stays: the collector need not look through it again. From
    now on, memory that large bodies have left behind is given back to the system.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    allocator = _gnu_allocator()
    if allocator is not None:
        _Trimmer(allocator).start(asyncio.get_running_loop())


def _gnu_allocator() -> ctypes.CDLL | None:
    """None where there is another, which has no such knobs (musl), or keeps to other rules."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


class _Trimmer:
    """
    Gives unused pages back from the middle of the heap too, which the allocator by itself does only at its end.

    A body of some hundred kilobytes is copied a few times, and a small block that outlives it pins all of that: the
    process would stay as large as in its busiest moment. To trim takes milliseconds, and so would asking the allocator
    what it holds unused: it is done when the process has grown, and once in a while in case it could have shrunk since.
    """

    def __init__(self, allocator: ctypes.CDLL) -> None:
        self._trim = allocator.malloc_trim
        self._settled = self._least = resident_bytes()
        self._looks = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(TRIM_EVERY, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looks += 1
        if self._looks % TRIM_AGAIN_AFTER == 0:
            self._least = self._settled
        if resident_bytes() > self._least + WORTH_TRIMMING:
            self._trim(0)  # in a thread it would hold the heap's lock all the same
            self._least = resident_bytes()
        self.start(loop)


def resident_bytes() -> int:
    """Resident memory of this process, by proc(5): on Linux only."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE
