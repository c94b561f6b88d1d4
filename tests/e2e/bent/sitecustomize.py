"""
Bends a process from inside, before anything of it runs: Python imports this wherever PYTHONPATH names its folder.

    BENT_CLOCK      a file with the seconds by which the wall clock is off; may change at any time
    BENT_CONSTANTS  module:NAME=number, whole or not, separated by spaces
    BENT_SIGNAL     module:function or module:Class.method, a file, and the name of a signal: whoever calls the function
                    while the file is there gets the signal, before it has done anything; a number in the file is of
                    calls that do not count
    BENT_PHASES     a file, and module:function of some coroutines, separated by spaces: the file always has the name
                    of the one that was entered last and has not been left
"""

import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any


def bend(name: str, bent: Callable[[Any], Any]) -> None:
    """Put `bent(what it was)` in the place of "module:a.b"."""
    module, _, path = name.partition(":")
    owner: Any = import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, last, bent(getattr(owner, last)))


def bend_clock(file: Path) -> None:
    time_ns = time.time_ns

    def bent_ns() -> int:
        return time_ns() + int(file.read_text() or 0) * 1_000_000_000

    time.time_ns = bent_ns
    time.time = lambda: bent_ns() / 1e9


def phase(name: str, file: int) -> Callable[[Any], Any]:
    def bent(work: Any) -> Any:
        @wraps(work)
        async def told(*arguments: Any, **options: Any) -> Any:
            before = os.pread(file, 20, 0)
            os.pwrite(file, name.ljust(20).encode(), 0)
            try:
                return await work(*arguments, **options)
            finally:
                os.pwrite(file, before.ljust(20), 0)

        return told

    return bent


def signalled(file: Path, number: int) -> Callable[[Any], Any]:
    calls = count()

    def bent(work: Any) -> Any:
        @wraps(work)
        def called(*arguments: Any, **options: Any) -> Any:
            if file.exists() and next(calls) >= int(file.read_text() or 0):
                os.kill(os.getpid(), number)
            return work(*arguments, **options)

        return called

    return bent


if path := os.environ.get("BENT_CLOCK"):
    bend_clock(Path(path))
for setting in os.environ.get("BENT_CONSTANTS", "").split():
    constant, _, number = setting.partition("=")
    bend(constant, lambda _, number=number: int(number) if number.isdigit() else float(number))
if setting := os.environ.get("BENT_SIGNAL"):
    function, there, signal_name = setting.split()
    bend(function, signalled(Path(there), signal.Signals[signal_name]))
if phases := os.environ.get("BENT_PHASES", "").split():
    written = os.open(phases[0], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    for each in phases[1:]:
        bend(each, phase(each.rpartition(":")[2], written))
