"""Keys and their owners, as a dictionary."""

from collections.abc import Mapping

from ..state import Principal


class MemoryTokens:
    """`MemoryTokens({"sk-alice": Principal(token_id=1, user_id=1)})`."""

    def __init__(self, tokens: Mapping[str, Principal]) -> None:
        self._tokens = dict(tokens)

    def find(self, key: str) -> Principal | None:
        return self._tokens.get(key)
