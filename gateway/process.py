"""Settings of the whole process, for when Tollway has one of its own. Mounted in another app, it leaves them alone."""

import gc
import sys

SWITCH_INTERVAL = 0.0005
GC_THRESHOLD = (50_000, 20, 20)


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
