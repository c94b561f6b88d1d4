"""
Minutes of steady load on Tollway: memory, tasks, sockets and files must not grow, and every answer must be whole.

    python tests/bench/steady.py --minutes 10

Plain requests at a fixed rate, streams all the time, and clients that hang up in the middle of a stream. Before and
after that, 512 slow streams at once. Exits with 1, and says what grew or broke, unless all is well.
"""

import argparse
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from threading import Event, Thread

from hang_ups import hang_up_now_and_then
from loads import Load, Outcome, run_load, start_load
from processes import TARGET_CORE, Process
from targets import TARGETS, Target, build_tools, start_upstream

CHECKOUT = Path(__file__).resolve().parents[2]
PLAIN = Load("requests", 2_048, 16)
STREAMS = Load("streams", 2_048, 32, events=66, answer="n64,i20,d0")
CROWD = Load("slow streams at once", 2_048, 512, events=66, answer="n64,i20,d5")
# Before anything is watched: pools fill, and the allocator finds its level.
WARM_UP_SHARE, LONGEST_WARM_UP_S = 0.2, 20.0
COUNTS_MAY_GROW = 8


@dataclass(frozen=True)
class Reading:
    """One look at the process. Counts breathe with the load by a few; what matters is that they do not climb."""

    memory_mib: float
    tasks: float
    files: float
    sockets: float


def metric(page: str, name: str, label: str = "") -> float:
    """The sum of a metric's samples that carry `label`."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.partition(" ")[0].partition("{")[0] == name and label in line
    )


def metrics_page(target: Target) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{target.port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def read(target: Target, process: Process) -> Reading:
    files, sockets = process.open_files()
    return Reading(process.memory_mib(), metric(metrics_page(target), "tollway_tasks"), files, sockets)


def growth(readings: list[Reading], memory_may_grow: float) -> Iterator[str]:
    """A line for each figure that is higher in the last third than in the first."""
    third = max(1, len(readings) // 3)
    for field in fields(Reading):
        before, after = (median(getattr(r, field.name) for r in part) for part in (readings[:third], readings[-third:]))
        print(f"{field.name}: {before:.1f} -> {after:.1f}")
        if after - before > (memory_may_grow if field.name == "memory_mib" else COUNTS_MAY_GROW):
            yield f"{field.name} grew from {before:.1f} to {after:.1f}"


@contextmanager
def steady_load(target: Target, client: Path, seconds: float, rate: float) -> Iterator[list[Outcome]]:
    """Load in the background; the list holds what the clients saw once the block has ended."""
    outcomes: list[Outcome] = []
    ended = Event()
    hanging_up = Thread(target=hang_up_now_and_then, args=(target.port, target.key, STREAMS, ended))
    hanging_up.start()
    outputs = [client.parent / "steady-plain.json", client.parent / "steady-streams.json"]
    clients = [
        start_load(PLAIN, client, port=target.port, key=target.key, seconds=seconds, rate=rate, out=outputs[0]),
        start_load(STREAMS, client, port=target.port, key=target.key, seconds=seconds, out=outputs[1]),
    ]
    try:
        yield outcomes
        for process, output in zip(clients, outputs, strict=True):
            process.popen.wait(timeout=60)
            outcomes.append(Outcome(**json.loads(output.read_text())))
    finally:
        ended.set()
        hanging_up.join()
        for process in clients:
            process.stop()


def run(given: argparse.Namespace) -> list[str]:
    """What went wrong, a line each."""
    upstream_tool, client = build_tools(given.work)
    seconds = given.minutes * 60
    with ExitStack() as stack:
        upstream, upstream_port = start_upstream(upstream_tool)
        stack.callback(upstream.stop)
        target = TARGETS["tollway"](given.work, upstream_port)
        log = stack.enter_context((given.work / "steady.log").open("wb"))
        process = Process.start(target.command, cores={TARGET_CORE}, cwd=given.work, environ=target.environ, output=log)
        stack.callback(process.stop)
        process.wait_until_ready(target.port, target.ready_path)
        idle = read(target, process)
        outcomes = [ask_at_once(given.crowd, target, client), warm_up(target, client, seconds)]
        readings, seen = watch(target, process, client, seconds, given.rate)
        outcomes += [*seen, ask_at_once(given.crowd, target, client)]
        problems = list(growth(readings, given.memory_may_grow))
        problems += [f"{o.bad} answers were bad, the first: {o.first_error}" for o in outcomes if o.bad]
        problems += after_the_load(target, process, idle, sum(outcome.ok for outcome in outcomes))
        if status := process.stop():
            problems.append(f"the gateway ended with status {status}")
    return problems


def warm_up(target: Target, client: Path, seconds: float) -> Outcome:
    seconds = min(seconds * WARM_UP_SHARE, LONGEST_WARM_UP_S)
    return run_load(PLAIN, client, port=target.port, key=target.key, seconds=seconds)


def watch(
    target: Target, process: Process, client: Path, seconds: float, rate: float
) -> tuple[list[Reading], list[Outcome]]:
    """Readings all through the steady load, and what its clients saw."""
    readings: list[Reading] = []
    with steady_load(target, client, seconds, rate) as outcomes:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(5.0, seconds / 30))
            readings.append(read(target, process))
    trace = " ".join(f"{reading.memory_mib:.0f}" for reading in readings[:: max(1, len(readings) // 20)])
    print(f"memory over time, MiB: {trace}")
    for outcome in outcomes:
        print(f"{outcome.ok} answers, {outcome.events} events, p99 {outcome.p99 / 1e3:.1f} ms")
    return readings, outcomes


def ask_at_once(crowd: int, target: Target, client: Path) -> Outcome:
    load = replace(CROWD, connections=crowd)
    # One stream for each connection: the time is up before the first of them ends.
    outcome = run_load(load, client, port=target.port, key=target.key, seconds=0.3)
    if outcome.ok != crowd:
        outcome = replace(outcome, bad=crowd - outcome.ok)
    print(f"{crowd} streams at once: {outcome.ok} whole, the slowest hundredth took {outcome.p99 / 1e6:.1f} s")
    return outcome


def after_the_load(target: Target, process: Process, idle: Reading, answered: int) -> Iterator[str]:
    """With no client left, tasks are back where they were, every answer was counted, and every charge was written."""
    time.sleep(1.5)
    page, rest = metrics_page(target), read(target, process)
    kept = metric(page, "tollway_upstream_connections_open")
    print(
        f"at rest: {rest.tasks:.0f} tasks ({idle.tasks:.0f} at the start), {rest.sockets:.0f} sockets, {kept:.0f} kept"
    )
    if rest.tasks - idle.tasks > COUNTS_MAY_GROW:
        yield f"{rest.tasks - idle.tasks:.0f} tasks are left over"
    if rest.sockets - idle.sockets - kept > COUNTS_MAY_GROW:
        yield f"{rest.sockets - idle.sockets - kept:.0f} sockets are left over"
    if streams := metric(page, "tollway_streams_open"):
        yield f"{streams:.0f} requests count as open"
    if pending := metric(page, "tollway_charges_pending"):
        yield f"{pending:.0f} charges are not written"
    counted = metric(page, "tollway_requests_total", 'status="200"')
    if counted < answered:
        yield f"{answered} whole answers, but {counted:.0f} were counted"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="plain requests a second")
    parser.add_argument("--crowd", type=int, default=512, help="slow streams at once, before and after")
    parser.add_argument("--memory-may-grow", type=float, default=4.0, metavar="MIB", help="from first to last third")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build/bench", help="where binaries and logs go")
    given = parser.parse_args()
    problems = run(given)
    for problem in problems:
        print(f"NOT STEADY: {problem}")
    print("steady" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
