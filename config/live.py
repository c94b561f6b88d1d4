"""Live: a holder of the current snapshot, swapped whole. A request keeps the one it began with."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Live(Generic[T]):
    """`current` is read by requests; `swap` is called by whoever watches the store."""

    __slots__ = ("current",)

    def __init__(self, value: T) -> None:
        self.current = value

    def swap(self, value: T) -> None:
        self.current = value
