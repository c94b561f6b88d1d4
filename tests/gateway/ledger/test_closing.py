"""The end of a ledger that cannot be a clean one: what is left in the journal is charged once by the next start."""

import logging
import os
from pathlib import Path

import pytest
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import StoreLedger, open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.journal import JournalFull
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.store import Store, leases, logs

from .ledgers import charge, left, request, user

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)]


async def serve_again(store: Store, settings: Settings) -> None:
    """Start and end a process on the same folder, which leaves nothing behind."""
    async with open_ledger(store, settings, Live(Options())):
        pass
    assert await leases.list_all(store) == ()
    folder = journal_folder(settings.data_dir)
    assert [path.name for path in folder.iterdir()] == ["folder.id"]
    assert (await audit(store, None, folder)).clean


async def test_a_request_that_outlives_the_ledger_has_nobody_charged_twice(store: Store, tmp_path: Path) -> None:
    settings, principal = Settings(data_dir=tmp_path), await user(store, 1000)
    async with open_ledger(store, settings, Live(Options())) as ledger:
        assert await request(ledger, principal, 300, 100)
        hold = await ledger.open(principal, "r")
        await hold.reserve(50)
        assert await request(ledger, principal, 300, 100)
    assert await left(store, principal) == 800
    hold.release()
    await serve_again(store, settings)
    assert await left(store, principal) == 800
    rows = await logs.find(store, logs.LogFilter(user_id=principal.user_id))
    charged = sorted((row.outcome, row.quota) for row in rows)
    assert charged == [("completed", 100), ("completed", 100), ("interrupted", 0)]


async def test_a_charge_after_the_end_is_written_to_no_other_file(store: Store, tmp_path: Path) -> None:
    settings, principal = Settings(data_dir=tmp_path / "data"), await user(store, 1000)
    async with open_ledger(store, settings, Live(Options())) as ledger:
        hold = await ledger.open(principal, "r")
        await hold.reserve(50)
    # One of these has the number of the file that was the journal's.
    others = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(100)]
    await hold.settle(charge(principal, 50))
    assert [os.fstat(other).st_size for other in others] == [0] * 100
    for other in others:
        os.close(other)
    assert [record.quota for _, record in ledger.unsafe] == [50]


async def test_a_disk_that_is_full_at_the_end_has_nobody_charged_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings, principal = Settings(data_dir=tmp_path), await user(store, 1000)

    def full(*_: object) -> int:
        raise JournalFull("no room")

    async with open_ledger(store, settings, Live(Options())) as ledger:
        assert await request(ledger, principal, 300, 100)
        hold = await ledger.open(principal, "r")
        await hold.reserve(50)
        ledger.journal.write()
        monkeypatch.setattr(StoreLedger, "_acknowledge", full)
        await hold.settle(charge(principal, 50))
        caplog.set_level(logging.ERROR, "tollway.ledger")
    monkeypatch.undo()
    assert "1 charges with a quota of 50 in all are lost" in caplog.text
    await serve_again(store, settings)
    assert await left(store, principal) == 900
