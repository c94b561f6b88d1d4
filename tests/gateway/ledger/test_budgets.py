"""What ledgers spend of budgets: exactly, over several of them, in the period in which a request was admitted."""

import asyncio
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from tollway.adapters.errors import InsufficientQuota, Unavailable
from tollway.config.budget import DAY_MS, BudgetKind, Period, period_of
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import StoreLedger, open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.store import Store, budgets, charges, leases
from tollway.gateway.store import Unavailable as StoreUnavailable
from tollway.gateway.store.schema import budget_periods
from tollway.gateway.store.schema import budgets as budgets_table
from tollway.middleware.state import Principal

from tests.servers import ENGINES

from .ledgers import LedgerOf, charge, user
from .ledgers import request as any_request

pytestmark = pytest.mark.anyio
every_engine = pytest.mark.parametrize("engine_name", ENGINES, indirect=True)
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)

NOON = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
MIDNIGHT = NOON + DAY_MS // 2


@pytest.fixture
def ledger_of(ledger_of: LedgerOf) -> LedgerOf:
    """`ledger_of(name)`: a ledger of a process of its own, whose calendar stands at noon."""

    async def make(name: str) -> StoreLedger:
        ledger = await ledger_of(name)
        at(ledger, NOON)
        return ledger

    return make


def at(ledger: StoreLedger, now_ms: int) -> None:
    """Set the calendar of a process."""
    ledger.budgets.now_ms = lambda: now_ms


async def caller(store: Store, quota: int = 10**9, group: str = "vip") -> Principal:
    return await user(store, quota, group)


async def of_group(store: Store, amount: int, period: Period = Period.DAILY) -> int:
    return await budgets.put(store, BudgetKind.GROUP, "vip", period, amount=amount, soft_percent=0, now_ms=NOON)


async def of_user(store: Store, principal: Principal, amount: int, period: Period = Period.DAILY) -> int:
    subject = str(principal.user_id)
    return await budgets.put(store, BudgetKind.USER, subject, period, amount=amount, soft_percent=0, now_ms=NOON)


request = partial(any_request, refused_with="budget_exceeded")


async def used(store: Store, now_ms: int = NOON) -> dict[int, int]:
    return {id: period.used_quota for id, period in (await budgets.current(store, now_ms)).items()}


async def clean(store: Store, *ledgers: StoreLedger) -> bool:
    for ledger in ledgers:
        assert await ledger.flush()
    return (await audit(store, None, journal_folder(Path("nowhere")))).clean


@every_engine
async def test_a_hundred_at_once_on_a_budget_for_ten_over_two_processes(store: Store, ledger_of: LedgerOf) -> None:
    budget_id = await of_group(store, 1000)
    ledgers = [await ledger_of("a"), await ledger_of("b")]
    callers = [await caller(store) for _ in range(5)]
    served = await asyncio.gather(
        *(request(ledgers[number % 2], callers[number % 5], 100, 100, 0.01) for number in range(100))
    )
    assert sum(served) == 10
    assert await clean(store, *ledgers)
    assert await used(store) == {budget_id: 1000}


@every_engine
async def test_what_one_process_does_not_use_of_a_budget_another_gets(store: Store, ledger_of: LedgerOf) -> None:
    await of_group(store, 1000)
    one, other, principal = await ledger_of("a"), await ledger_of("b"), await caller(store)
    hold = await one.open(principal, "r")
    await hold.reserve(900)
    hold.release()
    assert await request(other, principal, 950, 950)
    assert not await request(one, principal, 100, 100)


@on_sqlite
@pytest.mark.timeout(240)
async def test_nobody_overspends_a_budget_in_hundreds_of_rounds(store: Store, ledger_of: LedgerOf) -> None:
    ledgers = [await ledger_of("a"), await ledger_of("b")]
    chance = random.Random(3)
    spent: dict[int, int] = {}

    async def one_round() -> None:
        estimate = chance.randint(1, 1000)
        principal = await caller(store, group="other")
        amount = chance.randint(1, 8 * estimate)
        budget_id = await of_user(store, principal, amount, chance.choice(list(Period)))
        for ledger in ledgers:
            ledger.changed([principal.user_id], [])
            await ledger.budgets.refresh()
        costs = [chance.randint(0, estimate) for _ in range(10)]
        served = await asyncio.gather(
            *(request(chance.choice(ledgers), principal, estimate, cost, chance.choice((0, 0.002))) for cost in costs)
        )
        spent[budget_id] = sum(cost for cost, done in zip(costs, served, strict=True) if done)
        assert spent[budget_id] <= amount

    for _ in range(3):
        await asyncio.gather(*(one_round() for _ in range(60)))
    assert await clean(store, *ledgers)
    assert {id: quota for id, quota in (await used(store)).items() if quota} == {k: v for k, v in spent.items() if v}


@on_sqlite
async def test_user_token_and_group_must_all_cover(store: Store, ledger_of: LedgerOf) -> None:
    principal = await caller(store)
    mine = await of_user(store, principal, 500)
    weekly = await of_user(store, principal, 800, Period.WEEKLY)
    group = await of_group(store, 10_000)
    key = await budgets.put(store, BudgetKind.TOKEN, "0", Period.MONTHLY, amount=900, soft_percent=0, now_ms=NOON)
    ledger = await ledger_of("a")
    assert await request(ledger, principal, 400, 400)
    hold = await ledger.open(principal, "r")
    with pytest.raises(InsufficientQuota, match=r"The daily budget of this user does not cover .* of \$0\.0002 left"):
        await hold.reserve(101)
    assert hold.available() == 100
    hold.release()
    assert await clean(store, ledger)
    assert await used(store) == dict.fromkeys((mine, weekly, group, key), 400)


@on_sqlite
async def test_the_balance_still_counts_beside_a_budget(store: Store, ledger_of: LedgerOf) -> None:
    await of_group(store, 10_000)
    ledger, principal = await ledger_of("a"), await caller(store, quota=50)
    hold = await ledger.open(principal, "r")
    with pytest.raises(InsufficientQuota) as refused:
        await hold.reserve(51)
    assert (refused.value.code, refused.value.retry_after) == ("insufficient_quota", None)
    assert hold.available() == 50


@on_sqlite
async def test_a_refusal_names_the_budget_and_says_when_it_begins_anew(store: Store, ledger_of: LedgerOf) -> None:
    await of_group(store, 100, Period.WEEKLY)
    ledger, principal = await ledger_of("a"), await caller(store)
    assert await request(ledger, principal, 100, 100)
    with pytest.raises(InsufficientQuota) as refused:
        await ledger.open(principal, "r")
    error = refused.value
    assert error.message == ("The weekly budget of the group vip is used up. It begins anew at 2026-11-23T00:00:00Z.")
    assert (error.status, error.code, error.retry_after) == (402, "budget_exceeded", 36 * 3600)


@every_engine
async def test_a_request_pays_out_of_the_period_in_which_it_was_admitted(store: Store, ledger_of: LedgerOf) -> None:
    budget_id = await of_group(store, 1000)
    ledger, principal = await ledger_of("a"), await caller(store)
    at(ledger, MIDNIGHT - 1)
    hold = await ledger.open(principal, "r")
    await hold.reserve(300)
    at(ledger, MIDNIGHT)
    assert await request(ledger, principal, 900, 700)
    await hold.reserve(400)  # tried again on a dearer channel
    await hold.settle(charge(principal, 350))
    assert await clean(store, ledger)
    assert await used(store, MIDNIGHT - 1) == {budget_id: 350}
    assert await used(store, MIDNIGHT) == {budget_id: 700}


@on_sqlite
async def test_a_new_period_has_its_whole_amount_and_a_clock_set_back_gives_nothing(
    store: Store, ledger_of: LedgerOf
) -> None:
    budget_id = await of_group(store, 1000)
    one, other, principal = await ledger_of("a"), await ledger_of("b"), await caller(store)
    assert await request(one, principal, 1000, 1000)
    assert not await request(one, principal, 1, 1)
    at(one, MIDNIGHT + 1)  # an hour ahead of the other
    assert await request(one, principal, 600, 600)
    at(other, MIDNIGHT - 3_599_999)
    assert not await request(other, principal, 1, 1)
    at(one, MIDNIGHT - 3_599_999)
    assert not await request(one, principal, 1, 1)
    for ledger in (one, other):
        at(ledger, MIDNIGHT + 2)
    assert await request(other, principal, 400, 400)
    assert not await request(one, principal, 1, 1)
    assert await clean(store, one, other)
    assert (await used(store, MIDNIGHT - 1), await used(store, MIDNIGHT)) == ({budget_id: 1000}, {budget_id: 1000})


@on_sqlite
async def test_what_was_leased_in_a_period_that_is_over_goes_back(store: Store, ledger_of: LedgerOf) -> None:
    await of_group(store, 1000)
    ledger, principal = await ledger_of("a"), await caller(store)
    assert await request(ledger, principal, 10, 10)
    assert await ledger.flush()
    at(ledger, MIDNIGHT)
    for purse in list(ledger.core.purses()):
        await ledger.give_back(purse)
    assert await leases.amounts(store, ledger.core.holder) == {}
    ledger.tidy(ledger.clock() + 1000, 600)
    assert ledger.core.budgets == {}
    assert (await audit(store, None, ledger.journal.folder)).clean


@on_sqlite
async def test_a_budget_takes_effect_and_goes_while_serving(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await caller(store)
    assert await request(ledger, principal, 100, 100)
    await of_group(store, 50)
    ledger.changed([], [])
    await ledger.budgets.refresh()
    assert not await request(ledger, principal, 100, 100)
    await of_group(store, 100)
    await asyncio.sleep(0.5)  # for so long a refusal is believed
    assert await request(ledger, principal, 100, 100)
    assert await budgets.remove(store, BudgetKind.GROUP, "vip", Period.DAILY, now_ms=NOON)
    assert not await request(ledger, principal, 100, 100)
    ledger.changed([], [])
    await ledger.budgets.refresh()
    assert not ledger.budgets
    assert await request(ledger, principal, 100, 100)


@on_sqlite
async def test_a_change_that_could_not_be_read_is_read_later(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await caller(store)
    await of_user(store, principal, 50)

    async def away(*arguments: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(budgets, "of_subjects", away)
        ledger.changed([principal.user_id], [])
        with pytest.raises(StoreUnavailable):
            await ledger.budgets.refresh()
    await ledger.budgets.refresh()
    assert not await request(ledger, principal, 51, 51)


@on_sqlite
async def test_a_period_that_cannot_begin_refuses_for_a_while_and_not_for_ever(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await of_group(store, 1000)
    ledger, principal = await ledger_of("a"), await caller(store)
    assert await request(ledger, principal, 100, 100)

    async def away(*arguments: object) -> None:
        raise StoreUnavailable("gone")

    at(ledger, MIDNIGHT)
    with monkeypatch.context() as patch:
        patch.setattr(budgets, "begin", away)
        with pytest.raises(Unavailable):
            await ledger.open(principal, "r")
        at(ledger, NOON)
        assert await request(ledger, principal, 100, 100)  # what is leased can be spent
    at(ledger, MIDNIGHT)
    assert await request(ledger, principal, 1000, 1000)


@on_sqlite
async def test_a_period_that_an_older_backup_does_not_have_begins_again(store: Store, ledger_of: LedgerOf) -> None:
    await of_group(store, 1000)
    ledger, principal = await ledger_of("a"), await caller(store)
    assert await request(ledger, principal, 1000, 1000)
    assert await ledger.flush()
    await store.change(delete(budget_periods))
    assert not await request(ledger, principal, 500, 500)
    assert await request(ledger, principal, 500, 500)


@on_sqlite
async def test_what_a_crash_has_left_is_charged_to_its_period(
    store: Store, tmp_path: Path, ledger_of: LedgerOf
) -> None:
    budget_id = await of_group(store, 1000)
    principal, settings = await caller(store), Settings(data_dir=tmp_path / "dead")
    options = Live(Options(charge_interrupted=True))
    with pytest.MonkeyPatch.context() as patch:

        async def away(*arguments: object, **options: object) -> None:
            raise StoreUnavailable("gone")

        patch.setattr(charges, "flush", away)
        async with open_ledger(store, settings, options) as dead:
            at(dead, NOON)
            assert await request(dead, principal, 100, 70)
            cut_off = await dead.open(principal, "r")
            await cut_off.reserve(200)
    assert await used(store) == {budget_id: 0}
    async with open_ledger(store, settings, options) as next_one:
        at(next_one, MIDNIGHT)
        assert await used(store) == {budget_id: 270}
        assert await clean(store, next_one)


@every_engine
async def test_a_budget_with_a_period_of_a_newer_version_refuses_what_it_covers(
    store: Store, ledger_of: LedgerOf, caplog: pytest.LogCaptureFixture
) -> None:
    covered, other = await caller(store), await caller(store, group="default")
    budget_id = await of_group(store, 10**6)
    await store.change(update(budgets_table).where(budgets_table.c.id == budget_id).values(period="hourly"))
    ledger = await ledger_of("one")
    with pytest.raises(Unavailable, match="The hourly budget of the group vip was set by a newer version"):
        await ledger.open(covered, "r")
    assert await request(ledger, other, 100, 50)
    await ledger.budgets.load()
    assert [message for message in caplog.messages if "'hourly'" in message] == [
        f"the period of budget {budget_id} is one that only a newer version knows, 'hourly': requests of group vip are "
        "refused until it is deleted or this version is the newer one"
    ]
    assert await budgets.remove(store, BudgetKind.GROUP, "vip", period_of("hourly"), now_ms=NOON)
    ledger.budgets.changed([], [])
    await ledger.budgets.refresh()
    assert await request(ledger, covered, 100, 50)


@on_sqlite
async def test_a_budget_of_a_kind_of_a_newer_version_limits_nobody_and_is_told_of_once(
    store: Store, ledger_of: LedgerOf, caplog: pytest.LogCaptureFixture
) -> None:
    principal = await caller(store)
    await store.change(
        update(budgets_table).where(budgets_table.c.id == await of_group(store, 10)).values(kind="model")
    )
    await of_user(store, principal, 100)
    ledger = await ledger_of("one")
    await ledger.budgets.load()
    assert await request(ledger, principal, 100, 100)
    assert not await request(ledger, principal, 1, 1)
    assert [message for message in caplog.messages if "newer" in message] == [
        "budget 1 is of a kind that only a newer version knows, 'model': it limits nobody here"
    ]
