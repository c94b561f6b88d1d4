"""The examples of the adapters' README run as they stand, from top to bottom."""

import re
import textwrap
from pathlib import Path

import pytest
import tollway.adapters.errors

README = Path(tollway.adapters.errors.__file__).with_name("README.md")
EXAMPLE = re.compile(r"^( *)```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def test_the_examples_run() -> None:
    examples = [textwrap.dedent(code) for _, code in EXAMPLE.findall(README.read_text(encoding="utf-8"))]
    assert len(examples) == 5
    names: dict[str, object] = {}
    for number, code in enumerate(examples, 1):
        exec(compile(code, f"{README.name}, example {number}", "exec"), names)
    assert names["chat"]


SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if EXAMPLE.search(section)
}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_is_tried_by_itself(name: str) -> None:
    names: dict[str, object] = {}
    for _, code in EXAMPLE.findall(SECTIONS[name]):
        exec(compile(textwrap.dedent(code), f"{README.name}, {name}", "exec"), names)


def test_every_module_is_in_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    head, *tables = re.split(r"^\| `(\w+)/` \| says \|$", text.partition("\n## ")[0], flags=re.MULTILINE)
    says = {"": head, **dict(zip(tables[::2], tables[1::2], strict=True))}
    modules = {path.relative_to(README.parent) for path in README.parent.rglob("*.py") if path.name != "__init__.py"}
    # One of a single provider says by its name what it is.
    of_one_provider = {path for path in modules if path.parent.name == "providers"} - {
        Path("providers/provider.py"),
        Path("providers/registry.py"),
    }
    silent = {path for path in modules if f"`{path.name}`" not in says.get(str(path.parent).strip("."), "")}
    assert not silent - of_one_provider
