"""
The ledger of a process: it spends leases from memory, acknowledges in the journal, and writes to the store in batches.

What it promises, and how:

- No overspend over all processes: quota is moved from the balance to this process before it is spent (`purse`).
- Once, whatever crashes: a charge gets its number in the journal, and the database remembers the last number it has.
- Nothing lost: `settle` returns when the charge is in the journal, and the answer ends after that.
- Nothing stuck: a dead process's leases are taken back, its journal is replayed (`upkeep`, `recovery`).
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from ...adapters.errors import Unavailable
from ...middleware.state import Charge, Hold, Principal
from ..store import Store, StoreError, charges, leases
from ..store.batch import fitted
from ..store.charges import Misplaced
from ..store.leases import BalanceKind, LeaseState, Subject
from ..store.records import ChargeRecord
from .budget_book import BudgetBook
from .core import Core
from .hold import LedgerHold
from .journal import Journal, JournalError
from .log_writer import LogWriter
from .purse import Purse, all_cover
from .records import encode, opened, record_of
from .refusals import refusal

T = TypeVar("T")

log = logging.getLogger("tollway.ledger")

FLUSH_AT = 1_000
PATIENCE_S = 2.0
"""How long a request waits for quota that other processes hold."""
ASK_AGAIN_S = 0.05
IN_TOUCH_S = 5.0
ANSWER_S = 5.0
"""How long a request waits for the database itself."""
REFILL_EVERY_S = 0.05
TRUST_S = 60.0
"""How long leases are spent without a sign from the database; others take them back after `upkeep.DEAD_AFTER_S`."""


class StoreLedger:
    """
    Opens holds from memory. `flush` writes charges, `upkeep.Upkeep` calls it and everything else that is due.

    `holder` has joined the store (`leases.join`), and the journal is its own. Times are `time.monotonic`.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        holder: str,
        log_store: Store | None = None,
        sync_at_once: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.logs = None if log_store is None else LogWriter(log_store)
        self.journal = journal
        self.core = Core(holder)
        self.budgets = BudgetBook(store, self.core)
        self.clock = clock
        self.unsafe: list[tuple[int, ChargeRecord]] = []
        """Charges that the journal could not take: by ticket."""
        self.failing = ""
        """Why charges cannot be written now; empty when they can."""
        self.wanted = asyncio.Event()
        """Set when so many charges wait that they should be written at once."""
        self.active: set[int] = set()
        """The users whose charges were written, or who were refused, since somebody looked."""
        self.beat_at = clock()
        """When the database last knew of this process."""
        self._sync_at_once = sync_at_once
        self._syncing: asyncio.Task[None] | None = None
        # Moves of leases and batches take turns: what the store says of a lease after a move is then the truth.
        self._turn = asyncio.Lock()
        self._log_turn = asyncio.Lock()
        self._asking: dict[Subject, asyncio.Lock] = {}
        self._refilling: set[Subject] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tickets = itertools.count(1)

    async def open(self, principal: Principal, request_id: str) -> Hold:
        """See `middleware.ports.Ledger`. Raises `Unavailable` while charges could not be kept safe."""
        now = self.clock()
        if trouble := self.trouble(now):
            raise Unavailable(f"{trouble} Try again later.", retry_after=5.0)
        user = self.core.user(principal.user_id)
        token = self.core.token(principal.token_id, limited=not principal.unlimited)
        purses: tuple[Purse, ...] = (user, token)
        periods: tuple[int, ...] = ()
        if self.budgets and (found := self.budgets.of(principal)):
            of_budgets = self.budgets.purses(found)
            if of_budgets is None:
                of_budgets = await self._answered(self.budgets.begin(found))
            purses += (*of_budgets,)
            periods = tuple([purse.subject.id for purse in of_budgets])
        for purse in purses:
            purse.used_at = now
        while not all_cover(purses, 1):
            await self.fund(purses, 1)
        return LedgerHold(self, purses, principal, request_id, periods)

    def in_touch(self, now: float) -> bool:
        """Whether the database answered a moment ago: a lease is not given up to one that may not hear of it."""
        return not self.failing and now - self.beat_at < IN_TOUCH_S

    def trouble(self, now: float) -> str:
        """Why no new request may spend; empty when they may. Requests in flight are charged all the same."""
        journal = self.journal
        if journal.failing:
            return "Charges cannot be written down now."
        if journal.full:
            return "Charges wait for the database, and there is no room for more."
        if now - self.beat_at > TRUST_S:
            return "The database has been away for too long."
        return ""

    @property
    def pending(self) -> int:
        """Charges that the database does not have yet."""
        return len(self.core.waiting) + len(self.unsafe)

    def lag(self, now_ms: int) -> float:
        """The age of the oldest charge that the database does not have yet, in seconds."""
        return max(0.0, (now_ms - self.core.waiting[0].created_at) / 1000) if self.core.waiting else 0.0

    # What a hold asks for.

    async def fund(self, purses: Iterable[Purse], quota: int) -> None:
        """Fetch what each purse lacks for `quota`. Raises `InsufficientQuota`, `Unavailable`."""
        for purse in purses:
            if not purse.covers(quota) and not await self._fill(purse, quota):
                if purse.subject.kind is BalanceKind.USER:
                    self.active.add(purse.subject.id)
                raise refusal(purse, quota, self.budgets.now_ms())

    def refill(self, purses: Iterable[Purse]) -> None:
        """Fetch more for purses that run low, before a request has to wait for it."""
        now = self.clock()
        for purse in purses:
            if purse.is_low() and now - purse.taken_at > REFILL_EVERY_S and purse.subject not in self._refilling:
                self._refilling.add(purse.subject)
                self._start(self._refill(purse))

    def opened(self, principal: Principal, request_id: str, quota: int, budgets: tuple[int, ...]) -> int:
        """A request holds quota from now on. Its ticket. `budgets`: the periods of budgets that pay too."""
        ticket = next(self._tickets)
        now_ms = time.time_ns() // 1_000_000
        self.journal.open(ticket, encode(opened(principal, request_id, quota, now_ms, budgets)))
        return ticket

    async def settle(self, ticket: int, charge: Charge, budgets: tuple[int, ...]) -> None:
        """Returns when the charge is in the journal."""
        record = record_of(charge, budgets)
        self.core.owe(record)
        try:
            number = self._acknowledge(ticket, record)
        except JournalError as error:
            # In memory alone, until the database has made room in the journal.
            self.unsafe.append((ticket, record))
            log.error("a charge of %d quota is not in the journal yet: %s", record.quota, error)
            return
        if len(self.core.waiting) >= FLUSH_AT:
            self.wanted.set()
        while self._sync_at_once and self.journal.synced_sequence < number and not self.journal.failing:
            await self.sync()

    def _acknowledge(self, ticket: int, record: ChargeRecord) -> int:
        payload = encode(record)
        if len(payload) > self.journal.payload_limit:  # a charge is never lost over what clients call themselves
            record = replace(fitted(record), breakdown=None)
            payload = encode(record)
        number = self.journal.settle(ticket, payload)
        self.core.waiting.append(record)
        return number

    def released(self, ticket: int) -> None:
        """A request ended without a charge."""
        self.journal.release(ticket)

    # What upkeep does.

    async def flush(self) -> bool:
        """Write what waits; False when the store could not. Nothing is lost by a failure."""
        try:
            while self.core.waiting:
                await self._finished(self._write())
            if self.logs is not None:
                await self._finished(self._write_logs(self.logs))
        except StoreError as error:
            if not self.failing:  # said once, not five times a second; /readyz and a metric go on saying it
                log.error("%d charges wait, for the store cannot be written: %s", self.pending, error)
            self.failing = str(error) or type(error).__name__
            return False
        if self.failing:
            log.warning("the store can be written again: no charge waits any more")
        self.failing = ""
        return True

    def retry_unsafe(self) -> None:
        """Put into the journal what it could not take before. What it cannot take yet stays."""
        while self.unsafe:
            ticket, record = self.unsafe[0]
            try:
                self._acknowledge(ticket, record)
            except JournalError:
                return
            del self.unsafe[0]

    async def sync(self) -> None:
        """Put on the disk what is written; all who wait share one visit to it."""
        if self._syncing is None or self._syncing.done():
            self._syncing = self._start(asyncio.to_thread(self.journal.sync))
        await asyncio.shield(self._syncing)

    async def give_back(self, purse: Purse) -> None:
        """Move what a purse does not use back to the balance. Raises `StoreError`."""
        await self._finished(self._give_back(purse))

    async def resolve(self) -> None:
        """Read again what the leases hold whose last move's outcome was not heard. Raises `StoreError`."""
        if any(purse.doubtful for purse in self.core.purses()):
            await self._finished(self._resolve())

    async def beat(self) -> None:
        """Tell the database that this process lives, and read again what is in doubt. Raises `StoreError`."""
        begun = self.clock()
        if not await self._finished(self._beat()):
            log.warning("this process was taken for dead: it begins again without leases")
        await self.resolve()  # before new requests are trusted with leases that may not be there any more
        self.beat_at = begun

    def changed(self, user_ids: Collection[int], token_ids: Collection[int]) -> None:
        """Balances were changed by somebody else: a refusal of a moment ago says nothing any more."""
        self.budgets.changed(user_ids, token_ids)
        for kind, ids in ((BalanceKind.USER, user_ids), (BalanceKind.TOKEN, token_ids)):
            for id in ids:
                if (purse := self.core.purse(Subject(kind, id))) is not None:
                    purse.refused_until = float("-inf")

    def tidy(self, now: float, after: float) -> None:
        """Forget purses, and locks, that nobody has used for `after` seconds."""
        self.core.forget_idle(now, after)
        self._asking = {subject: lock for subject, lock in self._asking.items() if lock.locked()}

    async def rest(self) -> None:
        """Wait for moves that are on their way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Moves: each in a task of its own, which no client that hangs up can cancel, and one at a time.

    async def _fill(self, purse: Purse, quota: int) -> bool:
        """Make a purse cover `quota`; False where the balance does not have it. One request at a time asks for it."""
        deadline = self.clock() + PATIENCE_S
        async with self._asking.setdefault(purse.subject, asyncio.Lock()):
            while not purse.covers(quota):
                now = self.clock()
                need = quota - purse.free
                if purse.is_refused(need, now):
                    return False
                taken = await self._ask(purse, need, purse.ask(need, now))
                if purse.covers(quota) or taken.moved:
                    continue  # where requests that did not have to ask were quicker, there may be more
                if taken.elsewhere <= 0 or self.clock() >= deadline:
                    purse.refuse(need, self.clock())
                    return False
                await asyncio.sleep(ASK_AGAIN_S)
        return True

    async def _refill(self, purse: Purse) -> None:
        try:
            if purse.is_low():
                extra = purse.ask(0, self.clock())
                await self._take(purse, 0, extra)
        except StoreError:
            pass  # whoever needs it will ask again, and be told
        finally:
            self._refilling.discard(purse.subject)

    async def _ask(self, purse: Purse, need: int, extra: int) -> LeaseState:
        taken = await self._answered(self._finished(self._take(purse, need, extra)))
        if not taken.exists and purse.subject.kind is BalanceKind.BUDGET:
            self.budgets.forget(purse.subject.id)
        return taken

    async def _answered(self, work: Awaitable[T]) -> T:
        """What the database says while a request waits for it. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await work
        except (StoreError, TimeoutError) as error:
            raise Unavailable("The balance cannot be read now. Try again later.", retry_after=2.0) from error

    async def _take(self, purse: Purse, need: int, extra: int) -> LeaseState:
        async with self._turn:
            purse.doubtful = True
            taken = await leases.take(self.store, self.core.holder, purse.subject, need=need, extra=extra)
            purse.agree(taken)
        return taken

    async def _give_back(self, purse: Purse) -> None:
        async with self._turn:
            amount = purse.begin_return()
            if amount:
                purse.doubtful = True
                purse.agree(await leases.give_back(self.store, self.core.holder, purse.subject, amount))

    async def _resolve(self) -> None:
        async with self._turn:
            held = await leases.amounts(self.store, self.core.holder)
            for purse in self.core.purses():
                if purse.doubtful:
                    purse.leased = held.get(purse.subject, 0)
                    purse.doubtful = False

    async def _beat(self) -> bool:
        async with self._turn:
            try:
                alive = await leases.beat(self.store, self.core.holder)
            except StoreError:
                self.core.doubt_leases()
                raise
            if not alive:
                self.core.lost_leases()
        return alive

    async def _write(self) -> None:
        """Write one batch, chosen and settled in one turn: whoever flushes at the same time goes on behind it."""
        async with self._turn:
            batch = self.core.next_batch(FLUSH_AT)
            if batch is None:
                return
            now_ms = time.time_ns() // 1_000_000
            try:
                new = await charges.flush(self.store, batch, now_ms, with_logs=self.logs is None)
            except Misplaced as error:
                if error.flushed is not None:
                    raise
                # The row is gone: an older backup was put back.
                await leases.rejoin(self.store, batch.holder, host="", flushed=batch.after, now_ms=now_ms)
                return
            self.core.wrote(batch, now_known=not new)
            self.active.update([record.user_id for record in batch.records])
            if self.logs is None:
                self.journal.flushed(batch.upto)
            else:
                self.logs.add(batch)

    async def _write_logs(self, logs: LogWriter) -> None:
        async with self._log_turn:
            self.journal.flushed(await logs.flush())

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finished(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that is finished even if the caller is cancelled meanwhile."""
        return await asyncio.shield(self._start(work))
