"""Where Tollway's time goes under one load: py-spy when it is installed, else cProfile."""

import pstats
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from loads import LOADS, run_load
from processes import TARGET_CORE, Process
from targets import TARGETS, build_tools, start_upstream

MOST_LINES = 45


def profile(loads: list[str], *, pace: float, work: Path) -> int:
    """Print the dearest functions of each load, or write a flame graph of it; cProfile makes everything slower."""
    upstream_tool, client = build_tools(work)
    upstream, upstream_port = start_upstream(upstream_tool)
    try:
        for name in loads:
            one_load(name, upstream_port, client, work, pace)
    finally:
        upstream.stop()
    return 0


def one_load(name: str, upstream_port: int, client: Path, work: Path, pace: float) -> None:
    target = TARGETS["tollway"](work, upstream_port)
    spy = shutil.which("py-spy")
    graph, stats = work / f"profile-{name}.svg", work / f"profile-{name}.stats"
    # The command is `python -m module ...`: the profiler steps in between.
    command = target.command if spy else [sys.executable, "-m", "cProfile", "-o", str(stats), *target.command[1:]]
    with (work / "profile.log").open("wb") as log:
        process = Process.start(command, cores={TARGET_CORE}, cwd=work, environ=target.environ, output=log)
        recorder = None
        try:
            process.wait_until_ready(target.port, target.ready_path)
            if spy:
                record = [spy, "record", "--pid", str(process.popen.pid), "--output", str(graph), "--rate", "500"]
                recorder = subprocess.Popen([*record, "--duration", "3600"])
            load = LOADS[name]
            outcome = run_load(load, client, port=target.port, key=target.key, seconds=load.seconds * pace)
        finally:
            # An interrupt unwinds the stack, so that cProfile writes what it has.
            process.stop(by=signal.SIGINT)
            if recorder is not None:
                recorder.wait()
    print(f"\n{load.title}: {outcome.ok} answers, {outcome.bad} bad {outcome.first_error}")
    if spy:
        print(f"flame graph: {graph}")
    else:
        pstats.Stats(str(stats)).sort_stats("tottime").print_stats(MOST_LINES)
