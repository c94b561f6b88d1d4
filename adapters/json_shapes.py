"""JSON from outside, taken for what it is: a value of another shape than hoped for counts as an empty one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

EMPTY: Mapping[str, Any] = MappingProxyType({})


def object_of(value: object) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else EMPTY


def list_of(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def text_of(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
