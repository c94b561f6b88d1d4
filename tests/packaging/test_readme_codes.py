"""The main README lists every code that a client may be told."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tollway.adapters import errors

ROOT = Path(__file__).parents[2]
TREE = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
ONLY_GIVEN = {"forbidden", "invalid_request", "not_found"}
"""Codes of classes whose every use gives a code of its own."""


def codes() -> Iterator[str]:
    for name in TREE:
        yield vars(errors)[name].code
    for folder in ("adapters", "middleware", "gateway"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TREE:
                    given = {each.arg: each.value for each in node.keywords}.get("code")
                    if isinstance(given, ast.Constant):
                        yield str(given.value)


@pytest.mark.parametrize("code", sorted(set(codes()) - ONLY_GIVEN))
def test_the_code_is_listed(code: str) -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| status | code | when |") :]
    assert f"`{code}`" in table[: table.index("\n\n")] or code.startswith("upstream_")
