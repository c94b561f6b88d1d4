"""Writes log lines from a thread, many at a time: the relay only appends to a list."""

import asyncio
import os
from typing import Any

import msgspec

PAUSE = 0.1
MOST_LINES = 20_000
AT_ONCE = 256
"""Lines made and written in one go: others get their turn between two of them."""


class LineWriter:
    """
    Gathers lines for a file descriptor: whatever msgspec writes as JSON. `write` never blocks and never fails.

    When the descriptor cannot keep up, lines beyond 20,000 are dropped and counted, and the count is written once there
    is room: a log must not stop the traffic that it tells of.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoder = msgspec.json.Encoder()
        self._lines: list[Any] = []
        self._dropped = 0

    def write(self, line: Any) -> None:
        if len(self._lines) < MOST_LINES:
            self._lines.append(line)
        else:
            self._dropped += 1

    async def run(self) -> None:
        """Write for as long as the process serves. What is left when it is cancelled is written by `drain`."""
        while True:
            await asyncio.sleep(PAUSE)
            if self._lines:
                await asyncio.to_thread(self.drain)

    def drain(self) -> None:
        """Write what has gathered, now. A closed descriptor loses it."""
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append({"dropped_lines": self._dropped})
            self._dropped = 0
        try:
            for start in range(0, len(lines), AT_ONCE):
                self._write(memoryview(self._encoder.encode_lines(lines[start : start + AT_ONCE])))
        except OSError:
            pass  # nobody reads the log any more; there is nowhere to say so

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
