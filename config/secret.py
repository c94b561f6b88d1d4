"""Secret: a string that cannot be printed, logged, pickled or serialised by accident."""

import hmac
from typing import NoReturn

MASK = "********"


class Secret:
    """
    A key, password or signing secret. `reveal()` is the only way to the text.

    `str`, `repr`, `format` and f-strings give a mask; `orjson`, `json` and `pickle` refuse it, because an
    unexpected type is an error there and a leaked key is not.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself, to be used at the moment of sending or hashing and not kept."""
        return self.__text

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self.__text.encode("utf-8", "surrogatepass"), other.__text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: store it encrypted")
