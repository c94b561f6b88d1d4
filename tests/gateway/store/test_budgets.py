"""Budgets and their periods: each period is a balance of its own, made once, and never reset; on every engine."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update
from tollway.config.budget import DAY_MS, BudgetKind, Period
from tollway.gateway.store import Store, audits, budgets, changes, charges, groups, leases, notices, tokens, users
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.leases import BalanceKind, Subject
from tollway.gateway.store.notices import NoticeKind
from tollway.gateway.store.records import ChargeRecord, GroupRow
from tollway.gateway.store.schema import budget_periods
from tollway.gateway.store.schema import users as users_table

pytestmark = pytest.mark.anyio

NOON = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
MIDNIGHT = NOON + DAY_MS // 2
HOUR = DAY_MS // 24


async def daily(store: Store, amount: int = 1000, soft_percent: int = 80, now_ms: int = NOON) -> int:
    return await budgets.put(
        store, BudgetKind.GROUP, "vip", Period.DAILY, amount=amount, soft_percent=soft_percent, now_ms=now_ms
    )


async def begun(store: Store, budget_id: int, now_ms: int = NOON) -> Subject:
    period = await budgets.begin(store, budget_id, now_ms)
    assert period is not None
    return Subject(BalanceKind.BUDGET, period.id)


async def spend(store: Store, period: Subject, quota: int, *, number: int = 1, holder: str = "h") -> None:
    """A charge that another process's lease pays."""
    if number == 1:
        await leases.join(store, holder, host="", now_ms=NOON)
    await leases.take(store, holder, period, need=quota, extra=0)
    record = ChargeRecord(NOON, 0, quota, budgets=(period.id,))
    assert await charges.flush(store, Batch(holder, number - 1, number, (record,)), NOON)


async def balances(store: Store, now_ms: int = NOON) -> list[tuple[int, int, int]]:
    """Amount, what remains with what is leased, what is used: of every current period."""
    found = await budgets.current(store, now_ms)
    return [(each.amount, each.remain_quota, each.used_quota) for each in found.values()]


async def test_a_period_is_leased_and_charged_as_a_balance_is(store: Store) -> None:
    period = await begun(store, await daily(store))
    assert await leases.take(store, "h", period, need=200, extra=10_000) == leases.LeaseState(300, 700, 0)
    await spend(store, period, 500)
    assert await balances(store) == [(1000, 500, 500)]
    assert await leases.amounts(store, "h") == {period: 300}
    assert await audits.balances(store) == []
    assert (await leases.give_back(store, "h", period, 300)).left == 500
    assert await audits.balances(store) == []


async def test_a_hundred_who_begin_a_period_at_once_begin_one(store: Store) -> None:
    budget_id = await daily(store)
    found = await asyncio.gather(*(budgets.begin(store, budget_id, NOON + number) for number in range(100)))
    assert len({period.id for period in found if period is not None}) == 1
    assert await balances(store) == [(1000, 1000, 0)]


async def test_a_clock_that_is_wrong_resets_nothing(store: Store) -> None:
    budget_id = await daily(store)
    today = await begun(store, budget_id, MIDNIGHT - HOUR // 2)
    await spend(store, today, 1000)
    tomorrow = await begun(store, budget_id, MIDNIGHT + HOUR // 2)
    assert tomorrow != today
    await spend(store, tomorrow, 600, number=2)
    assert await begun(store, budget_id, MIDNIGHT - HOUR // 2) == today  # stepped back by an hour
    assert await balances(store, MIDNIGHT - 1) == [(1000, 0, 1000)]
    assert await begun(store, budget_id, MIDNIGHT) == tomorrow
    assert await balances(store, MIDNIGHT) == [(1000, 400, 600)]
    assert await audits.balances(store) == []


@pytest.mark.parametrize(("amount", "left"), [(1500, 900), (700, 100), (500, -100)])
async def test_another_amount_leaves_spent_what_is_spent(store: Store, amount: int, left: int) -> None:
    period = await begun(store, await daily(store))
    await spend(store, period, 600)
    await leases.take(store, "other", period, need=50, extra=0)
    await daily(store, amount=amount)
    assert await balances(store) == [(amount, left, 600)]
    assert await leases.recalled(store, "other") == ((period,) if amount < 1000 else ())
    assert await audits.balances(store) == []


async def test_a_budget_that_is_taken_away_and_set_again_goes_on_where_it_stood(store: Store) -> None:
    budget_id = await daily(store)
    period = await begun(store, budget_id)
    await spend(store, period, 600)
    assert await budgets.remove(store, BudgetKind.GROUP, "vip", Period.DAILY, now_ms=NOON)
    assert not await budgets.remove(store, BudgetKind.GROUP, "vip", Period.DAILY, now_ms=NOON)
    assert await budgets.list_all(store) == ()
    assert await budgets.begin(store, budget_id, NOON) is None
    assert await daily(store) == budget_id
    assert await balances(store) == [(1000, 400, 600)]


async def test_two_who_set_the_same_budget_at_once_make_one(store: Store) -> None:
    ids = await asyncio.gather(*(daily(store, amount=1000 + number) for number in range(10)))
    assert len(set(ids)) == 1
    (budget,) = await budgets.list_all(store)
    assert budget.amount in range(1000, 1010)


async def test_names_are_told_apart_by_case_and_kind(store: Store) -> None:
    for subject in ("7", "vip", "VIP"):
        await budgets.put(store, BudgetKind.GROUP, subject, Period.WEEKLY, amount=1, soft_percent=0, now_ms=NOON)
    await budgets.put(store, BudgetKind.USER, "7", Period.WEEKLY, amount=1, soft_percent=0, now_ms=NOON)
    assert len(await budgets.list_all(store)) == 4
    assert {each.subject for each in await budgets.of_subjects(store, (), ())} == {"7", "vip", "VIP"}
    assert len(await budgets.of_subjects(store, (7, 8), (7,))) == 4


async def test_serving_processes_are_told_through_the_subject(store: Store) -> None:
    last = await changes.latest(store)
    for kind, subject in ((BudgetKind.USER, "5"), (BudgetKind.TOKEN, "6"), (BudgetKind.GROUP, "vip")):
        await budgets.put(store, kind, subject, Period.DAILY, amount=1, soft_percent=0, now_ms=NOON)
    found = await changes.since(store, last)
    assert [(change.kind, change.ref) for change in found] == [("user", 5), ("token", 6), ("group", 0)]


async def test_old_periods_are_forgotten_unless_somebody_holds_a_lease_of_them(store: Store) -> None:
    budget_id = await daily(store)
    old = [await begun(store, budget_id, NOON + day * DAY_MS) for day in (0, 1)]
    await leases.take(store, "h", old[1], need=10, extra=0)
    new = await begun(store, budget_id, NOON + 500 * DAY_MS)
    row = await store.all(select(budget_periods.c.id))
    assert sorted(each["id"] for each in row) == sorted((old[1].id, new.id))


async def test_a_crossing_is_found_once_somebody_has_spent_enough(store: Store) -> None:
    budget_id = await daily(store, soft_percent=80)
    period = await begun(store, budget_id)
    await spend(store, period, 799)
    assert await budgets.crossed(store, NOON) == []
    await spend(store, period, 1, number=2)
    ((budget, found),) = await budgets.crossed(store, NOON)
    assert (budget.id, found.id, found.used_quota, found.soft_limit) == (budget_id, period.id, 800, 800)
    assert len(await budgets.crossed(store, MIDNIGHT)) == 1  # what was charged last is seen after the end
    assert await budgets.crossed(store, MIDNIGHT + budgets.LATE_MS) == []  # it is over
    assert await claimed(store, budget_id, period.id, 800)
    assert await budgets.crossed(store, NOON) == []
    await daily(store, amount=2000)
    assert await budgets.crossed(store, NOON) == []
    await daily(store, amount=900)  # another limit, and crossed
    assert len(await budgets.crossed(store, NOON)) == 1
    await daily(store, amount=900, soft_percent=0)
    assert await budgets.crossed(store, NOON) == []


async def claimed(store: Store, about: int, occasion: int, level: int, *, most: int = 2, now_ms: int = NOON) -> bool:
    return await notices.claim(
        store, NoticeKind.BUDGET, about, occasion, level, most=most, since_ms=now_ms - HOUR, now_ms=now_ms
    )


async def test_of_many_who_claim_a_notice_one_gets_it(store: Store) -> None:
    found = await asyncio.gather(*(claimed(store, 1, 1, 80, most=100) for _ in range(20)))
    assert sorted(found) == [False] * 19 + [True]


async def test_no_more_notices_than_the_limit_are_sent(store: Store) -> None:
    assert [await claimed(store, 1, period, 80) for period in range(4)] == [True, True, False, False]
    assert await claimed(store, 2, 9, 80)  # about another
    assert [await claimed(store, 1, period, 80, now_ms=NOON + 2 * HOUR) for period in (3, 4)] == [False, True]


async def test_a_balance_is_low_once_after_each_grant(store: Store) -> None:
    user_id = await users.create(store, username="ada", quota=1000, now_ms=1)
    await users.create(store, username="eve", quota=10, now_ms=1)
    ids = (user_id,)
    await leases.take(store, "h", Subject(BalanceKind.USER, user_id), need=900, extra=0)
    assert await notices.low_balances(store, ids, 1001) == ()  # nothing was spent: it was granted so
    await store.change(update(users_table).where(users_table.c.id == user_id).values(request_count=1))
    assert await notices.low_balances(store, ids, 500) == ()  # what is leased is still there
    (low,) = await notices.low_balances(store, ids, 1001)
    assert (low.user_id, low.username, low.quota) == (user_id, "ada", 1000)
    for again in (True, False):
        assert again is await notices.claim(
            store, NoticeKind.BALANCE, user_id, low.grant_id, 0, most=2, since_ms=0, now_ms=NOON
        )
        assert await notices.low_balances(store, ids, 1001) == ()
    await users.add_quota(store, user_id, -1, now_ms=2)
    assert await notices.low_balances(store, ids, 1001) == ()
    await users.add_quota(store, user_id, 1, now_ms=2)
    assert len(await notices.low_balances(store, ids, 1001)) == 1


async def test_the_audit_sees_a_period_that_does_not_add_up(store: Store) -> None:
    period = await begun(store, await daily(store))
    await spend(store, period, 100)
    assert await audits.balances(store) == []
    await store.change(budget_periods.update().values(used_quota=101))
    (found,) = await audits.balances(store)
    assert (found.subject, found.expected, found.found) == (f"budget period {period.id}", 1000, 1001)


async def test_a_group_is_known_by_its_users_keys_and_ratio(store: Store, vault: object) -> None:
    from decimal import Decimal

    user_id = await users.create(store, username="ada", group="staff", now_ms=1)
    await tokens.create(store, vault, user_id=user_id, name="t", group="lab", now_ms=1)  # type: ignore[arg-type]
    await groups.put(store, GroupRow("vip", Decimal(1), ""), now_ms=1)
    known = [name for name in ("staff", "lab", "vip", "nobody") if await budgets.knows_group(store, name)]
    assert known == ["staff", "lab", "vip"]


async def test_subjects_are_named_as_people_call_them(store: Store) -> None:
    user_id = await users.create(store, username="ada", now_ms=1)
    for kind, subject in ((BudgetKind.USER, str(user_id)), (BudgetKind.USER, "999"), (BudgetKind.GROUP, "vip")):
        await budgets.put(store, kind, subject, Period.DAILY, amount=1, soft_percent=0, now_ms=NOON)
    found = await budgets.subjects_of(store, await budgets.list_all(store))
    assert list(found.values()) == ["user ada", "user 999", "group vip"]
    count = await store.one(select(func.count().label("n")).select_from(budget_periods))
    assert count is not None
    assert count["n"] == 0
