"""`tollway price reprice` killed at any moment, beside a server that serves, and run again; on every engine."""

import random
import time
from pathlib import Path

import pytest
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import charges, leases, prices
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.records import ChargeRecord
from tollway.gateway.store.schema import leases as leases_table

from .conftest import UpstreamOf
from .gateway import Account, now_ms
from .load import BODY, FLAT, FLAT_PRICE, made, terminated, user_of
from .nodes import Installation
from .scripted import always
from .waiting import until
from .wire import ask, completion, whole

PAST = 3_000
"""Charges before the server starts: 12 batches of corrections."""
DEARER = FLAT_PRICE.replace("0.002", "0.003")


async def charge_past(opened: DataDir, account: Account) -> None:
    bill = {"group_ratio": "1", "per_call": [1, "0.002"]}
    records = tuple(
        ChargeRecord(
            now_ms() - PAST + number,
            account.user_id,
            FLAT,
            token_id=account.token_id,
            model="flat",
            breakdown=bill,
        )
        for number in range(PAST)
    )
    await leases.join(opened.store, "past", host="", now_ms=1)
    assert await charges.flush(opened.store, Batch("past", 0, PAST, records), now_ms())
    await leases.leave(opened.store, "past")


@pytest.mark.parametrize("engine_name", ["sqlite", "postgresql", "mariadb-local"], indirect=True)
def test_killed_and_run_again_each_charge_is_corrected_once(
    database_url: str, tmp_path: Path, upstream: UpstreamOf, request: pytest.FixtureRequest
) -> None:
    installation = Installation(database_url, [tmp_path / "node"])
    account = made(installation, upstream(always(whole(completion()))).url, quota=10_000 * FLAT)
    installation.run(lambda opened: charge_past(opened, account))
    kills: int = request.config.getoption("--kills")
    with installation.serving() as (server,):

        def serve(times: int) -> None:
            for _ in range(times):
                assert ask(server.address, "/v1/chat/completions", account.key, BODY).status == 200

        serve(5)
        until(lambda: user_of(installation, account).used_quota == (PAST + 5) * FLAT, 5)
        installation.run(lambda opened: prices.put(opened.store, "flat", DEARER, now_ms=now_ms()))
        for _ in range(kills):
            used = user_of(installation, account).used_quota
            command = installation.command("price", "reprice", "--model", "flat", "--yes")
            until(
                lambda used=used, command=command: begun(installation, account, used) or command.poll() is not None, 20
            )
            time.sleep(random.uniform(0, 0.05))
            command.kill()
            command.communicate()
            assert installation.audit(tmp_path / "node")["clean"]
        time.sleep(1)  # the server has taken the price over
        serve(5)
        command = installation.command("price", "reprice", "--model", "flat", "--yes")
        out, _ = command.communicate(timeout=60)
        assert command.returncode == 0, out
        exact = (PAST + 10) * FLAT * 3 // 2
        until(lambda: user_of(installation, account).used_quota == exact, 5)
        assert installation.audit(tmp_path / "node")["clean"]
        terminated([server])
    user = user_of(installation, account)
    assert (user.quota, user.used_quota, user.request_count) == (10_000 * FLAT - exact, exact, PAST + 10)
    assert installation.run(lambda opened: opened.store.all(leases_table.select())) == []
    assert installation.audit(tmp_path / "node") == {
        "clean": True,
        "waiting": 0,
        "differences": [],
        "damages": [],
        "notes": [],
    }


def begun(installation: Installation, account: Account, used: int) -> bool:
    return user_of(installation, account).used_quota != used
