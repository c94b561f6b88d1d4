"""A ledger's beginning and end: what the dead have left is replayed first, what this one holds is given back last."""

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from zlib import crc32

from ...config.live import Live
from ...config.options import Options
from ...config.settings import Settings
from ..finishing import finished, made
from ..notifier import open_notifier
from ..store import Store, StoreError, charges, leases
from .journal import Journal, JournalError
from .recovery import Recoverer
from .store_ledger import StoreLedger
from .upkeep import Upkeep
from .watch import Watch

log = logging.getLogger("tollway.ledger")

LAST_CHARGES_S = 10.0
"""How long the end waits for a database that does not answer."""
SHORTEST_SYNC_S = 0.01


def journal_folder(data_dir: Path) -> Path:
    return data_dir / "journal"


@asynccontextmanager
async def open_ledger(
    store: Store, settings: Settings, options: Live[Options], *, log_store: Store | None = None
) -> AsyncGenerator[StoreLedger]:
    """
    A ledger that serves, with its upkeep running.

    At the end everything is written and given back; what the database does not take stays in the journal, for the next
    start. Raises `JournalError`, `StoreError`.
    """
    folder = journal_folder(settings.data_dir)
    family = await asyncio.to_thread(folder_id, folder)
    holder = holder_name(family)
    installation = await leases.installation_id(store)
    recoverer = Recoverer(store, log_store, folder, family, installation, options)
    await recoverer.recover_all()
    journal = await made(
        lambda: Journal.create(
            folder, holder=holder, installation=installation, limit_bytes=settings.journal_max_bytes
        ),
        Journal.close,
    )
    try:
        await leases.join(store, holder, host=socket.gethostname(), now_ms=time.time_ns() // 1_000_000)
    except BaseException:
        journal.close()
        raise
    ledger = StoreLedger(
        store, journal, holder=holder, log_store=log_store, sync_at_once=settings.journal_fsync_ms == 0
    )
    every = max(settings.journal_fsync_ms / 1000, SHORTEST_SYNC_S)
    async with open_notifier(settings.notify_webhook_url, settings.notify_webhook_secret) as notifier:
        watch = Watch(ledger, options, settings, notifier)
        upkeep = asyncio.create_task(Upkeep(ledger, recoverer, watch, sync_every_s=every).run())
        try:
            await ledger.budgets.load()
            yield ledger
        finally:
            await finished(asyncio.create_task(_end(ledger, upkeep)))


def holder_name(family: str) -> str:
    """A name for this process that no other has or will have: its host, its folder, its number, and chance."""
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:16] or "host"
    return f"{host}-{family}-{os.getpid()}-{secrets.token_hex(5)}"


def folder_id(folder: Path) -> str:
    """
    What the names of all processes on this folder have in common: 8 hex digits, made at its first use. A copy of the
    folder gives others, for whoever serves from the one does not hold the locks of the other.

    Raises `JournalError`.
    """
    path = folder / "folder.id"
    draft = folder / f"folder.id.{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            draft.write_text(secrets.token_hex(4))
            with suppress(FileExistsError):  # another process was quicker
                os.link(draft, path)
            draft.unlink()
        found, number = path.read_text(), path.stat().st_ino
    except OSError as error:
        raise JournalError(f"the journal's folder {folder} cannot be used: {error.strerror}") from error
    if not re.fullmatch("[0-9a-f]{8}", found):
        raise JournalError(f"{path} is damaged: remove it while nothing serves from its folder")
    return f"{crc32(f'{found}-{number}'.encode()):08x}"


async def _end(ledger: StoreLedger, upkeep: "asyncio.Task[None]") -> None:
    upkeep.cancel()
    await asyncio.gather(upkeep, return_exceptions=True)
    await _close(ledger)


async def _close(ledger: StoreLedger) -> None:
    try:
        async with asyncio.timeout(LAST_CHARGES_S):
            await ledger.rest()
            done = await ledger.flush()
            ledger.retry_unsafe()
            done = done and await ledger.flush()
    except Exception:
        log.exception("the last charges were not written")
        done = False
    if ledger.unsafe:
        log.error(
            "%d charges with a quota of %d in all are lost: neither the database nor the journal took them",
            len(ledger.unsafe),
            sum(record.quota for _, record in ledger.unsafe),
        )
    if done:
        # Before the files go: whoever has no journal has no lease.
        await _try_to_leave(ledger, leases.give_back_all)
    gone = await asyncio.to_thread(ledger.journal.close)
    if not done:
        log.error(
            "%d charges are in the journal and not yet in the database: the next start in %s writes them",
            len(ledger.core.waiting),
            ledger.journal.folder,
        )
        return
    if not gone:
        # Whoever recovers them must know what the database has.
        log.error(
            "requests are open at the end: the next start in %s finds in the journal what was held for them",
            ledger.journal.folder,
        )
        return
    await _try_to_leave(ledger, leases.leave)
    if ledger.logs is not None:
        with suppress(StoreError):
            await charges.forget_logged(ledger.logs.store, ledger.core.holder)


async def _try_to_leave(ledger: StoreLedger, leave: Callable[[Store, str], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(LAST_CHARGES_S):
            await leave(ledger.store, ledger.core.holder)
    except (StoreError, TimeoutError) as error:
        log.error("the leases of this process go back when others see that it has ended: %s", error)
