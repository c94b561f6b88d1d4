"""
What a request and an event cost: Tollway with everything on, against a proxy without features and nginx.

    python tests/bench/bench.py                   compare, print the table
    python tests/bench/bench.py --write-readme    and put the table into README.md
    python tests/bench/bench.py --profile         no comparison: where Tollway's time goes

Each target has one process on the first core; the load client and the mock upstream share the last. Targets take
turns, A B C A B C, and each figure is the median of the rounds. CPU time of the target is the steady figure; on a
shared machine even that differs by a third from run to run, so compare the ratios of one run only.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from loads import LOADS, run_load
from processes import TARGET_CORE, Process
from profiling import profile
from report import Cell, Ends, Figures, markdown, write_into_readme
from targets import TARGETS, Target, available, build_tools, start_upstream

CHECKOUT = Path(__file__).resolve().parents[2]
WARM_UP_S = 0.7
REST_S = 12.0
"""Behind the last load, before the memory that stays is read."""


@dataclass
class Running:
    target: Target
    process: Process
    ready_s: float
    idle_mib: float


@contextmanager
def started(target: Target, work: Path) -> Iterator[Running]:
    """Start it three times; the last one stays, and `ready_s` is the median of the three."""
    times: list[float] = []
    with (work / f"{target.name}.log").open("wb") as log:
        for last in (False, False, True):
            begun = time.perf_counter()
            process = Process.start(target.command, cores={TARGET_CORE}, cwd=work, environ=target.environ, output=log)
            try:
                process.wait_until_ready(target.port, target.ready_path)
                times.append(time.perf_counter() - begun)
                if last:
                    time.sleep(0.5)
                    yield Running(target, process, median(times), process.memory_mib())
            finally:
                process.stop()


def measure(running: Running, load_name: str, client: Path, pace: float) -> Cell:
    load = LOADS[load_name]
    before = running.process.cpu_seconds()
    outcome = run_load(load, client, port=running.target.port, key=running.target.key, seconds=load.seconds * pace)
    used = running.process.cpu_seconds() - before
    return Cell(running.target.name, load_name, used, outcome, running.process.memory_mib())


def compare(names: list[str], loads: list[str], *, rounds: int, pace: float, work: Path) -> Figures:
    upstream_tool, client = build_tools(work)
    with ExitStack() as stack:
        upstream, upstream_port = start_upstream(upstream_tool)
        stack.callback(upstream.stop)
        everyone = [stack.enter_context(started(TARGETS[name](work, upstream_port), work)) for name in names]
        for running in everyone:
            for load in loads:
                target = running.target
                run_load(LOADS[load], client, port=target.port, key=target.key, seconds=WARM_UP_S * min(pace, 1.0))
        cells = [measure(running, load, client, pace) for _ in range(rounds) for load in loads for running in everyone]
        time.sleep(REST_S)
        ends = {each.target.name: Ends(each.ready_s, each.idle_mib, each.process.memory_mib()) for each in everyone}
    return Figures(cells, ends)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--targets", default="nginx,raw,tollway", help="in the order of their turns")
    parser.add_argument("--loads", default=",".join(LOADS), help="of: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pace", type=float, default=1.0, help="multiplies the seconds of each measurement")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build/bench", help="where binaries and logs go")
    parser.add_argument("--json", type=Path, help="also write every measurement, one line each")
    parser.add_argument("--write-readme", action="store_true", help="put the table between README.md's markers")
    parser.add_argument("--profile", action="store_true", help="profile Tollway instead of comparing")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    loads = given.loads.split(",")
    if given.profile:
        return profile(loads, pace=given.pace, work=given.work)
    names = available(given.targets.split(","))
    figures = compare(names, loads, rounds=given.rounds, pace=given.pace, work=given.work)
    if given.json:
        given.json.write_text("".join(json.dumps(asdict(cell)) + "\n" for cell in figures.cells))
    table = markdown(figures, rounds=given.rounds)
    print(table)
    for line in figures.bars():
        print(line)
    if given.write_readme:
        write_into_readme(CHECKOUT / "README.md", table)
    return 1 if figures.bad() else 0


if __name__ == "__main__":
    raise SystemExit(main())
