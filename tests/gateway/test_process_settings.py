"""A process of Tollway's own: what it sets for the whole of it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")

PROGRAM = """
import asyncio, ctypes, os
from tollway.gateway import process

if not hasattr(ctypes.CDLL(None), "malloc_trim"):
    raise SystemExit("no GNU allocator")
process.TRIM_EVERY = 0.02
process.share_one_heap()

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

async def main():
    process.settle_process()
    # Between large bodies lie small blocks that outlive them, so that the heap cannot shrink at its end.
    bodies, small = [], []
    for _ in range(400):
        bodies.append(b"x" * 100_000)
        small.append(os.urandom(1_000))
    full = resident()
    bodies.clear()
    for _ in range(100):
        await asyncio.sleep(0.02)
        if full - resident() > 30_000_000:
            print("given back")
            return
    print("kept", full - resident())

asyncio.run(main())
"""


def test_the_memory_of_large_bodies_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    if "no GNU allocator" in done.stderr:
        pytest.skip("no GNU allocator")
    assert (done.stdout, done.stderr) == ("given back\n", "")
