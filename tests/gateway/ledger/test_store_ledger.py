"""The ledger of a process, and two of them, on a real database: what a request may spend, waits for, and is told."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tollway.adapters.errors import GatewayError, InsufficientQuota, Unavailable
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.store import Store, StoreError, charges, leases, logs, users
from tollway.gateway.store import Unavailable as StoreUnavailable
from tollway.gateway.store.leases import BalanceKind, Subject
from tollway.middleware.state import Principal

from .ledgers import LedgerOf, charge, left, request, user

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)]


async def test_what_is_charged_leaves_the_balance(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    assert await request(ledger, principal, 300, 120)
    assert ledger.pending == 1
    assert await ledger.flush()
    assert ledger.pending == 0
    assert await left(store, principal) == 880
    assert await logs.count(store, logs.LogFilter(user_id=principal.user_id)) == 1


async def test_a_charge_is_written_down_however_long_its_address(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    hold = await ledger.open(principal, "r")
    await hold.reserve(300)
    await hold.settle(replace(charge(principal, 100), address="é" * 60_000))
    hold.release()
    assert await ledger.flush()
    (row,) = await logs.find(store, logs.LogFilter(user_id=principal.user_id))
    assert (row.quota, len(row.ip)) == (100, 64)
    assert not ledger.core.users[principal.user_id].owed
    assert (await audit(store, None, ledger.journal.folder)).clean


async def test_an_empty_balance_is_refused_and_a_top_up_helps_at_once(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 0)
    with pytest.raises(InsufficientQuota, match="used up"):
        await ledger.open(principal, "r")
    await users.add_quota(store, principal.user_id, 10, now_ms=2)
    ledger.changed([principal.user_id], [])
    assert await request(ledger, principal, 10, 10)


async def test_a_hold_that_the_balance_does_not_cover_says_what_there_is(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 700)
    hold = await ledger.open(principal, "r")
    with pytest.raises(InsufficientQuota, match=r"may cost \$0\.001402, of \$0\.0014 left"):
        await hold.reserve(701)
    assert hold.available() == 700
    await hold.reserve(hold.available())
    assert hold.available() == 700
    hold.release()


async def test_refusals_do_not_ask_the_database_each_time(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 0)
    asked = 0
    take = leases.take

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        return await take(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(leases, "take", counted)
    for _ in range(50):
        assert not await request(ledger, principal, 10, 10)
    assert asked == 1


async def test_quota_that_another_process_does_not_use_comes_back_in_time(store: Store, ledger_of: LedgerOf) -> None:
    one, other, principal = await ledger_of("a"), await ledger_of("b"), await user(store, 1000)
    hold = await one.open(principal, "r")
    await hold.reserve(900)
    hold.release()
    began = time.monotonic()
    assert await request(other, principal, 950, 950)
    assert time.monotonic() - began < 2
    assert not await request(one, principal, 100, 100)


async def test_quota_that_another_process_uses_is_not_waited_for_for_ever(store: Store, ledger_of: LedgerOf) -> None:
    one, other, principal = await ledger_of("a"), await ledger_of("b"), await user(store, 1000)
    hold = await one.open(principal, "r")
    await hold.reserve(900)
    began = time.monotonic()
    assert not await request(other, principal, 500, 500)
    assert 1.5 < time.monotonic() - began < 4
    hold.release()


@pytest.mark.timeout(240)
async def test_nobody_overspends_in_a_thousand_rounds(store: Store, ledger_of: LedgerOf) -> None:
    ledgers = [await ledger_of("a"), await ledger_of("b")]
    chance = random.Random(3)

    async def one_round() -> None:
        estimate = chance.randint(1, 1000)
        balance = chance.randint(0, 5 * estimate)
        principal = await user(store, balance)
        exceeding = chance.randint(0, 12)  # at most one of them costs more than was held for it
        costs = [chance.randint(0, estimate) for _ in range(6)]
        if exceeding < len(costs):
            costs[exceeding] = 2 * estimate
        served = await asyncio.gather(
            *(
                request(chance.choice(ledgers), principal, estimate, cost, chance.choice((0, 0, 0.002)))
                for cost in costs
            )
        )
        spent = sum(cost for cost, done in zip(costs, served, strict=True) if done)
        overshoot = estimate if exceeding < len(costs) else 0
        assert spent <= balance + overshoot
        results.append((principal, balance - spent))

    results: list[tuple[Principal, int]] = []
    for _ in range(5):
        await asyncio.gather(*(one_round() for _ in range(200)))
    for ledger in ledgers:
        assert await ledger.flush()
    for principal, rest in results:
        assert await left(store, principal) == rest
    assert (await audit(store, None, journal_folder(Path("nowhere")))).clean


async def test_an_unanswered_move_is_found_out(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    take = leases.take

    async def unheard(*arguments: object, **options: object) -> None:
        await take(*arguments, **options)  # type: ignore[arg-type]
        raise StoreUnavailable("the connection is gone")

    monkeypatch.setattr(leases, "take", unheard)
    with pytest.raises(Unavailable):
        await ledger.open(principal, "r")
    monkeypatch.setattr(leases, "take", take)
    await ledger.resolve()
    assert ledger.core.user(principal.user_id).leased > 0
    assert await request(ledger, principal, 1000, 1000)


async def test_an_unanswered_batch_is_charged_once(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    flush = charges.flush

    async def unheard(*arguments: object, **options: object) -> None:
        await flush(*arguments, **options)  # type: ignore[arg-type]
        raise StoreUnavailable("the connection is gone")

    monkeypatch.setattr(charges, "flush", unheard)
    assert await request(ledger, principal, 300, 120)
    assert not await ledger.flush()
    assert ledger.failing
    monkeypatch.setattr(charges, "flush", flush)
    assert await ledger.flush()
    assert not ledger.failing
    await ledger.resolve()
    assert await left(store, principal) == 880
    assert (await audit(store, None, ledger.journal.folder)).clean
    assert ledger.core.user(principal.user_id).free == ledger.core.user(principal.user_id).leased


async def test_a_client_that_leaves_while_quota_is_fetched_leaves_nothing_behind(
    store: Store, ledger_of: LedgerOf
) -> None:
    ledger = await ledger_of("a")
    for _ in range(20):
        principal = await user(store, 1000)
        task = asyncio.create_task(request(ledger, principal, 500, 500, 1))
        for _ in range(random.randint(0, 12)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ledger.rest()
        purse = ledger.core.user(principal.user_id)
        assert purse.held == 0
        amounts = await leases.amounts(store, ledger.core.holder)
        assert purse.leased == amounts.get(Subject(BalanceKind.USER, principal.user_id), 0)


async def test_idle_leases_go_back(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    assert await request(ledger, principal, 300, 100)
    await ledger.flush()
    await ledger.give_back(ledger.core.user(principal.user_id))
    assert await leases.amounts(store, ledger.core.holder) == {}
    ledger.tidy(ledger.clock() + 1000, 600)
    assert principal.user_id not in ledger.core.users


async def test_without_a_sign_from_the_database_new_work_is_refused_in_the_end(
    store: Store, tmp_path: Path, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    hold = await ledger.open(principal, "r")
    await hold.reserve(100)

    async def away(*arguments: object, **options: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(leases, "beat", away)
    later = ledger.clock() + 61
    ledger.clock = lambda: later
    with pytest.raises(Unavailable) as refused:
        await ledger.open(principal, "r")
    assert refused.value.status == 503
    await hold.settle(charge(principal, 100))  # who was served is charged all the same
    monkeypatch.undo()
    assert await ledger.flush()
    assert await left(store, principal) == 900


async def test_who_was_taken_for_dead_begins_again(store: Store, ledger_of: LedgerOf) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    assert await request(ledger, principal, 300, 100)
    (seen,) = [each for each in await leases.list_all(store) if each.id == ledger.core.holder]
    assert await leases.expire(store, seen)
    await ledger.beat()
    assert await request(ledger, principal, 300, 100)
    assert await ledger.flush()
    assert await left(store, principal) == 800
    assert (await audit(store, None, ledger.journal.folder)).clean


async def test_who_does_not_hear_that_it_was_taken_for_dead_spends_nothing_it_has_lost(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    assert await request(ledger, principal, 300, 100)
    assert await ledger.flush()
    seen = await leases.find(store, ledger.core.holder)
    assert seen is not None
    beat = leases.beat

    async def unheard(*arguments: Any) -> None:
        await beat(*arguments)
        raise StoreUnavailable("the connection is gone")

    monkeypatch.setattr(leases, "beat", unheard)
    assert await leases.expire(store, seen)
    with pytest.raises(StoreUnavailable):
        await ledger.beat()
    monkeypatch.setattr(leases, "beat", beat)
    await ledger.beat()
    assert ledger.core.user(principal.user_id).leased == 0
    assert await users.add_quota(store, principal.user_id, -900, now_ms=2) == 0
    assert not await request(ledger, principal, 300, 100)


async def test_a_full_journal_refuses_new_work_and_charges_what_is_under_way(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, principal = await ledger_of("a"), await user(store, 1000)
    hold = await ledger.open(principal, "r")
    await hold.reserve(100)
    monkeypatch.setattr(type(ledger.journal), "full", True)
    with pytest.raises(GatewayError) as refused:
        await ledger.open(principal, "r")
    assert refused.value.status == 503
    await hold.settle(charge(principal, 100))
    monkeypatch.undo()
    assert await ledger.flush()
    assert await left(store, principal) == 900


async def test_the_end_gives_everything_back_and_leaves_no_file(store: Store, tmp_path: Path) -> None:
    principal = await user(store, 1000)
    settings = Settings(data_dir=tmp_path / "a")
    async with open_ledger(store, settings, Live(Options())) as ledger:
        assert await request(ledger, principal, 300, 100)
    assert await left(store, principal) == 900
    assert await leases.list_all(store) == ()
    assert list(journal_folder(settings.data_dir).glob("*.journal")) == []


async def test_a_charge_is_on_the_disk_before_it_is_acknowledged_where_that_is_asked_for(
    store: Store, tmp_path: Path
) -> None:
    principal = await user(store, 10_000)
    settings = Settings(data_dir=tmp_path / "a", journal_fsync_ms=0)
    async with open_ledger(store, settings, Live(Options())) as ledger:
        await asyncio.gather(*(request(ledger, principal, 100, 100) for _ in range(20)))
        assert ledger.journal.synced_sequence == 20


async def test_a_journal_of_another_installation_is_left_alone(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    principal = await user(store, 1000)
    settings = Settings(data_dir=tmp_path / "a")
    ledger_context = open_ledger(store, settings, Live(Options()))
    ledger = await ledger_context.__aenter__()
    assert await request(ledger, principal, 300, 100)

    async def away(*arguments: object, **options: object) -> None:
        raise StoreError("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charges, "flush", away)
        await ledger_context.__aexit__(None, None, None)
    files = {path.name: path.read_bytes() for path in journal_folder(settings.data_dir).glob("*.journal")}
    assert files
    with pytest.MonkeyPatch.context() as patch:

        async def another(*arguments: object) -> str:
            return "f" * 32

        patch.setattr(leases, "installation_id", another)
        async with open_ledger(store, settings, Live(Options())):
            pass
    assert {path.name: path.read_bytes() for path in journal_folder(settings.data_dir).glob("*.journal")} == files
    assert "installation" in caplog.text
    async with open_ledger(store, settings, Live(Options())):
        pass
    assert await left(store, principal) == 900


async def test_a_clock_that_is_set_by_an_hour_changes_nothing(
    store: Store, ledger_of: LedgerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, principal = await ledger_of("a"), await ledger_of("b"), await user(store, 1000)
    now, now_ns = time.time, time.time_ns
    for offset in (3600, -7200):
        monkeypatch.setattr(time, "time", lambda offset=offset: now() + offset)
        monkeypatch.setattr(time, "time_ns", lambda offset=offset: now_ns() + offset * 1_000_000_000)
        for ledger in (one, other):
            await ledger.beat()
            assert await request(ledger, principal, 100, 100)
            assert await ledger.flush()
    assert await left(store, principal) == 600
    assert not [each for each in await leases.list_all(store) if each.expired]
    assert (await audit(store, None, one.journal.folder)).clean
