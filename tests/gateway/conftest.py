"""A fresh database for each test, on every engine that `tests/servers.py` has. A module may name its own engines."""

from collections.abc import AsyncGenerator

import pytest
from tollway.gateway.store import Store


@pytest.fixture
async def store(database_url: str) -> AsyncGenerator[Store]:
    store = Store(database_url)
    await store.connect()
    yield store
    await store.close()
