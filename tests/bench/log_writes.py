"""What a charge costs in writes, on top of the rows that are there, and what retention does to whoever writes."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, TypeVar, cast

from sqlalchemy import text
from tollway.gateway.jobs import PAUSE_S, ROWS_AT_ONCE
from tollway.gateway.ledger.journal.format import RECORD_SIZE
from tollway.gateway.ledger.records import encode, opened
from tollway.gateway.store import Store, Transaction, charges, leases, logs
from tollway.gateway.store.charges import Batch
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.schema import channels, tokens, users
from tollway.middleware.state import Principal

from tests.many_logs import END

BATCHES = 40
ROUNDS = 4
"""Times that batches are watched for `ROUND_S` seconds without retention at work, and with it."""
ROUND_S = 5.0
FLUSH_EVERY_S = 0.2
WAL_OF_POSTGRESQL = "SELECT CAST(pg_current_wal_insert_lsn() - '0/0' AS bigint)"
LOG_OF_MARIADB = "SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'"

T = TypeVar("T")


async def write(store: Store, peak: int) -> list[str]:
    """Print what batches cost: those of 0.2 s of `peak` requests a second, of half and of twice it, and the largest."""
    await _make_accounts(store)
    first = _charge(0)
    hold = opened(Principal(first.token_id, first.user_id, first.token_name, first.username), first.request_id, 9999, 0)
    journal = len(encode(first)) + len(encode(hold)) + 2 * RECORD_SIZE
    print(f"the journal: {journal:,} bytes a request, of which {len(encode(hold)) + RECORD_SIZE} when it begins")
    log, fastest = WriteAheadLog(store), 0.0
    for size in (peak // 10, peak // 5, peak * 2 // 5, 1000):
        maker = Maker(f"bench-{size}", size)
        await leases.join(store, maker.holder, host="", now_ms=0)
        counted = Counted(store)
        await charges.flush(cast("Store", counted), maker.next(), END)
        sizes, taken, cpu = list[int](), list[float](), time.process_time()
        for _ in range(BATCHES):
            batch, before, begun = maker.next(), await log.bytes(), time.perf_counter()
            await charges.flush(store, batch, END)
            taken.append(time.perf_counter() - begun)
            sizes.append(await log.bytes() - before)
        speed = size * BATCHES / sum(taken)
        fastest = max(fastest, speed)
        print(
            f"batches of {size}: {speed:,.0f} charges/s, {counted.statements / size:.3f} statements and {1 / size:.4f} "
            f"commits a request, {median(sizes) / size:,.0f} bytes of write-ahead log, "
            f"{(time.process_time() - cpu) / size / BATCHES * 1e6:.0f} us of our CPU",
            flush=True,
        )
    few = f"{store.address.dialect}: {fastest:,.0f} charges/s are written, less than twice {peak:,}"
    return [few] if fastest < 2 * peak else []


async def retain(store: Store) -> None:
    """Print how long a batch takes by itself, and while old rows are removed as `gateway.jobs` does it."""
    maker = Maker("bench-retention", 400)
    await leases.join(store, maker.holder, host="", now_ms=0)
    calm, disturbed, removed = list[float](), list[float](), 0
    for _ in range(ROUNDS):
        calm += await _watch(store, maker)
        taken, gone = await asyncio.gather(_watch(store, maker), _remove(store))
        disturbed += taken
        removed += gone
    print(
        f"a batch of 400 takes {median(calm):.0f} ms, at most {max(calm):.0f} ms; {median(disturbed):.0f} ms, at most "
        f"{max(disturbed):.0f} ms, while {removed / ROUNDS / ROUND_S:,.0f} rows a second are removed",
        flush=True,
    )


async def _watch(store: Store, maker: "Maker") -> list[float]:
    """Milliseconds that batches took which came as the ledger brings them."""
    taken: list[float] = []
    until = time.perf_counter() + ROUND_S
    while (begun := time.perf_counter()) < until:
        await charges.flush(store, maker.next(), END)
        taken.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(FLUSH_EVERY_S)
    return taken


async def _remove(store: Store) -> int:
    removed, until = 0, time.perf_counter() + ROUND_S
    while time.perf_counter() < until:
        removed += await logs.trim(store, before_ms=END, limit=ROWS_AT_ONCE)
        await asyncio.sleep(PAUSE_S)
    return removed


class Maker:
    """Makes a holder's batches, of `size` charges each."""

    def __init__(self, holder: str, size: int) -> None:
        self.holder = holder
        self._size = size
        self._made = 0

    def next(self) -> Batch:
        begin = self._made
        self._made += self._size
        return Batch(self.holder, begin, self._made, tuple(map(_charge, range(begin, self._made))))


class Counted:
    """A store that counts the statements of its transactions."""

    def __init__(self, store: Store) -> None:
        self.address = store.address
        self.statements = 0
        self._store = store

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._store.run(lambda transaction: work(CountedTransaction(transaction, self.count)))

    async def run_plain(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def traced(connection: sqlite3.Connection) -> T:
            connection.set_trace_callback(self.count)
            try:
                return work(connection)
            finally:
                connection.set_trace_callback(None)

        return await self._store.run_plain(traced)

    def count(self, _statement: str) -> None:
        self.statements += 1


class CountedTransaction:
    def __init__(self, transaction: Transaction, count: Callable[[str], None]) -> None:
        self._transaction = transaction
        self._count = count

    def __getattr__(self, name: str) -> Any:
        if name in {"one", "all", "insert", "change", "bulk", "add_up"}:
            self._count(name)
        return getattr(self._transaction, name)


class WriteAheadLog:
    """What an engine writes before it changes its tables."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._of_sqlite = 0

    async def bytes(self) -> int:
        """Written so far."""
        address = self._store.address
        if address.dialect == "sqlite":
            self._of_sqlite += await asyncio.to_thread(_emptied, address.path)
            return self._of_sqlite
        row = await self._store.one(text(WAL_OF_POSTGRESQL if address.dialect == "postgresql" else LOG_OF_MARIADB))
        return 0 if row is None else int(list(row.values())[-1])


def _emptied(path: str) -> int:
    """The bytes that were in SQLite's log, which this empties."""
    size = Path(f"{path}-wal").stat().st_size
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return size


async def _make_accounts(store: Store) -> None:
    """Those that `_charge` names, for what is counted to have a place."""
    lists = ("keys_encrypted", "models", "groups", "disabled_keys", "model_mapping", "status_code_mapping")
    texts = (*lists, "header_override", "param_override")
    empty = [""] * len(texts)
    await store.bulk(users, ("id", "username", "created_at"), [(i, f"user-{i}", 0) for i in range(1, 101)])
    await store.bulk(
        tokens,
        ("id", "user_id", "key_hash", "key_prefix", "created_at"),
        [(i, i // 2, f"{i:064}", "", 0) for i in range(2, 202)],
    )
    await store.bulk(channels, ("id", "type", "created_at", *texts), [(i, 1, 0, *empty) for i in range(1, 21)])


def _charge(number: int) -> ChargeRecord:
    who = number * 7919 % 10_007 % 100 + 1
    return ChargeRecord(
        END + number,
        who,
        225,
        username=f"user-{who}",
        token_id=who * 2 + number % 2,
        token_name=f"key-{who}",
        channel_id=who % 20 + 1,
        channel_name=f"channel-{who % 20}",
        model=f"model-{who % 20}",
        upstream_model=f"model-{who % 20}",
        operation="chat_completions",
        group="default",
        request_id=f"req_019a22f4e0a5{who % 4}3b7d1e{number:08x}",
        input_tokens=1000,
        output_tokens=500,
        price_version="2026-11-01",
        breakdown={"group_ratio": "1", "input": [1000, "0.075"], "output": [500, "0.3"]},
        duration_ms=900,
        first_byte_ms=300,
        ip="203.0.113.7",
    )
