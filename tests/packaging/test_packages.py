"""The wheel holds what the checkout holds: packages, data files, and one version."""

import re
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("config", "adapters", "middleware", "gateway")


@pytest.fixture(scope="module")
def pyproject(checkout: Path) -> dict[str, Any]:
    return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_list_is_the_folders_that_hold_python(pyproject: dict[str, Any], checkout: Path) -> None:
    folders = {path.parent.relative_to(checkout) for folder in FOLDERS for path in (checkout / folder).rglob("*.py")}
    assert pyproject["tool"]["setuptools"]["packages"] == sorted(".".join(("tollway", *f.parts)) for f in folders)


def test_every_folder_that_holds_python_is_a_package_and_no_namespace(checkout: Path) -> None:
    folders = {path.parent for folder in FOLDERS for path in (checkout / folder).rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path, clean_copy: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("tollway/") for name in archive.namelist() if ".dist-info/" not in name}
    there = {p.relative_to(clean_copy).as_posix() for f in FOLDERS for p in (clean_copy / f).rglob("*") if p.is_file()}
    not_shipped = {path for path in there if path.endswith("README.md")}
    assert packed == there - not_shipped


@pytest.mark.parametrize("folder", FOLDERS)
def test_type_checkers_are_told_that_the_package_is_typed(folder: str, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"tollway/{folder}/py.typed" in archive.namelist()


def test_the_version_stands_in_one_place(pyproject: dict[str, Any], checkout: Path) -> None:
    written = pyproject["project"]["version"]
    assert version("tollway") == written
    sources = [path for folder in FOLDERS for path in (checkout / folder).rglob("*.py")]
    elsewhere = re.compile(rf"""["']v?{re.escape(written)}["']|tollway/{re.escape(written)}""")
    assert not [str(path) for path in sources if elsewhere.search(path.read_text(encoding="utf-8"))]
