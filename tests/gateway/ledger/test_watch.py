"""Who is told of what runs low: once a crossing, over all processes, and not more often than the limit."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tollway.adapters.errors import InsufficientQuota
from tollway.config.budget import BudgetKind, Period
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import StoreLedger, open_ledger
from tollway.gateway.ledger.watch import Watch
from tollway.gateway.notifier import Notifier
from tollway.gateway.store import Store, budgets, notices, users
from tollway.gateway.store import Unavailable as StoreUnavailable
from tollway.middleware.state import Principal

from tests.servers import ENGINES

from .ledgers import charge, user

pytestmark = pytest.mark.anyio
every_engine = pytest.mark.parametrize("engine_name", ENGINES, indirect=True)
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)

NOON = 1_795_262_400_000
DAY = 86_400_000
THRESHOLD = 100


class Node:
    """A process: its ledger, and its watch, which looks when it is told to (and every two seconds by itself)."""

    def __init__(self, ledger: StoreLedger, settings: Settings, options: Live[Options]) -> None:
        self.ledger = ledger
        self.ledger.budgets.now_ms = lambda: self.now_ms
        self.now_ms = NOON
        self.watch = Watch(ledger, options, settings, Notifier())

    async def spend(self, principal: Principal, quota: int) -> None:
        hold = await self.ledger.open(principal, "r")
        await hold.reserve(quota)
        await hold.settle(charge(principal, quota))
        assert await self.ledger.flush()


NodeOf = Callable[[str], Awaitable[Node]]


@pytest.fixture
async def node_of(store: Store, tmp_path: Path) -> AsyncGenerator[NodeOf]:
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Node:
            settings = Settings(data_dir=tmp_path / name)
            options = Live(Options(quota_remind_threshold=THRESHOLD))
            return Node(await stack.enter_async_context(open_ledger(store, settings, options)), settings, options)

        yield make


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was told until now, on whichever process."""
    caplog.set_level(logging.WARNING, "tollway.notices")
    return lambda: [
        record.getMessage().partition(" {")[0] for record in caplog.records if record.name == "tollway.notices"
    ]


async def budget(store: Store, amount: int, now_ms: int = NOON) -> None:
    await budgets.put(store, BudgetKind.GROUP, "vip", Period.DAILY, amount=amount, soft_percent=80, now_ms=now_ms)


@every_engine
async def test_a_crossing_is_told_once_over_two_processes(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    await budget(store, 1_000_000)
    nodes = [await node_of("a"), await node_of("b")]
    principal = await user(store, 10**9, "vip")
    await nodes[0].spend(principal, 799_999)
    await asyncio.gather(*(node.watch.look() for node in nodes * 5))
    assert told() == []
    await nodes[1].spend(principal, 1)
    await asyncio.gather(*(node.watch.look() for node in nodes * 5))
    assert told() == [
        "budget_soft_limit: The daily budget of group vip has used $1.60 of $2.00; "
        "it begins anew at 2026-11-22T00:00:00Z."
    ]
    await nodes[0].spend(principal, 200_000)
    await asyncio.gather(*(node.watch.look() for node in nodes))
    assert len(told()) == 1
    for node in nodes:
        node.now_ms = NOON + DAY
    await nodes[0].spend(principal, 900_000)
    await asyncio.gather(*(node.watch.look() for node in nodes))
    assert len(told()) == 2


@on_sqlite
async def test_a_higher_amount_makes_another_crossing(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    await budget(store, 1000)
    node, principal = await node_of("a"), await user(store, 10**9, "vip")
    await node.spend(principal, 900)
    await node.watch.look()
    await budget(store, 2000)
    await node.watch.look()
    assert len(told()) == 1
    await node.spend(principal, 700)
    await node.watch.look()
    assert len(told()) == 2


@every_engine
async def test_a_crossing_that_is_charged_at_a_periods_end_is_told_in_the_next(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    await budget(store, 1000)
    node, principal = await node_of("a"), await user(store, 10**9, "vip")
    await node.ledger.budgets.load()
    node.now_ms = NOON + DAY // 2 - 1
    hold = await node.ledger.open(principal, "r")
    await hold.reserve(900)
    node.now_ms += 10 * 60_000  # an answer that outlives the day that it is charged to
    await hold.settle(charge(principal, 900))
    assert await node.ledger.flush()
    await asyncio.gather(*(node.watch.look() for _ in range(3)))
    assert [line.rpartition("; ")[2] for line in told()] == ["it began anew at 2026-11-22T00:00:00Z."]


@on_sqlite
async def test_what_was_crossed_long_ago_is_not_told(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    await budget(store, 1000)
    node, principal = await node_of("a"), await user(store, 10**9, "vip")
    await node.ledger.budgets.load()
    await node.spend(principal, 900)
    node.now_ms = NOON + DAY
    await node.watch.look()
    assert told() == []


@on_sqlite
async def test_not_more_is_told_than_the_limit_allows(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    node, principal = await node_of("a"), await user(store, 10**9, "vip")
    await budget(store, 1000)
    await node.ledger.budgets.load()
    await node.spend(principal, 1000)
    for amount in range(1000, 900, -20):
        await budget(store, amount)
        await node.watch.look()
    assert len(told()) == 2


@every_engine
async def test_a_low_balance_is_told_once_after_each_top_up(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    nodes = [await node_of("a"), await node_of("b")]
    principal = await user(store, 1000, "vip")
    await nodes[0].spend(principal, 900)
    await asyncio.gather(*(node.watch.look() for node in nodes))
    assert told() == []  # exactly the threshold is left
    for node in nodes:
        await node.spend(principal, 1)
    await asyncio.gather(*(node.watch.look() for node in nodes * 5))
    assert len(told()) == 1
    assert told()[0].endswith(" has $0.000196 left, less than $0.0002.")
    await nodes[0].spend(principal, 1)
    await nodes[0].watch.look()
    assert len(told()) == 1
    await users.add_quota(store, principal.user_id, 500, now_ms=2)
    await nodes[0].spend(principal, 550)
    await asyncio.gather(*(node.watch.look() for node in nodes))
    assert len(told()) == 2


@every_engine
async def test_a_low_balance_is_told_although_who_wrote_the_last_charge_is_gone(
    store: Store, tmp_path: Path, node_of: NodeOf, told: Callable[[], list[str]]
) -> None:
    principal, never = await user(store, 1000, "vip"), await user(store, 0, "vip")
    settings, options = Settings(data_dir=tmp_path / "gone"), Live(Options())
    async with open_ledger(store, settings, options) as ledger:
        await Node(ledger, settings, options).spend(principal, 1000)
    node = await node_of("next")
    for _ in range(2):
        for each in (principal, never):
            with pytest.raises(InsufficientQuota):
                await node.spend(each, 1)
        await node.watch.look()
    assert len(told()) == 1  # who never had anything has not run low
    assert told()[0].endswith(" has $0.00 left, less than $0.0002.")


@on_sqlite
async def test_what_could_not_be_looked_for_is_looked_for_again(
    store: Store, node_of: NodeOf, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, principal = await node_of("a"), await user(store, 1000, "vip")

    async def away(*arguments: object) -> None:
        raise StoreUnavailable("gone")

    await node.spend(principal, 950)
    with monkeypatch.context() as patch:
        patch.setattr(notices, "low_balances", away)
        with pytest.raises(StoreUnavailable):
            await node.watch.look()
    assert told() == []
    await node.watch.look()
    assert len(told()) == 1


@on_sqlite
async def test_without_budgets_and_threshold_the_database_is_not_asked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, options = Settings(data_dir=tmp_path / "a"), Live(Options())
    async with open_ledger(store, settings, options) as ledger:
        node = Node(ledger, settings, options)
        await node.spend(await user(store, 1000, "vip"), 999)
        monkeypatch.setattr(notices, "low_balances", None)
        monkeypatch.setattr(budgets, "crossed", None)
        await node.watch.look()
        assert ledger.active == set()
