"""The README's examples run, in order, as a reader would paste them; and every layer has one."""

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "middleware"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"middleware/README.md, example {number}", "exec"), names)
    assert "charges" in names


def test_every_layer_has_an_example() -> None:
    layers = {path.stem for path in FOLDER.glob("*.py") if "Middleware:" in path.read_text(encoding="utf-8")}
    assert layers
    assert not {layer for layer in layers if f"tollway.middleware.{layer} import" not in README}
