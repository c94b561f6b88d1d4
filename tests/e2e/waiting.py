"""Waiting for what another thread or process is about to do."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Look again and again. Raises `AssertionError` when it does not come to hold in time."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.02)
