"""Imports point one way, layers do not know each other, and nothing goes round in a circle."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOTS = ("tollway.gateway", "tollway.middleware", "tollway.adapters", "tollway.config")
# What layers may meet in; the packages, and tools that single layers have beside them, are no layers.
SHARED_BY_LAYERS = re.compile(
    r"tollway\.middleware\.(state|ports|paths|deadline|metrics|reservation|counting|routing(\..+)?|memory(\..+)?)"
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOTS, cache_dir=None)


def test_imports_point_from_gateway_down_to_config(checkout: Path) -> None:
    # In a process of its own: it configures logging for the whole of it, and would silence what other tests listen to.
    command = [sys.executable, "-c", "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_layers_meet_only_in_state_and_ports(graph: grimp.ImportGraph) -> None:
    layers = {m for m in graph.find_children("tollway.middleware") if not SHARED_BY_LAYERS.fullmatch(m)}
    assert "tollway.middleware.metering" in layers
    siblings = {(layer, seen) for layer in layers for seen in graph.find_modules_directly_imported_by(layer) & layers}
    assert not siblings


def test_no_module_imports_itself_by_way_of_others() -> None:
    # Types alone may point at each other: those imports never run.
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=True, cache_dir=None)
    # Raises CycleError, which names the circle.
    TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()


def foreign_imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def canonical(distribution: str) -> str:
    """A distribution's name as the registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_package_that_is_imported_is_a_declared_dependency(checkout: Path) -> None:
    """A library that only a test tool brings along is missing on the user's machine."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[\[<>=;~! ]", row, maxsplit=1)[0].lower().replace("_", "-") for row in project["dependencies"]
    }
    sources = [path for root in ROOTS for path in (checkout / root.removeprefix("tollway.")).rglob("*.py")]
    imported = {name for path in sources for name in foreign_imports(path)} - sys.stdlib_module_names
    providers = packages_distributions()
    undeclared = {name for name in imported if not {canonical(d) for d in providers.get(name, [])} & declared}
    assert not undeclared


@pytest.mark.parametrize(
    ("library", "home"),
    [("databases", "gateway/store"), ("httpx", "gateway/upstream"), ("httpx2", "gateway/upstream")],
    ids=["only the store imports databases", "only upstream imports httpx", "only upstream imports httpx2"],
)
def test_a_library_with_traps_is_used_in_one_place(library: str, home: str, checkout: Path) -> None:
    sources = [path for root in ROOTS for path in (checkout / root.removeprefix("tollway.")).rglob("*.py")]
    users = {str(path.relative_to(checkout)) for path in sources if library in foreign_imports(path)}
    assert not {user for user in users if not user.startswith(home)}
