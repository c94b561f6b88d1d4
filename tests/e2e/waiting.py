"""Waiting for what another thread or process is about to do."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object], *, seconds: float = 10.0) -> bool:
    """Look again and again. False: it did not come to hold in time."""
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True
