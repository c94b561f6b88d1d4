"""Who takes whom for dead, and when."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import StoreLedger
from tollway.gateway.ledger.journal import Journal
from tollway.gateway.ledger.recovery import Recoverer
from tollway.gateway.ledger.upkeep import DEAD_AFTER_S, TIDY_EVERY_S, Upkeep
from tollway.gateway.ledger.watch import Watch
from tollway.gateway.notifier import Notifier
from tollway.gateway.store import Store, StoreError, leases

pytestmark = pytest.mark.anyio


class Looking:
    """The upkeep of one process, on a clock that only the test moves, and another process that it looks at."""

    def __init__(self, store: Store, journal: Journal, folder: Path) -> None:
        self.store = store
        self.now = 0.0
        ledger = StoreLedger(store, journal, holder="one", clock=lambda: self.now)
        options = Live(Options())
        recoverer = Recoverer(store, None, folder, "family", "i", options)
        self.upkeep = Upkeep(ledger, recoverer, Watch(ledger, options, Settings(), Notifier()), sync_every_s=1.0)

    async def go_on(self, seconds: float) -> None:
        """Look as often as is due meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now += TIDY_EVERY_S
            await self.upkeep.tidy()

    async def is_given_up(self) -> bool:
        other = await leases.find(self.store, "other")
        assert other is not None
        return other.expired


@pytest.fixture
async def looking(store: Store, tmp_path: Path) -> AsyncGenerator[Looking]:
    for holder in ("one", "other"):
        await leases.join(store, holder, host="", now_ms=1)
    journal = Journal.create(tmp_path, holder="one", installation="i", limit_bytes=1 << 24)
    looking = Looking(store, journal, tmp_path)
    await looking.go_on(TIDY_EVERY_S)
    yield looking
    journal.close()


async def test_who_is_silent_is_given_up(looking: Looking) -> None:
    await looking.go_on(DEAD_AFTER_S - TIDY_EVERY_S)
    assert not await looking.is_given_up()
    await looking.go_on(TIDY_EVERY_S)
    assert await looking.is_given_up()


async def test_who_could_not_be_heard_is_not_given_up(looking: Looking) -> None:
    """This process stood still, or so did the database: the other one had no chance to be heard meanwhile."""
    looking.now += 10 * DEAD_AFTER_S
    await looking.go_on(TIDY_EVERY_S)
    assert not await looking.is_given_up()
    await leases.beat(looking.store, "other")
    await looking.go_on(DEAD_AFTER_S)
    assert not await looking.is_given_up()
    await looking.go_on(TIDY_EVERY_S)
    assert await looking.is_given_up()


async def test_nobody_is_given_up_by_who_comes_back_to_a_database_that_was_away(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(store: Store) -> tuple[()]:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "suspects", away)
        for _ in range(100):
            with pytest.raises(StoreError):
                await looking.go_on(TIDY_EVERY_S)
    await looking.go_on(TIDY_EVERY_S)
    assert not await looking.is_given_up()
