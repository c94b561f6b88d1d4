"""Settings of the whole process, for when Tollway has one of its own. Mounted in another app, it leaves them alone."""

import gc
import sys

SWITCH_INTERVAL = 0.0005
GC_THRESHOLD = (25_000, 20, 20)
M_ARENA_MAX = -8  # malloc.h of the GNU C library


def share_one_heap() -> None:
    """
    Call once, before threads are made.

    The GNU allocator gives each thread a heap of its own, which is kept when its content is gone: ten megabytes, here,
    for threads that write rows and lines one after the other.
    """
    if sys.platform == "linux":
        import ctypes

        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):  # musl has none, and needs none
            allocator.mallopt(M_ARENA_MAX, 1)


def settle_process() -> None:
    """
    Call once, when everything is loaded.

    Threads that write the database or a log get their turn ten times sooner beside a busy event loop (Python's default
    is 5 ms a turn, which starves them). What is loaded now stays: the collector need not look through it again.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
