"""The version, which stands in one place: the package's own metadata."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def version() -> str:
    try:
        return installed("tollway")
    except PackageNotFoundError:
        return "unknown"
