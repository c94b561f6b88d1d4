"""Rules of the house that a reviewer should not have to look for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("config", "adapters", "middleware", "gateway")
MOST_LINES_IN_A_FILE = 400
MOST_LINES_IN_A_FUNCTION = 100
# Each request passes through these; `logging` costs more than a layer, so lines go to a queue instead.
RELAY_PATH = ("middleware/", "gateway/relay/", "gateway/upstream/")
MAY_LOG = {"middleware/error_envelope.py": "writes the traceback of a failure that nobody foresaw, once"}


@pytest.fixture(scope="module")
def sources(checkout: Path) -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in sorted((checkout / folder).rglob("*.py"))]
    assert paths
    return {path.relative_to(checkout).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_layer_is_a_base_http_middleware(sources: dict[str, str]) -> None:
    """It runs a task group for each request, buffers streams and hides context variables."""
    assert not [path for path, text in sources.items() if "BaseHTTPMiddleware" in text]


def test_nothing_on_the_relay_path_imports_logging(sources: dict[str, str]) -> None:
    on_path = {path: text for path, text in sources.items() if path.startswith(RELAY_PATH) and path not in MAY_LOG}
    assert not [path for path, text in on_path.items() if "logging" in imported(ast.parse(text))]


def test_no_file_holds_two_subjects(sources: dict[str, str]) -> None:
    lines = {path: text.count("\n") for path, text in sources.items()}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES_IN_A_FILE}


def test_no_function_is_longer_than_a_page_or_two(sources: dict[str, str]) -> None:
    long: dict[str, int] = {}
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > MOST_LINES_IN_A_FUNCTION:
                    long[f"{path}:{node.name}"] = size
    assert not long


@pytest.mark.parametrize(
    "mark",
    [r"\bTODO\b", r"\bFIXME\b", r"\bXXX\b", r"\bNotImplementedError\b", r"\butils?\.py\b"],
    ids=["no TODO", "no FIXME", "no XXX", "no stub", "no utils module"],
)
def test_nothing_is_left_for_later(mark: str, sources: dict[str, str]) -> None:
    assert not [path for path, text in sources.items() if re.search(mark, text) or re.search(mark, path)]


def test_every_module_says_what_it_is(sources: dict[str, str]) -> None:
    silent = [path for path, text in sources.items() if text.strip() and not ast.get_docstring(ast.parse(text))]
    assert not silent


def test_every_link_between_documents_leads_somewhere(checkout: Path) -> None:
    documents = [checkout / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "tests/RESULTS.md")]
    documents += [checkout / folder / "README.md" for folder in ("adapters", "middleware", "deploy")]
    links = [
        (document, link.partition("#")[0])
        for document in documents
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert links
    assert not [(str(document), link) for document, link in links if link and not (document.parent / link).exists()]


def test_the_readme_shows_what_a_request_costs(checkout: Path) -> None:
    text = (checkout / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- bench:start -->")[2].partition("<!-- bench:end -->")[0]
    assert "CPU us per request" in table
    assert "Tollway / raw" in table
