"""Holds on quota in memory: never more than there is, and each ended once."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tollway.adapters.errors import InsufficientQuota
from tollway.config.pricing import Usage
from tollway.middleware.memory import Account, MemoryLedger
from tollway.middleware.state import Charge, Hold, Principal

from .inner import ALICE

pytestmark = pytest.mark.anyio


def charge_of(quota: int) -> Charge:
    return Charge(
        quota=quota,
        usage=Usage(),
        tariff=None,
        ending="completed",
        operation="chat_completions",
        model="gpt-4o",
        stream=False,
        status=200,
        started_at=0.0,
        duration=0.0,
        first_byte=None,
        request_id="",
        address="",
        principal=None,
        attempt=None,
    )


async def test_of_a_hundred_parallel_holds_only_those_that_the_balance_covers_succeed() -> None:
    ledger = MemoryLedger(users={1: 1000})
    go = asyncio.Event()

    async def request() -> bool:
        hold = await ledger.open(ALICE, "")
        await go.wait()
        try:
            await hold.reserve(100)
        except InsufficientQuota:
            return False
        return True

    requests = [asyncio.create_task(request()) for _ in range(100)]
    await asyncio.sleep(0)
    go.set()
    assert sum(await asyncio.gather(*requests)) == 10
    assert ledger.users[1].available == 0


@pytest.mark.parametrize(
    ("user", "token", "unlimited", "code"),
    [
        pytest.param(0, None, False, "insufficient_quota", id="the user has nothing left"),
        pytest.param(-5, None, False, "insufficient_quota", id="the user is in debt"),
        pytest.param(100, 0, False, "token_quota_exhausted", id="the key has nothing left"),
        pytest.param(0, 0, False, "insufficient_quota", id="neither has, and the user's is told"),
        pytest.param(0, 100, True, "insufficient_quota", id="an unlimited key of a user without a balance"),
    ],
)
async def test_no_hold_is_opened_when(user: int, token: int | None, unlimited: bool, code: str) -> None:
    ledger = MemoryLedger(users={1: user}, tokens={} if token is None else {1: token})
    with pytest.raises(InsufficientQuota) as caught:
        await ledger.open(replace(ALICE, unlimited=unlimited), "")
    assert (caught.value.status, caught.value.code) == (402, code)


async def test_a_user_that_is_not_known_has_nothing() -> None:
    with pytest.raises(InsufficientQuota):
        await MemoryLedger().open(ALICE, "")


@pytest.mark.parametrize(
    ("user", "token", "code"),
    [
        pytest.param(50, 100, "insufficient_quota", id="the user's balance is too small"),
        pytest.param(100, 50, "token_quota_exhausted", id="the key's quota is too small"),
    ],
)
async def test_a_refused_reservation_leaves_the_hold_as_it_was(user: int, token: int, code: str) -> None:
    ledger = MemoryLedger(users={1: user}, tokens={1: token})
    hold = await ledger.open(ALICE, "")
    await hold.reserve(20)
    with pytest.raises(InsufficientQuota) as caught:
        await hold.reserve(60)
    assert caught.value.code == code
    assert (ledger.users[1].held, ledger.tokens[1].held) == (20, 20)
    hold.release()
    assert (ledger.users[1].available, ledger.tokens[1].available) == (user, token)


async def test_a_reservation_is_a_total_and_never_shrinks() -> None:
    ledger = MemoryLedger(users={1: 100})
    hold = await ledger.open(ALICE, "")
    for quota in (40, 60, 30):
        await hold.reserve(quota)
    assert ledger.users[1].held == 60


@pytest.mark.parametrize(
    ("user", "tokens", "held", "available"),
    [
        pytest.param(100, {1: 70}, 0, 70, id="the key has less"),
        pytest.param(100, {1: 170}, 0, 100, id="the user has less"),
        pytest.param(100, {}, 0, 100, id="an unlimited key"),
        pytest.param(100, {1: 70}, 30, 70, id="what is held by itself counts"),
    ],
)
async def test_what_is_available_can_be_reserved_and_no_more(
    user: int, tokens: dict[int, int], held: int, available: int
) -> None:
    ledger = MemoryLedger(users={1: user}, tokens=tokens)
    hold, other = await ledger.open(ALICE, ""), await ledger.open(ALICE, "")
    await hold.reserve(held)
    assert hold.available() == available
    with pytest.raises(InsufficientQuota):
        await hold.reserve(available + 1)
    await hold.reserve(hold.available())
    assert other.available() == min(user - available, tokens.get(1, user) - available)


async def test_an_unlimited_key_counts_what_it_uses() -> None:
    ledger = MemoryLedger(users={1: 100})
    hold = await ledger.open(ALICE, "")
    await hold.reserve(80)
    await hold.settle(charge_of(70))
    assert (ledger.users[1].balance, ledger.tokens[1].balance) == (30, -70)


async def test_a_key_that_becomes_unlimited_is_no_longer_held_to_its_quota() -> None:
    ledger = MemoryLedger(users={1: 1000}, tokens={1: 10})
    hold = await ledger.open(replace(ALICE, unlimited=True), "")
    await hold.reserve(100)
    assert ledger.users[1].held == 100


async def test_a_charge_may_go_beyond_the_hold_and_is_recorded_once() -> None:
    records: list[Charge] = []
    ledger = MemoryLedger(users={1: 100}, record=records.append)
    hold = await ledger.open(ALICE, "")
    await hold.reserve(10)
    charge = charge_of(150)
    await hold.settle(charge)
    await hold.settle(charge)
    hold.release()
    await hold.reserve(50)
    assert records == [charge]
    assert (ledger.users[1].balance, ledger.users[1].held) == (-50, 0)


async def test_after_a_release_nothing_is_charged() -> None:
    records: list[Charge] = []
    ledger = MemoryLedger(users={1: 100}, record=records.append)
    hold = await ledger.open(ALICE, "")
    await hold.reserve(10)
    hold.release()
    hold.release()
    await hold.settle(charge_of(5))
    assert records == []
    assert ledger.users[1] == Account(100)


def run(step: object) -> None:
    """Run a coroutine of the ledger to its end: none of them ever waits."""
    with pytest.raises(StopIteration):
        step.send(None)  # type: ignore[attr-defined]


class Holds(RuleBasedStateMachine):
    """Requests of one user over two keys, against a ledger that is kept beside on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Charge] = []
        self.ledger = MemoryLedger(users={1: 1000}, tokens={1: 400}, record=self.records.append)
        self.open: list[tuple[int, Hold]] = []
        self.held: dict[int, int] = {}
        self.closed: list[Hold] = []
        self.charged = 0
        self.charges = 0

    @rule(token=st.sampled_from([1, 2]))
    def open_one(self, token: int) -> None:
        try:
            self.ledger.open(Principal(token_id=token, user_id=1), "").send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            self.open.append((token, done.value))
            self.held[id(done.value)] = 0
        except InsufficientQuota:
            assert self.ledger.users[1].available < 1 or self.ledger.tokens[token].available < 1

    @rule(at=st.integers(0, 9), quota=st.integers(0, 300))
    def reserve(self, at: int, quota: int) -> None:
        if not self.open:
            return
        _, hold = self.open[at % len(self.open)]
        before = self.ledger.users[1].available
        try:
            run(hold.reserve(quota))
        except InsufficientQuota:
            assert self.ledger.users[1].available == before
        else:
            self.held[id(hold)] = max(self.held[id(hold)], quota)
            # Only a charge beyond its hold leads below 0, never a reservation.
            assert self.ledger.users[1].available >= min(before, 0)

    @rule(at=st.integers(0, 9), quota=st.integers(0, 120), settle=st.booleans())
    def close(self, at: int, quota: int, settle: bool) -> None:
        if not self.open:
            return
        _, hold = self.open.pop(at % len(self.open))
        self.held.pop(id(hold))
        self.closed.append(hold)
        if settle:
            run(hold.settle(charge_of(quota)))
            self.charged += quota
            self.charges += 1
        else:
            hold.release()

    @rule(at=st.integers(0, 9), quota=st.integers(1, 120))
    def close_again(self, at: int, quota: int) -> None:
        if self.closed:
            hold = self.closed[at % len(self.closed)]
            run(hold.settle(charge_of(quota)))
            run(hold.reserve(quota))
            hold.release()

    @invariant()
    def the_books_agree(self) -> None:
        user = self.ledger.users[1]
        assert user.held == sum(self.held.values())
        assert user.balance == 1000 - self.charged
        assert sum(charge.quota for charge in self.records) == self.charged
        assert len(self.records) == self.charges
        for token, account in self.ledger.tokens.items():
            assert account.held == sum(self.held[id(hold)] for owner, hold in self.open if owner == token)


TestHolds = Holds.TestCase
TestHolds.settings = settings(derandomize=True, deadline=None, max_examples=60, stateful_step_count=40)
