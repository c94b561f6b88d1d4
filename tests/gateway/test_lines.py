"""The log's writer: every line once, in order, and never in the way."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from tollway.gateway import lines as lines_module
from tollway.gateway.lines import AT_ONCE, LineWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def read(descriptor: int) -> list[Any]:
    return [json.loads(line) for line in os.read(descriptor, 1 << 20).splitlines()]


async def test_lines_are_written_soon_and_in_order(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    task = asyncio.create_task(writer.run())
    entries = [{"number": number} for number in range(AT_ONCE + 3)]
    for entry in entries:
        writer.write(entry)
    found: list[Any] = []
    while len(found) < len(entries):
        found += await asyncio.to_thread(read, pipe[0])
    assert found == entries
    task.cancel()


async def test_what_is_left_at_the_end_is_written_by_a_drain(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write({"path": "a\nb"})
    writer.drain()
    assert read(pipe[0]) == [{"path": "a\nb"}]


async def test_lines_beyond_the_bound_are_counted(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MOST_LINES", 2)
    writer = LineWriter(pipe[1])
    for number in range(5):
        writer.write(number)
    writer.drain()
    writer.write("more")
    writer.drain()
    assert read(pipe[0]) == [0, 1, {"dropped_lines": 3}, "more"]


async def test_a_log_that_nobody_reads_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    writer.write("lost")
    writer.drain()
    os.close(writing)
    writer.write("lost too")
    writer.drain()
