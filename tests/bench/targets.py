"""What is compared: nginx, a proxy without features, and Tollway with all of them on, on SQLite or another database."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loads import MODEL
from processes import LOAD_CORE, Process, free_port

HERE = Path(__file__).parent
UVICORN = [
    "--http",
    "httptools",
    "--loop",
    "uvloop",
    "--no-access-log",
    "--log-level",
    "warning",
    "--host",
    "127.0.0.1",
]


@dataclass(frozen=True)
class Target:
    """How to start one of them, and how to see that it is ready."""

    name: str
    command: list[str]
    port: int
    key: str
    ready_path: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)


def build_tools(work: Path) -> tuple[Path, Path]:
    """Compile the mock upstream and the load client into `work`, unless they are newer than their sources."""
    work.mkdir(parents=True, exist_ok=True)
    tools: list[Path] = []
    for name in ("upstream", "load"):
        source, tool = HERE / f"{name}.c", work / name
        if not tool.exists() or tool.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-o", tool, source, "-lm"], check=True)
        tools.append(tool)
    return tools[0], tools[1]


def start_upstream(tool: Path) -> tuple[Process, int]:
    port = free_port()
    process = Process.start([tool, "-p", str(port)], cores={LOAD_CORE}, cwd=tool.parent)
    process.wait_until_ready(port, "/")
    return process, port


def raw(work: Path, upstream: int) -> Target:
    port, key = free_port(), "sk-bench"
    command = [sys.executable, "-m", "uvicorn", "raw_proxy:app", "--app-dir", str(HERE), *UVICORN, "--port", str(port)]
    return Target("raw", command, port, key, environ={"BENCH_UPSTREAM": f"127.0.0.1:{upstream}", "BENCH_KEY": key})


def nginx(work: Path, upstream: int) -> Target:
    port = free_port()
    text = (HERE / "nginx.conf").read_text().replace("PORT;", f"{port};").replace("PORT backlog", f"{port} backlog")
    config = work / "nginx.conf"
    config.write_text(text.replace("UPSTREAM;", f"{upstream};"))
    return Target("nginx", [shutil.which("nginx") or "nginx", "-p", str(work), "-c", str(config)], port, "sk-bench")


def tollway(work: Path, upstream: int, name: str = "tollway", sql_dsn: str = "") -> Target:
    """A new data directory with a user, a key and a channel; balance, limits, metrics, charges and access log on."""
    port, data_dir = free_port(), work / f"{name}-data"
    shutil.rmtree(data_dir, ignore_errors=True)
    environ = {"DATA_DIR": str(data_dir), "PORT": str(port), "SQL_DSN": sql_dsn}
    program = [sys.executable, "-m", "tollway.gateway"]

    def create(words: str) -> dict[str, Any]:
        command = [*program, *shlex.split(words), "--json"]
        done = subprocess.run(command, env=dict(os.environ) | environ, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    # The price of the model stands in the price book; the mapping makes each body be edited on its way.
    create(f"user create --username bench --quota {10**12}")
    create(
        f"channel create --name mock --type openai --base-url http://127.0.0.1:{upstream} --key sk-upstream"
        f' --models {MODEL} --model-mapping \'{{"{MODEL}": "mock-model"}}\''
    )
    token = create(
        f"token create --user bench --name bench --group default --quota {10**12}"
        f" --requests-per-minute {10**6} --tokens-per-minute {10**9} --parallel-requests {10**4}"
    )
    return Target(name, [*program, "serve"], port, token["key"], ready_path="/healthz", environ=environ)


def tollway_sql(work: Path, upstream: int) -> Target:
    """The same on the database that BENCH_SQL_DSN names, which is to be empty."""
    return tollway(work, upstream, "tollway-sql", os.environ["BENCH_SQL_DSN"])


TARGETS: dict[str, Callable[[Path, int], Target]] = {
    "nginx": nginx,
    "raw": raw,
    "tollway": tollway,
    "tollway-sql": tollway_sql,
}


def available(names: list[str]) -> list[str]:
    """The names without nginx where there is none; says so."""
    if "nginx" in names and shutil.which("nginx") is None:
        print("nginx is not installed: left out", file=sys.stderr)
        return [name for name in names if name != "nginx"]
    return names
