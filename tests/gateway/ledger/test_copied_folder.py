"""A data directory that was copied while a process served from it: who serves from the copy leaves that one alone."""

import shutil
from pathlib import Path

import pytest
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.settings import Settings
from tollway.gateway.ledger import open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.journal import holders
from tollway.gateway.ledger.opening import folder_id, journal_folder
from tollway.gateway.ledger.recovery import Recoverer
from tollway.gateway.store import Store, leases, users
from tollway.gateway.store.leases import BalanceKind, Subject
from tollway.middleware.state import Principal

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)]


async def recover(store: Store, folder: Path) -> None:
    installation = await leases.installation_id(store)
    await Recoverer(store, None, folder, folder_id(folder), installation, Live(Options())).recover_all()


@pytest.mark.parametrize("with_its_journal", [True, False])
async def test_who_serves_from_the_first_keeps_its_leases(store: Store, tmp_path: Path, with_its_journal: bool) -> None:
    user_id = await users.create(store, username="ann", quota=1000, now_ms=1)
    first, copy = Settings(data_dir=tmp_path / "first"), Settings(data_dir=tmp_path / "copy")
    journal_folder(first.data_dir).mkdir(parents=True)
    folder_id(journal_folder(first.data_dir))
    if not with_its_journal:
        shutil.copytree(first.data_dir, copy.data_dir)
    async with open_ledger(store, first, Live(Options())) as ledger:
        hold = await ledger.open(Principal(token_id=0, user_id=user_id, unlimited=True), "r")
        await hold.reserve(100)
        ledger.journal.write()
        if with_its_journal:
            shutil.copytree(first.data_dir, copy.data_dir)
        async with open_ledger(store, copy, Live(Options())) as other:
            await recover(store, other.journal.folder)
            held = await leases.amounts(store, ledger.core.holder)
            assert held[Subject(BalanceKind.USER, user_id)] == ledger.core.users[user_id].leased >= 100
            assert await leases.beat(store, ledger.core.holder)
        hold.release()


async def test_a_folder_that_has_moved_is_recovered_once_its_process_is_given_up(store: Store, tmp_path: Path) -> None:
    user_id = await users.create(store, username="ann", quota=1000, now_ms=1)
    settings = Settings(data_dir=tmp_path / "first")
    async with open_ledger(store, settings, Live(Options())) as ledger:
        hold = await ledger.open(Principal(token_id=0, user_id=user_id, unlimited=True), "r")
        await hold.reserve(100)
        ledger.journal.write()
        moved = Path(shutil.copytree(journal_folder(settings.data_dir), tmp_path / "moved"))
        seen = await leases.find(store, ledger.core.holder)
        assert seen is not None
        assert await leases.expire(store, seen)
        await recover(store, moved)
        assert await leases.find(store, ledger.core.holder) is None
        hold.release()
    found = await users.by_id(store, user_id)
    assert found is not None
    assert (found.quota, found.request_count) == (1000, 1)  # it was cut off, and is written down
    assert holders(moved) == []
    assert (await audit(store, None, moved)).clean
