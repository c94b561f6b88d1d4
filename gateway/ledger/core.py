"""
The ledger without its surroundings: purses, holds, and the charges that wait to be written.

It does no I/O and knows no clock: moves of leases and batches of charges go out and come back as values, so every state
between two of them can be tested. `store_ledger.py` puts the store, the journal and the time around it.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from ..store.batch import Batch, fitted
from ..store.leases import BalanceKind, Subject
from ..store.records import ChargeRecord
from .purse import Purse


class Core:
    """The purses of one holder, and its charges that are in the journal but not in the database."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.users: dict[int, Purse] = {}
        self.tokens: dict[int, Purse] = {}
        self.budgets: dict[int, Purse] = {}
        """By the period of a budget."""
        self.flushed = 0
        """The number of the last charge that the database has."""
        self.waiting: deque[ChargeRecord] = deque()
        """The charges after it, in their order."""
        self._batch: Batch | None = None
        """The batch that was given out last, until it is known to be written."""

    def user(self, id: int) -> Purse:
        purse = self.users.get(id)
        if purse is None:
            purse = self.users[id] = Purse(Subject(BalanceKind.USER, id))
        return purse

    def token(self, id: int, *, limited: bool) -> Purse:
        purse = self._token(id)
        purse.limited = limited
        return purse

    def budget(self, period: int) -> Purse:
        purse = self.budgets.get(period)
        if purse is None:
            purse = self.budgets[period] = Purse(Subject(BalanceKind.BUDGET, period))
        return purse

    def purse(self, subject: Subject) -> Purse | None:
        """The purse of a subject, if this process has one."""
        return self._purses_of(subject.kind).get(subject.id)

    def adopt(self, subject: Subject) -> Purse:
        """A purse for a lease that this process has forgotten; what it holds has to be read."""
        purse = self._purses_of(subject.kind).setdefault(subject.id, Purse(subject))
        purse.doubtful = True
        return purse

    def purses(self) -> Iterable[Purse]:
        yield from self.users.values()
        yield from self.tokens.values()
        yield from self.budgets.values()

    def owe(self, record: ChargeRecord) -> None:
        """A request was charged: its purses owe it until it is written."""
        if record.user_id:
            self.user(record.user_id).owed += record.quota
        if record.token_id and not record.unlimited:
            self._token(record.token_id).owed += record.quota
        for period in record.budgets:
            self.budget(period).owed += record.quota

    def next_batch(self, most: int) -> Batch | None:
        """The oldest charges that wait; the same ones until `wrote` is told of them."""
        if self._batch is None and self.waiting:
            records = tuple(map(fitted, islice(self.waiting, most)))
            self._batch = Batch(self.holder, self.flushed, self.flushed + len(records), records)
        return self._batch

    def wrote(self, batch: Batch, *, now_known: bool) -> None:
        """
        The database has the batch. `now_known`: it was written by an attempt whose outcome was not heard, and leases
        may have been read since; what they hold has to be read again.
        """
        self._batch = None
        for _ in batch.records:
            self.waiting.popleft()
        self.flushed = batch.upto
        sums = batch.sums
        for id, quota in sums.user_leases.items():
            _settle(self.users[id], quota, now_known)
        for id, quota in sums.token_leases.items():
            _settle(self.tokens[id], quota, now_known)
        for id, quota in sums.budgets.items():
            _settle(self.budgets[id], quota, now_known)

    def lost_leases(self) -> None:
        """This process was taken for dead: it begins again with nothing."""
        for purse in self.purses():
            purse.lose()

    def doubt_leases(self) -> None:
        """Whether this process was taken for dead was asked, and not heard: what it holds has to be read again."""
        for purse in self.purses():
            purse.doubtful = True

    def forget_idle(self, now: float, after: float) -> None:
        """Drop purses that hold nothing and were not used for `after` seconds."""
        for purses in (self.users, self.tokens, self.budgets):
            empty = [
                id
                for id, purse in purses.items()
                if not (purse.leased or purse.held or purse.owed or purse.doubtful) and now - purse.used_at >= after
            ]
            for id in empty:
                del purses[id]

    def _purses_of(self, kind: BalanceKind) -> dict[int, Purse]:
        match kind:
            case BalanceKind.USER:
                return self.users
            case BalanceKind.TOKEN:
                return self.tokens
            case BalanceKind.BUDGET:
                return self.budgets

    def _token(self, id: int) -> Purse:
        purse = self.tokens.get(id)
        if purse is None:
            purse = self.tokens[id] = Purse(Subject(BalanceKind.TOKEN, id))
        return purse


def _settle(purse: Purse, quota: int, now_known: bool) -> None:
    purse.owed -= quota
    if now_known:
        purse.doubtful = True
    purse.leased -= quota
