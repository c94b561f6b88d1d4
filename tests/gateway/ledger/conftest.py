"""Ledgers on the test's database."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import StoreLedger, open_ledger
from tollway.gateway.store import Store

from .ledgers import LedgerOf


@pytest.fixture
async def ledger_of(store: Store, tmp_path: Path) -> AsyncGenerator[LedgerOf]:
    """`ledger_of(name)`: a ledger with its upkeep, as a process of its own would have it."""
    async with AsyncExitStack() as stack:

        async def make(name: str) -> StoreLedger:
            settings = Settings(data_dir=tmp_path / name)
            return await stack.enter_async_context(open_ledger(store, settings, Live(Options())))

        yield make
