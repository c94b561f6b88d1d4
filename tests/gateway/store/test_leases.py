"""Quota on its way between balances and processes: nothing appears, nothing disappears, nobody spends twice."""

import asyncio

import pytest
from sqlalchemy import func, insert, select
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, audits, leases, tokens, users
from tollway.gateway.store.leases import BalanceKind, LeaseState, Subject
from tollway.gateway.store.schema import leases as leases_table
from tollway.gateway.store.schema import users as users_table

pytestmark = pytest.mark.anyio


async def user(store: Store, quota: int) -> Subject:
    return Subject(BalanceKind.USER, await users.create(store, username=f"u{quota}", quota=quota, now_ms=1))


async def balance(store: Store, subject: Subject) -> int:
    row = await store.one(select(users_table.c.quota).where(users_table.c.id == subject.id))
    assert row is not None
    return row["quota"]


async def total(store: Store, subject: Subject) -> int:
    """Balance and leases."""
    row = await store.one(
        select(func.sum(leases_table.c.amount).label("n")).where(
            leases_table.c.kind == int(subject.kind), leases_table.c.subject == subject.id
        )
    )
    assert row is not None
    return await balance(store, subject) + int(row["n"] or 0)


async def test_a_lease_takes_what_is_needed_and_a_share_of_the_rest(store: Store) -> None:
    subject = await user(store, 1000)
    assert await leases.take(store, "a", subject, need=200, extra=10_000) == LeaseState(300, 700, 0)
    assert await leases.take(store, "a", subject, need=700, extra=10_000) == LeaseState(1000, 0, 0)
    assert await total(store, subject) == 1000


async def test_a_balance_that_lacks_gives_nothing_and_calls_the_others(store: Store) -> None:
    subject = await user(store, 100)
    await leases.take(store, "a", subject, need=60, extra=0)
    assert await leases.take(store, "b", subject, need=50, extra=0) == LeaseState(0, 40, 60)
    assert await leases.recalled(store, "a") == (subject,)
    assert await leases.recalled(store, "b") == ()
    assert await leases.give_back(store, "a", subject, 30) == LeaseState(30, 70, 0)
    assert await leases.recalled(store, "a") == ()
    assert await leases.take(store, "b", subject, need=50, extra=0) == LeaseState(50, 20, 0)


async def test_while_a_balance_lacks_something_nobody_keeps_what_he_does_not_use(store: Store) -> None:
    subject = await user(store, 100)
    await leases.take(store, "a", subject, need=60, extra=0)
    await leases.take(store, "b", subject, need=40, extra=0)
    await users.add_quota(store, subject.id, -100, now_ms=1)
    # Both give back what no request holds; what is held is free a moment later.
    assert await leases.give_back(store, "a", subject, 20) == LeaseState(40, -80, 0)
    assert await leases.give_back(store, "b", subject, 30) == LeaseState(10, -50, 0)
    assert await leases.recalled(store, "a") == (subject,) == await leases.recalled(store, "b")
    await users.add_quota(store, subject.id, 100, now_ms=1)
    await leases.give_back(store, "a", subject, 20)
    assert await leases.recalled(store, "a") == ()


async def test_looking_for_more_than_needed_calls_nobody(store: Store) -> None:
    subject = await user(store, 100)
    await leases.take(store, "a", subject, need=100, extra=0)
    assert await leases.take(store, "b", subject, need=0, extra=50) == LeaseState(0, 0, 0)
    assert await leases.recalled(store, "a") == ()


async def test_a_debt_is_paid_by_the_balance_when_the_lease_goes_back(store: Store) -> None:
    subject = await user(store, 100)
    await store.insert(insert(leases_table).values(holder="a", kind=int(subject.kind), subject=subject.id, amount=-15))
    assert await leases.give_back(store, "a", subject, -5) == LeaseState(-10, 95, 0)
    assert await leases.give_back(store, "a", subject, -10) == LeaseState(0, 85, 0)
    assert await leases.amounts(store, "a") == {}


async def test_what_others_have_taken_back_is_not_given_back_once_more(store: Store) -> None:
    subject = await user(store, 100)
    await leases.join(store, "a", host="one", now_ms=1)
    await leases.take(store, "a", subject, need=60, extra=0)
    (seen,) = await leases.suspects(store)
    assert await leases.expire(store, seen)
    assert await leases.give_back(store, "a", subject, 60) == LeaseState(0, 100, 0)
    # Before it hears of that, it takes anew; and stops for good.
    await leases.take(store, "a", subject, need=10, extra=0)
    assert await leases.give_back(store, "a", subject, 60) == LeaseState(0, 100, 0)
    await leases.take(store, "a", subject, need=20, extra=0)
    (seen,) = await leases.suspects(store)
    assert await leases.expire(store, seen)
    assert await balance(store, subject) == 100 == await total(store, subject)
    assert await leases.suspects(store) == ()


async def test_tokens_have_leases_of_their_own(store: Store, vault: Vault) -> None:
    owner = await user(store, 100)
    token_id, key = await tokens.create(store, vault, user_id=owner.id, name="t", remain_quota=40, now_ms=1)
    assert isinstance(key, Secret)
    subject = Subject(BalanceKind.TOKEN, token_id)
    assert await leases.take(store, "a", subject, need=40, extra=0) == LeaseState(40, 0, 0)
    (row,) = await tokens.by_ids(store, [token_id])
    assert row.remain_quota == 40  # what is leased is still the token's
    assert await balance(store, owner) == 100


async def test_nobody_leases_from_who_does_not_exist(store: Store) -> None:
    assert not (await leases.take(store, "a", Subject(BalanceKind.USER, 4711), need=1, extra=0)).exists


async def test_two_processes_never_take_the_same_quota(store: Store) -> None:
    subject = await user(store, 1000)
    taken = await asyncio.gather(
        *(leases.take(store, f"h{number % 4}", subject, need=100, extra=0) for number in range(20))
    )
    assert sum(1 for each in taken if each.leased >= 100) >= 10
    assert await balance(store, subject) == 0
    assert await total(store, subject) == 1000


async def test_what_is_given_and_taken_by_hand_is_noted_and_shown_whole(store: Store) -> None:
    subject = await user(store, 100)
    await leases.take(store, "a", subject, need=60, extra=0)
    assert await users.add_quota(store, subject.id, 50, now_ms=2) == 150
    assert await users.add_quota(store, subject.id, -20, now_ms=3) == 130
    shown = await users.by_id(store, subject.id)
    assert shown is not None
    assert shown.quota == 130
    assert await total(store, subject) == 130
    assert await audits.balances(store) == []
    assert await leases.recalled(store, "a") == (subject,)  # what was taken must not be spent from a lease


async def test_a_token_is_set_to_what_it_may_spend_in_all(store: Store, vault: Vault) -> None:
    owner = await user(store, 100)
    token_id, _ = await tokens.create(store, vault, user_id=owner.id, name="t", remain_quota=40, now_ms=1)
    await leases.take(store, "a", Subject(BalanceKind.TOKEN, token_id), need=30, extra=0)
    assert await tokens.update_token(store, token_id, {"remain_quota": 25}, now_ms=2)
    (row,) = await tokens.by_ids(store, [token_id])
    assert row.remain_quota == 25
    assert await audits.balances(store) == []


async def test_a_process_that_is_heard_of_is_not_taken_for_dead(store: Store) -> None:
    subject = await user(store, 100)
    await leases.join(store, "a", host="one", now_ms=1)
    await leases.take(store, "a", subject, need=60, extra=0)
    (seen,) = await leases.list_all(store)
    assert await leases.beat(store, "a")
    assert not await leases.expire(store, seen)
    assert await balance(store, subject) == 40


async def test_the_leases_of_the_dead_go_back_once(store: Store) -> None:
    subject = await user(store, 100)
    await leases.join(store, "a", host="one", now_ms=1)
    await leases.take(store, "a", subject, need=60, extra=0)
    (seen,) = await leases.list_all(store)
    done = await asyncio.gather(*(leases.expire(store, seen) for _ in range(3)))
    assert sorted(done) == [False, False, True]
    assert await balance(store, subject) == 100 == await total(store, subject)


async def test_who_was_taken_for_dead_is_told_so_once(store: Store) -> None:
    await leases.join(store, "a", host="one", now_ms=1)
    (seen,) = await leases.list_all(store)
    await leases.expire(store, seen)
    assert not await leases.beat(store, "a")
    assert await leases.beat(store, "a")


async def test_who_leaves_gives_everything_back(store: Store) -> None:
    one, other = await user(store, 100), await user(store, 200)
    await leases.join(store, "a", host="one", now_ms=1)
    await leases.take(store, "a", one, need=60, extra=0)
    await leases.take(store, "a", other, need=60, extra=0)
    await leases.leave(store, "a")
    assert (await balance(store, one), await balance(store, other)) == (100, 200)
    assert await leases.list_all(store) == ()


async def test_an_installation_has_one_name(store: Store) -> None:
    name = await leases.installation_id(store)
    assert len(name) == 32
    assert await leases.installation_id(store) == name
