"""Writes log lines from a thread, many at a time: the relay only appends to a list."""

import asyncio
import os
from typing import SupportsBytes

PAUSE = 0.1
MOST_LINES = 20_000


class LineWriter:
    """
    Gathers lines for a file descriptor. `write` never blocks and never fails; `bytes` makes the line, with its end.

    When the descriptor cannot keep up, lines beyond 20,000 are dropped and counted, and the count is written once there
    is room: a log must not stop the traffic that it tells of.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[SupportsBytes] = []
        self._dropped = 0

    def write(self, line: SupportsBytes) -> None:
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
            lines.append(b'{"dropped_lines":%d}\n' % self._dropped)
            self._dropped = 0
        data = memoryview(b"".join(map(bytes, lines)))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # nobody reads the log any more; there is nowhere to say so
