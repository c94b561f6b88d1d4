"""The README's examples run, in order, as a reader would paste them; and every layer has one."""

import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "middleware"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"middleware/README.md, example {number}", "exec"), names)
    assert "charges" in names


SECTIONS = {
    section.partition("\n")[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in re.split(r"^## ", README, flags=re.MULTILINE)
}
APP, *_ = SECTIONS.values()


@pytest.mark.parametrize("name", [name for name, blocks in SECTIONS.items() if blocks])
def test_each_layer_is_tried_by_itself(name: str) -> None:
    """Below the app that all share: whoever wants one layer pastes its example only."""
    names: dict[str, Any] = {}
    for block in [*APP, *SECTIONS[name]]:
        exec(compile(block, f"middleware/README.md, {name}", "exec"), names)


def test_every_layer_has_an_example() -> None:
    layers = {path.stem for path in FOLDER.glob("*.py") if "Middleware:" in path.read_text(encoding="utf-8")}
    assert layers
    assert not {layer for layer in layers if f"tollway.middleware.{layer} import" not in README}
