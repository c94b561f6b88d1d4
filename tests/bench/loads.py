"""What is asked of a target: the request bodies, how many at once, and the C load client that asks."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import LOAD_CORE, Process

MODEL = "gpt-4o-mini"
PARAGRAPH = (
    'Explain the trade-offs of write-ahead logging in an embedded database, with "quoted" words, a line\n'
    "break and a few numbers such as 42 and 3.14, for a reader who runs it in production. "
)


@dataclass(frozen=True)
class Load:
    """
    One kind of traffic. `events` is what a stream brings in all; 0 for plain answers.

    `answer` is read by the mock upstream: n events, i ms between them, d ms before the first byte.
    """

    title: str
    body_bytes: int
    connections: int
    events: int = 0
    answer: str = "n64,i0,d0"
    seconds: float = 2.0


LOADS = {
    "json": Load("JSON, 2 KB", 2_048, 16),
    "json-32k": Load("JSON, 32 KB", 32_768, 16),
    "json-400k": Load("JSON, 400 KB", 400_000, 8),
    # 64 tokens, the usage, [DONE]
    "burst": Load("stream, 66 events in one write", 2_048, 16, events=66),
    "paced": Load("stream, one event each 10 ms, 64 at once", 2_048, 64, events=66, answer="n64,i10,d0", seconds=2.5),
    "single": Load("JSON, 2 KB, one connection", 2_048, 1),
}


def body_of(load: Load) -> bytes:
    """A chat completion of about `body_bytes`, in turns of up to 4,000 characters."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You are a careful assistant."}],
        "temperature": 0.2,
        "max_tokens": 256,
        "user": load.answer,
    }
    if load.events:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    turn = 1_000 if load.body_bytes < 10_000 else 4_000
    while (missing := load.body_bytes - len(json.dumps(body)) - 40) > 0:
        size = min(turn, missing)
        text = (PARAGRAPH * (size // len(PARAGRAPH) + 1))[:size]
        role = "assistant" if body["messages"][-1]["role"] == "user" else "user"
        body["messages"].append({"role": role, "content": text})
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Outcome:
    """What the load client saw; latencies in microseconds. `ok`, `bad` and `events` are of the whole run."""

    ok: int
    bad: int
    events: int
    seconds: float
    rps: float
    p50: float
    p99: float
    first_byte_p50: float
    first_byte_p99: float
    reconnects: int
    first_error: str


def start_load(
    load: Load, client: Path, *, port: int, key: str, seconds: float, rate: float = 0.0, out: Path | None = None
) -> Process:
    """Start the client; `out` receives its line of JSON. With `rate`, an open loop of that many requests a second."""
    folder = client.parent
    body = folder / f"body-{load.body_bytes}-{load.events}-{load.answer}.json"
    body.write_bytes(body_of(load))
    command = [client, "-p", port, "-b", body, "-c", load.connections, "-t", seconds, "-r", rate]
    command += ["-H", f"authorization: Bearer {key}"]
    if load.events:
        command += ["-D", "-E", load.events]
    output = out.open("wb") if out else subprocess.PIPE
    return Process.start([str(word) for word in command], cores={LOAD_CORE}, cwd=folder, output=output)


def run_load(load: Load, client: Path, *, port: int, key: str, seconds: float, rate: float = 0.0) -> Outcome:
    """Run the client to its end. Raises RuntimeError when it fails."""
    process = start_load(load, client, port=port, key=key, seconds=seconds, rate=rate)
    line, errors = process.popen.communicate()
    if process.popen.returncode != 0:
        raise RuntimeError(f"the load client failed: {errors!r}")
    return Outcome(**json.loads(line))
