"""From measurements to a table: medians over the rounds, and each figure as a ratio to the raw proxy and to nginx."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loads import LOADS, Outcome

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
# The budget: what Tollway may cost at most, as a multiple of another target in the same run.
BARS = (("json", "raw", 1.6), ("paced", "raw", 1.2), ("json", "nginx", 7.5))


@dataclass(frozen=True)
class Cell:
    """One target under one load for one round."""

    target: str
    load: str
    cpu_seconds: float
    outcome: Outcome
    memory_mib: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds for each request; for `paced`, for each event."""
        count = self.outcome.events if self.load == "paced" else self.outcome.ok
        return self.cpu_seconds / max(1, count) * 1e6


@dataclass(frozen=True)
class Ends:
    """Seconds to its first answer, MiB before any request, and MiB when all loads were over for some seconds."""

    ready_s: float
    idle_mib: float
    rest_mib: float


@dataclass(frozen=True)
class Figures:
    """Every measurement of one run, and what was seen of each target before and after its loads."""

    cells: list[Cell]
    ends: dict[str, Ends]

    def of(self, target: str, load: str, read: Callable[[Cell], float]) -> float:
        """The median over the rounds. NaN when there are none."""
        values = [read(cell) for cell in self.cells if (cell.target, cell.load) == (target, load)]
        return median(values) if values else float("nan")

    def bad(self) -> list[str]:
        """A line for each target whose answers were not all whole."""
        return [
            f"{cell.target}, {cell.load}: {cell.outcome.bad} bad answers, first: {cell.outcome.first_error}"
            for cell in self.cells
            if cell.outcome.bad or not cell.outcome.ok
        ]

    def bars(self) -> Iterator[str]:
        yield from self.bad()
        loads = {cell.load for cell in self.cells}
        for load, other, most in BARS:
            if {"tollway", other} <= self.ends.keys() and load in loads:
                ratio = self.of("tollway", load, lambda c: c.cpu_us) / self.of(other, load, lambda c: c.cpu_us)
                verdict = "within" if ratio <= most else "OVER"
                yield f"budget, {LOADS[load].title}: {ratio:.2f}x {other}, {verdict} {most}x"


def rows(figures: Figures) -> Iterator[tuple[str, str, Callable[[str], float]]]:
    """Title, format, and the figure of a target."""
    loads = {cell.load for cell in figures.cells}

    def cpu(load: str) -> Callable[[str], float]:
        return lambda target: figures.of(target, load, lambda c: c.cpu_us)

    for load, what in (
        ("json", "request, 2 KB"),
        ("json-32k", "request, 32 KB"),
        ("json-400k", "request, 400 KB"),
        ("burst", "stream of 66 events in one write"),
        ("paced", "event, one each 10 ms in 64 streams"),
    ):
        if load in loads:
            yield f"CPU us per {what}", ".0f" if load != "paced" else ".1f", cpu(load)
    if "json" in loads:
        yield "requests/s on one core", ",.0f", lambda t: figures.of(t, "json", lambda c: c.outcome.rps)
    if "single" in loads:
        yield "p50 ms, one connection", ".2f", lambda t: figures.of(t, "single", lambda c: c.outcome.p50) / 1e3
        yield "p99 ms, one connection", ".2f", lambda t: figures.of(t, "single", lambda c: c.outcome.p99) / 1e3
    yield "memory, idle, MiB", ".0f", lambda t: figures.ends[t].idle_mib
    yield "memory, most behind a load, MiB", ".0f", lambda t: max(c.memory_mib for c in figures.cells if c.target == t)
    yield "memory, at rest behind all loads, MiB", ".0f", lambda t: figures.ends[t].rest_mib
    yield "seconds to ready", ".2f", lambda t: figures.ends[t].ready_s


def markdown(figures: Figures, *, rounds: int) -> str:
    """The table, one column a target, then Tollway's ratio to each of the others, then how it was measured."""
    names = list(figures.ends)
    others = [name for name in names if name != "tollway"] if "tollway" in names else []
    head = ["", *names, *(f"Tollway / {other}" for other in others)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for title, form, figure in rows(figures):
        cells = [format(figure(name), form) for name in names]
        cells += [f"{figure('tollway') / figure(other):.2f}" for other in others]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    if "raw" in others and any(cell.load == "single" for cell in figures.cells):
        ours, bare = (figures.of(name, "single", lambda c: c.outcome.p99) for name in ("tollway", "raw"))
        lines += ["", f"Added p99 at one connection, against the raw proxy: {(ours - bare) / 1e3:.2f} ms."]
    lines += ["", f"Medians of {rounds} rounds, targets in turn, one core each. Python {platform.python_version()}."]
    return "\n".join(lines)


def write_into_readme(readme: Path, table: str) -> None:
    """Replace what stands between the markers. Raises ValueError when they are missing."""
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{readme} has no {START} ... {END}")
    readme.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
