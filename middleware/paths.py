"""Where a request comes from and where it goes, as the mounted app sees it."""

from msgspec import UNSET
from starlette.types import Scope

from ..adapters.operations import Operation, operation_at
from .state import state_of


def route_path(scope: Scope) -> str:
    """`scope["path"]` without the prefix that the app is mounted at (`root_path`, ASGI 3.0)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def operation_of(scope: Scope) -> Operation | None:
    """
    The operation that an HTTP request's path names; None for any other path.

    Looked up once a request, and once more behind each mount: a layer around the mounting app sees another path.
    """
    state = state_of(scope)
    operation = state.operation
    mount: str = scope.get("root_path", "")
    if operation is UNSET or mount != state.mount:
        state.mount = mount
        operation = state.operation = operation_at(route_path(scope)) if scope["type"] == "http" else None
    return operation


def relayed_operation(scope: Scope) -> Operation | None:
    """The operation that goes upstream, where a request asks for one with its method; layers pass any other request."""
    operation = operation_of(scope)
    if operation is None or not operation.relayed or scope["method"] != operation.method:
        return None
    return operation


def address_of(scope: Scope) -> str:
    """The client's address; "" when the server does not tell."""
    client = scope.get("client")
    return client[0] if client else ""
