"""Where a request goes and where it comes from, as the mounted app sees it."""

import pytest
from tollway.adapters.operations import BY_PATH, MODEL_GET, OPERATIONS, Operation
from tollway.middleware.paths import address_of, operation_of, route_path

from .inner import CHAT, Message, scope_of


@pytest.mark.parametrize(
    ("root_path", "path", "seen"),
    [
        pytest.param(None, "/v1/models", "/v1/models", id="a server that tells no root path"),
        pytest.param("", "/v1/models", "/v1/models", id="not mounted"),
        pytest.param("/llm", "/llm/v1/models", "/v1/models", id="mounted"),
        pytest.param("/a/b", "/a/b/v1/models", "/v1/models", id="mounted twice"),
        pytest.param("/llm", "/llm", "/", id="the mount's own address"),
        pytest.param("/llm", "/llm/", "/", id="the mount's own address with a slash"),
        pytest.param("/llm", "/llmx/v1/models", "/llmx/v1/models", id="another path that begins alike"),
        pytest.param("/llm", "/v1/models", "/v1/models", id="a proxy that takes the prefix away"),
        pytest.param("/llm", "/llm/llm/v1", "/llm/v1", id="the prefix is taken away once"),
        pytest.param("/LLM", "/llm/v1", "/llm/v1", id="capitals are told apart"),
        pytest.param("/ü", "/ü/v1", "/v1", id="letters beyond ASCII"),
    ],
)
def test_the_path_is_seen_without_the_mounts_prefix(root_path: str | None, path: str, seen: str) -> None:
    scope = scope_of(path) if root_path is None else scope_of(path) | {"root_path": root_path}
    assert route_path(scope) == seen


@pytest.mark.parametrize("root_path", ["", "/llm"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_found_by_its_path_below_any_prefix(operation: Operation, root_path: str) -> None:
    path = "/v1/models/gpt-4o" if operation is MODEL_GET else operation.path
    assert operation_of(scope_of(root_path + path) | {"root_path": root_path}) is operation


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/chat/completions/", "/v1//chat/completions", "/V1/chat/completions", "/v1/models/", ""]
)
def test_any_other_path_is_no_operation(path: str) -> None:
    assert operation_of(scope_of(path)) is None


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_only_http_requests_are_operations(kind: str) -> None:
    assert operation_of(scope_of() | {"type": kind}) is None


@pytest.mark.parametrize(
    ("path", "found"), [(CHAT.path, CHAT), ("/elsewhere", None)], ids=["an operation", "another path"]
)
def test_it_is_looked_up_once_a_request(path: str, found: object) -> None:
    scope = scope_of(path)
    assert operation_of(scope) is found
    scope["path"] = "/v1/embeddings"  # a router inside may rewrite what it is given
    assert operation_of(scope) is found
    assert operation_of(scope_of("/v1/embeddings")) is BY_PATH["/v1/embeddings"]


def test_behind_a_mount_it_is_looked_up_again() -> None:
    """A layer around the app that mounts another one has seen a path that names nothing, or something else."""
    scope = scope_of("/llm" + CHAT.path)
    assert operation_of(scope) is None
    scope["root_path"] = "/llm"
    assert operation_of(scope) is CHAT


@pytest.mark.parametrize(
    ("scope", "address"),
    [
        pytest.param({"client": ("192.0.2.7", 4711)}, "192.0.2.7", id="IPv4"),
        pytest.param({"client": ("2001:db8::1", 4711)}, "2001:db8::1", id="IPv6"),
        pytest.param({"client": ["192.0.2.7", 4711]}, "192.0.2.7", id="a list, as the specification writes it"),
        pytest.param({"client": None}, "", id="a UNIX socket"),
        pytest.param({}, "", id="a server that does not tell"),
    ],
)
def test_the_address_is_the_clients(scope: Message, address: str) -> None:
    assert address_of(scope) == address
