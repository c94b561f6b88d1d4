"""
The ledger's core against a model: several processes on one bank, whose answers get lost, and who die at any moment.

After every step each balance adds up and nobody has spent more than there is; at the end every charge that was
acknowledged is written once, and nothing is stuck.
"""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tollway.gateway.ledger.core import Core
from tollway.gateway.ledger.purse import Purse
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.leases import SHARE, BalanceKind, LeaseState, Subject
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.sums import sums_of

pytestmark = pytest.mark.timeout(300)

USERS = (1, 2)
TOKEN = 7
LOST_BEFORE, LOST_AFTER, HEARD = "lost before", "lost after", "heard"
outcomes = st.sampled_from([LOST_BEFORE, LOST_AFTER, HEARD, HEARD, HEARD])


@dataclass
class Bank:
    """What `store.leases` and `store.charges` do, in memory."""

    balances: dict[Subject, int] = field(default_factory=dict)
    leases: dict[tuple[str, Subject], int] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    used: Counter[Subject] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)

    def take(self, holder: str, subject: Subject, need: int, extra: int) -> LeaseState:
        left = self.balances[subject]
        amount = need + min(extra, (left - need) // SHARE) if left >= need else 0
        if amount > 0:
            self.balances[subject] -= amount
            self.leases[holder, subject] = self.leases.get((holder, subject), 0) + amount
        return LeaseState(self.leases.get((holder, subject), 0), self.balances[subject], 0)

    def give_back(self, holder: str, subject: Subject, amount: int) -> LeaseState:
        leased = self.leases.get((holder, subject), 0)
        moved = sorted((0, amount, leased))[1] if (amount > 0) == (leased > 0) else 0
        self.balances[subject] += moved
        self.leases[holder, subject] = leased - moved
        return LeaseState(leased - moved, self.balances[subject], 0)

    def flush(self, batch: Batch) -> bool:
        if self.cursors[batch.holder] == batch.upto:
            return False
        assert self.cursors[batch.holder] == batch.after
        self.cursors[batch.holder] = batch.upto
        sums = sums_of(batch.records)
        for kind, amounts in ((BalanceKind.USER, sums.user_leases), (BalanceKind.TOKEN, sums.token_leases)):
            for id, quota in amounts.items():
                subject = Subject(kind, id)
                self.used[subject] += quota
                self.leases[batch.holder, subject] = self.leases.get((batch.holder, subject), 0) - quota
        self.written.update(record.request_id for record in batch.records)
        return True

    def return_all(self, holder: str) -> None:
        for (owner, subject), amount in list(self.leases.items()):
            if owner == holder:
                self.balances[subject] += amount
                del self.leases[owner, subject]

    def leased(self, subject: Subject) -> int:
        return sum(amount for (_, whose), amount in self.leases.items() if whose == subject)


@dataclass
class Process:
    core: Core
    journal: list[ChargeRecord] = field(default_factory=list)
    trusted: bool = True
    now: float = 0.0


@dataclass(eq=False)
class Held:
    process: Process
    user: Purse
    token: Purse
    quota: int
    limited: bool


class LedgerModel(RuleBasedStateMachine):
    holds: Bundle[Held] = Bundle("holds")

    @initialize()
    def begin(self) -> None:
        self.bank = Bank()
        self.granted: Counter[Subject] = Counter()
        self.slack: Counter[Subject] = Counter()
        """What may have been spent beyond what there is: dearer than expected, or by one who was taken for dead."""
        self.living: list[Process] = []
        self.dead: list[Process] = []
        self.open: list[Held] = []
        self.acknowledged: list[str] = []
        self.names = 0
        for subject in self.subjects():
            self.bank.balances[subject] = 0
        self.start()

    def subjects(self) -> list[Subject]:
        return [*(Subject(BalanceKind.USER, id) for id in USERS), Subject(BalanceKind.TOKEN, TOKEN)]

    @rule()
    def start(self) -> None:
        if len(self.living) < 3:
            self.names += 1
            name = f"p{self.names}"
            self.bank.cursors[name] = 0
            self.living.append(Process(Core(name)))

    @rule(which=st.integers(0, 2), amount=st.integers(-50, 1000))
    def grant(self, which: int, amount: int) -> None:
        subject = self.subjects()[which]
        self.bank.balances[subject] += amount
        self.granted[subject] += amount
        if amount < 0:  # what is leased may be spent all the same
            self.slack[subject] -= amount

    @rule(
        target=holds,
        which=st.integers(0, 5),
        user=st.sampled_from(USERS),
        quota=st.integers(1, 200),
        limited=st.booleans(),
        heard=st.lists(outcomes, min_size=2, max_size=2),
    )
    def request(self, which: int, user: int, quota: int, limited: bool, heard: list[str]) -> Held:
        process = self.living[which % len(self.living)]
        core = process.core
        purses = core.user(user), core.token(TOKEN, limited=limited)
        for purse, outcome in zip(purses, heard, strict=True):
            if process.trusted and not purse.covers(quota):
                self.take(process, purse, quota, outcome)
        held = Held(process, *purses, 0, limited)
        if process.trusted and all(purse.covers(quota) for purse in purses):
            for purse in purses:
                purse.held += quota
            held.quota = quota
            self.open.append(held)
        return held

    def take(self, process: Process, purse: Purse, quota: int, outcome: str) -> None:
        process.now += 0.5
        need = quota - purse.free
        extra = purse.ask(need, process.now)
        purse.doubtful = True
        if outcome != LOST_BEFORE:
            taken = self.bank.take(process.core.holder, purse.subject, need, extra)
            if outcome == HEARD:
                purse.agree(taken)

    @rule(held=consumes(holds), cost=st.integers(0, 250))
    def settle(self, held: Held, cost: int) -> None:
        if held not in self.open:
            return
        self.close(held)
        process = held.process
        name = f"{process.core.holder}-{len(process.journal) + 1}"
        record = ChargeRecord(
            1, held.user.subject.id, cost, token_id=TOKEN, unlimited=not held.limited, request_id=name
        )
        process.core.owe(record)
        process.journal.append(record)
        process.core.waiting.append(record)
        self.acknowledged.append(name)
        for purse in (held.user, held.token):
            self.slack[purse.subject] += max(0, cost - held.quota)

    @rule(held=consumes(holds))
    def release(self, held: Held) -> None:
        if held in self.open:
            self.close(held)

    def close(self, held: Held) -> None:
        self.open.remove(held)
        held.user.held -= held.quota
        held.token.held -= held.quota

    @rule(which=st.integers(0, 5), most=st.integers(1, 4), outcome=outcomes)
    def flush(self, which: int, most: int, outcome: str) -> None:
        process = self.living[which % len(self.living)]
        batch = process.core.next_batch(most)
        if batch is not None and outcome != LOST_BEFORE:
            new = self.bank.flush(batch)
            if outcome == HEARD:
                process.core.wrote(batch, now_known=not new)

    @rule(which=st.integers(0, 5), purse=st.integers(0, 2), outcome=outcomes)
    def give_back(self, which: int, purse: int, outcome: str) -> None:
        process = self.living[which % len(self.living)]
        found = process.core.purse(self.subjects()[purse])
        if found is None or not (amount := found.begin_return()):
            return
        found.doubtful = True
        if outcome != LOST_BEFORE:
            taken = self.bank.give_back(process.core.holder, found.subject, amount)
            if outcome == HEARD:
                found.agree(taken)

    @rule(which=st.integers(0, 5))
    def resolve(self, which: int) -> None:
        self.learn(self.living[which % len(self.living)])

    def learn(self, process: Process) -> None:
        for purse in process.core.purses():
            if purse.doubtful:
                purse.leased = self.bank.leases.get((process.core.holder, purse.subject), 0)
                purse.doubtful = False

    @rule(which=st.integers(0, 5))
    def take_for_dead(self, which: int) -> None:
        """It was only slow: it does not trust its leases any more when others take them back."""
        process = self.living[which % len(self.living)]
        process.trusted = False
        for purse in process.core.purses():
            self.slack[purse.subject] += purse.held + purse.owed
        self.bank.return_all(process.core.holder)

    @rule(which=st.integers(0, 5))
    def beat(self, which: int) -> None:
        process = self.living[which % len(self.living)]
        if not process.trusted:
            process.core.lost_leases()
            self.learn(process)
            process.trusted = True

    @rule(which=st.integers(0, 5))
    def die(self, which: int) -> None:
        if len(self.living) > 1:
            process = self.living.pop(which % len(self.living))
            self.open = [held for held in self.open if held.process is not process]
            self.dead.append(process)

    @rule(most=st.integers(1, 5), whole=st.booleans())
    def recover(self, most: int, whole: bool) -> None:
        """Replay a journal; or begin to, and die."""
        if not self.dead:
            return
        process = self.dead[0]
        name = process.core.holder
        while rest := process.journal[self.bank.cursors[name] :][:most]:
            after = self.bank.cursors[name]
            self.bank.flush(Batch(name, after, after + len(rest), tuple(rest)))
            if not whole:
                return
        self.bank.return_all(name)
        self.dead.remove(process)

    @invariant()
    def every_balance_adds_up(self) -> None:
        for subject in self.subjects():
            assert self.granted[subject] == (
                self.bank.balances[subject] + self.bank.leased(subject) + self.bank.used[subject]
            )

    @invariant()
    def nobody_spends_more_than_there_is(self) -> None:
        for subject in self.subjects():
            spent = self.bank.used[subject]
            for process in [*self.living, *self.dead]:
                rest = process.journal[self.bank.cursors[process.core.holder] :]
                sums = sums_of(rest)
                spent += (sums.user_leases if subject.kind is BalanceKind.USER else sums.token_leases).get(
                    subject.id, 0
                )
            for held in self.open:
                if subject == held.user.subject or (subject == held.token.subject and held.limited):
                    spent += held.quota
            assert spent <= max(self.granted[subject], 0) + self.slack[subject]

    @invariant()
    def nobody_believes_to_have_more_than_the_bank_says(self) -> None:
        for process in self.living:
            if process.trusted:
                name = process.core.holder
                unwritten = sums_of(process.journal[self.bank.cursors[name] :])
                for purse in process.core.purses():
                    owed = (
                        unwritten.user_leases if purse.subject.kind is BalanceKind.USER else unwritten.token_leases
                    ).get(purse.subject.id, 0)
                    lease = self.bank.leases.get((name, purse.subject), 0)
                    assert purse.leased - purse.owed <= lease - owed
                    if (
                        not purse.doubtful
                        and len(process.core.waiting) == len(process.journal) - self.bank.cursors[name]
                    ):
                        assert purse.leased == lease

    def teardown(self) -> None:
        if not hasattr(self, "bank"):
            return
        for held in list(self.open):
            self.close(held)
        for process in self.living:
            while (batch := process.core.next_batch(1000)) is not None:
                process.core.wrote(batch, now_known=not self.bank.flush(batch))
            self.bank.return_all(process.core.holder)
        while self.dead:
            self.recover(1000, True)
        assert self.bank.written == Counter(self.acknowledged)
        for subject in self.subjects():
            assert self.bank.leased(subject) == 0
        self.every_balance_adds_up()


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(
    max_examples=2_000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
