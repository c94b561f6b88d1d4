"""The examples of the adapters' README run as they stand, from top to bottom."""

import re
import textwrap
from pathlib import Path

import pytest
import tollway.adapters.exchange

README = Path(tollway.adapters.exchange.__file__).with_name("README.md")
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
    modules = {path.name for path in README.parent.glob("*.py")} - {"__init__.py", "shapes.py"}
    assert not {name for name in modules if f"`{name}`" not in text}
