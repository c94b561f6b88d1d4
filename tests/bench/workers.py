"""
What more workers bring: requests a second, and what each costs, of one server with 1, 2 and 4 of them.

    python tests/bench/workers.py

The server may use all cores. The load client and the mock upstream take their share of the last one, so on a machine
of two cores this shows where it ends, and only on a larger one what four workers can do.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from loads import LOADS, run_load
from processes import CORES, Process
from targets import build_tools, start_upstream, tollway

CHECKOUT = Path(__file__).resolve().parents[2]
ROUNDS = 5
SECONDS = 3.0
LOAD = replace(LOADS["json"], connections=64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers, in the order of their turns")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build/bench", help="where binaries and logs go")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    numbers = [int(number) for number in given.workers.split(",")]
    upstream_tool, client = build_tools(given.work)
    seen: dict[int, list[tuple[float, float]]] = {number: [] for number in numbers}
    with ExitStack() as stack:
        upstream, upstream_port = start_upstream(upstream_tool)
        stack.callback(upstream.stop)
        servers: dict[int, tuple[Process, int, str]] = {}
        for number in numbers:
            target = tollway(given.work, upstream_port, f"tollway-{number}")
            log = stack.enter_context((given.work / f"{target.name}.log").open("wb"))
            command = [*target.command, "--workers", str(number)]
            process = Process.start(command, cores=CORES, cwd=given.work, environ=target.environ, output=log)
            stack.callback(process.stop)
            process.wait_until_ready(target.port, target.ready_path)
            servers[number] = process, target.port, target.key
        time.sleep(2)  # until every worker listens
        for turn in range(given.rounds + 1):
            for number, (process, port, key) in servers.items():
                before = process.cpu_seconds()
                outcome = run_load(LOAD, client, port=port, key=key, seconds=given.seconds)
                if outcome.bad:
                    print(f"{number} workers: {outcome.bad} bad answers, first: {outcome.first_error}")
                    return 1
                if turn:  # the first one warms up
                    used = process.cpu_seconds() - before
                    seen[number].append((outcome.rps, used / outcome.ok * 1e6))
    print("| workers | requests/s | CPU us per request | cores used |")
    print("|---:|---:|---:|---:|")
    for number, figures in seen.items():
        rps, cpu = (median(column) for column in zip(*figures, strict=True))
        print(f"| {number} | {rps:,.0f} | {cpu:.0f} | {rps * cpu / 1e6:.2f} |")
    print(f"\nMedians of {given.rounds} rounds on {len(CORES)} cores, 64 connections, requests of 2 KB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
