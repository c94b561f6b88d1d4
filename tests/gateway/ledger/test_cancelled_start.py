"""A start that is cancelled leaves nothing locked: a host that mounts Tollway may try again in the same process."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.journal import Journal, Recovery, live_holders
from tollway.gateway.ledger.opening import folder_id, holder_name, journal_folder
from tollway.gateway.store import Store, leases

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)]


class Held:
    """What a thread does, and then waits for the test before anybody hears of it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.done, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        result = self.work(*arguments, **named)
        self.done.set()
        self.let_go.wait(10)
        return result


async def serve(store: Store, settings: Settings) -> None:
    async with open_ledger(store, settings, Live(Options())):
        pass


async def leave_a_journal_behind(store: Store, folder: Path) -> None:
    """As a process of this folder would that was killed."""
    installation, holder = await leases.installation_id(store), holder_name(folder_id(folder))
    await leases.join(store, holder, host="here", now_ms=1)
    journal = Journal.create(folder, holder=holder, installation=installation, limit_bytes=1 << 24)
    journal.open(1, b"{}")
    journal.release(1)
    journal._lock.release(delete=False)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Journal, "create"), (Recovery, "take"), (Recovery, "finish")],
    ids=["while its journal is made", "while a dead one's journal is taken", "while that one's files are deleted"],
)
async def test_a_start_that_is_cancelled_leaves_no_lock(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    settings = Settings(data_dir=tmp_path)
    folder = journal_folder(tmp_path)
    await leave_a_journal_behind(store, folder)
    held = Held(getattr(owner, name))
    monkeypatch.setattr(owner, name, held if name != "finish" else lambda recovery: held(recovery))
    start = asyncio.create_task(serve(store, settings))
    await asyncio.to_thread(held.done.wait, 10)
    start.cancel()
    await asyncio.wait([start], timeout=0.1)
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert live_holders(folder) == []
    monkeypatch.undo()
    await end_clean(store, settings)


async def test_an_end_that_is_cancelled_leaves_no_lock(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    held = Held(Journal.close)
    monkeypatch.setattr(Journal, "close", lambda journal: held(journal))
    start = asyncio.create_task(serve(store, settings))
    await asyncio.to_thread(held.done.wait, 10)
    start.cancel()
    await asyncio.wait([start], timeout=0.1)
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert await leases.list_all(store) == ()
    monkeypatch.undo()
    await end_clean(store, settings)


async def end_clean(store: Store, settings: Settings) -> None:
    """Start and end once more: nothing is left then."""
    folder = journal_folder(settings.data_dir)
    await serve(store, settings)
    assert [path.name for path in folder.iterdir()] == ["folder.id"]
    assert (await audit(store, None, folder)).clean
