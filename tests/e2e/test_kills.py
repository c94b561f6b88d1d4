"""Processes that are killed: whose end a client has seen is charged once, and the next start leaves nothing behind."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from .gateway import Account
from .load import BODY, FLAT, adds_up, asking, left_behind, made, terminated
from .nodes import Installation
from .waiting import until
from .wire import ask

KILLED = -9

LEDGER, STORE = "tollway.gateway.ledger", "tollway.gateway.store"
DEATHS = [
    # While it serves, and then while the next one starts.
    ("before-a-batch", f"{STORE}.charges:flush", f"{STORE}.charges_{{}}:_write_logs"),
    ("in-its-transaction", f"{STORE}.charges_{{}}:_write_logs", f"{STORE}.leases:give_back_all"),
    ("after-its-commit", f"{LEDGER}.core:Core.wrote", f"{LEDGER}.journal:Recovery.finish"),
    # At its end, and then while the next one starts.
    ("before-leases-go", f"{STORE}.leases:give_back_all", f"{STORE}.leases:leave"),
    ("before-files-go", f"{LEDGER}.journal:Journal.close", f"{STORE}.leases:join"),
    ("before-the-row-goes", f"{STORE}.leases:leave", f"{STORE}.leases:installation_id"),
]
"""By name: the function that a process dies of, and the one that its successor dies of."""
WRITING, RECOVERING = f"{LEDGER}.store_ledger:StoreLedger._write", f"{LEDGER}.recovery:Recoverer._replay"
ALL_PHASES_AT = 200
"""Of so many kills some must have met each phase."""
STATEMENT = "alembic.ddl.impl:DefaultImpl._exec"
SOME = pytest.mark.parametrize("engine_name", ["sqlite", "postgresql", "mariadb-local"], indirect=True)


@pytest.fixture
def single(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, [tmp_path / "node"])


def outlive(single: Installation, account: Account) -> None:
    """A last life that ends in order, once it has taken for dead who left a row and no journal."""
    soon = f"{LEDGER}.upkeep:DEAD_AFTER_S=1 {LEDGER}.upkeep:TIDY_EVERY_S=0.2"
    with single.bent(BENT_CONSTANTS=soon).serving() as (process,):
        assert single.audit(single.folders[0])["clean"]
        assert ask(process.address, "/v1/chat/completions", account.key, BODY).status == 200
        until(lambda: left_behind(single)[1] == 1, 10)
        terminated([process])


@SOME
def test_a_death_at_any_step_loses_and_doubles_nothing(single: Installation, tmp_path: Path) -> None:
    account = made(single, "", quota=10**9)
    engine = "sqlite" if single.url.startswith("sqlite") else "server"
    deadly = tmp_path / "deadly"
    ended: list[str] = []

    def dying(point: str) -> Installation:
        return single.bent(BENT_SIGNAL=f"{point.format(engine)} {deadly} SIGKILL")

    for name, last, next_last in DEATHS:
        with dying(last).serving() as (process,), asking([process], account, name=name) as client:
            time.sleep(0.3)
            deadly.touch()
            process.terminate()  # by then it has died, unless it is to die at its end
            assert process.ended() == KILLED, last
        ended += client.ended
        with dying(next_last).serving(ready=False) as (process,):
            assert process.ended() == KILLED, next_last
        deadly.unlink()
    outlive(single, account)
    assert len(ended) > 20
    adds_up(single, account, ended)


def test_what_a_client_has_seen_end_is_charged_once_whatever_is_killed(
    single: Installation, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """
    So many lives of the server that end by SIGKILL at some moment: while it starts, recovers what the one before has
    left, serves, streams or writes.
    """
    account = made(single, "", quota=10**12)
    kills: int = request.config.getoption("--kills")
    phases, chance = Counter[str](), random.Random(5)
    ended: list[str] = []
    phase = tmp_path / "phase"
    bent = single.bent(BENT_PHASES=f"{phase} {WRITING} {RECOVERING}")
    for life in range(kills):
        phase.write_text("")
        with bent.serving(ready=False) as (process,), asking([process], account, name=f"life-{life}") as client:
            if life % 2:
                time.sleep(chance.uniform(0.3, 1.2))
            else:
                until(lambda client=client: bool(client.ended), 20)
                time.sleep(chance.uniform(0.0, 0.5))
            process.kill()
            process.ended()
        ended += client.ended
        phases[phase.read_text().strip() or ("serving" if client.ended else "starting")] += 1
    assert kills < ALL_PHASES_AT or len(phases) == 4, phases
    outlive(single, account)
    assert ended
    adds_up(single, account, ended)


def test_a_migration_that_is_killed_is_made_whole_by_the_next_one(
    empty_database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    installation = Installation(empty_database_url, [tmp_path / "node"])
    deadly = tmp_path / "deadly"
    dying = installation.bent(BENT_SIGNAL=f"{STATEMENT} {deadly} SIGKILL")
    chance = random.Random(3)
    for kill in range(request.config.getoption("--kills")):
        deadly.write_text(str(chance.randrange(20) if kill else 20))
        command = dying.command("db", "upgrade")
        out, _ = command.communicate(timeout=30)
        assert command.returncode in ((KILLED, 0) if kill else (KILLED,)), out
    command = installation.command("db", "upgrade")
    out, _ = command.communicate(timeout=30)
    assert command.returncode == 0, out
    assert chat_works(installation)


def chat_works(installation: Installation) -> bool:
    account = made(installation, "", quota=10 * FLAT)
    with installation.serving() as (process,):
        return ask(process.address, "/v1/chat/completions", account.key, BODY).status == 200
