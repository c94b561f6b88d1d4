"""What a database server adds: transactions side by side, connections that break, rights, encryption."""

import asyncio
import socket
from collections.abc import Iterator
from os import getpid
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import trustme
from sqlalchemy import insert, select, text, update
from tollway.gateway.store import (
    BadValue,
    Store,
    StoreError,
    Transaction,
    Unavailable,
    Unsupported,
    migrate,
    mysql,
    postgresql,
)
from tollway.gateway.store.schema import options, users

from tests.servers import POSTGRESQLS, SERVERS, free_port, local_binaries, private_postgresql

pytestmark = pytest.mark.anyio

ONE_CONNECTION = {
    "postgresql": text("SELECT pg_backend_pid() AS id"),
    "mysql": text("SELECT connection_id() AS id"),
}
END = {"postgresql": "SELECT pg_terminate_backend({id})", "mysql": "KILL {id}"}
SLEEP = {"postgresql": "SELECT pg_sleep(20)", "mysql": "SELECT sleep(20)"}
ASLEEP = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND state = 'User sleep'",
}


@pytest.fixture(params=SERVERS)
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


def altered(url: str, *, user: str = "", port: int = 0, name: str = "", query: str = "") -> str:
    parts = urlsplit(url)
    place = f"{user or parts.username}@127.0.0.1:{port or parts.port}"
    return urlunsplit((parts.scheme, place, name or parts.path, query or parts.query, ""))


async def refused(url: str, kind: type[StoreError] = Unavailable) -> str:
    """Why a database cannot be connected to; and upgrading says so too."""
    store = Store(url)
    with pytest.raises(kind) as connecting:
        await store.connect()
    with pytest.raises(kind) as upgrading:
        await migrate.upgrade(url)
    for failure in (connecting, upgrading):
        assert "hunter2" not in str(failure.value)
        assert "\n" not in str(failure.value)
    return str(connecting.value)


async def test_a_server_that_is_not_there_is_named(database_url: str) -> None:
    port = free_port()
    assert f"127.0.0.1:{port}" in await refused(altered(database_url, user="root:hunter2", port=port))


async def test_a_server_that_says_nothing_is_waited_for_no_longer_than_asked(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, nobody answers
        port = silent.getsockname()[1]
        async with asyncio.timeout(8):
            await refused(altered(database_url, port=port, query="connect_timeout=1"))


async def test_an_unknown_database_is_named(database_url: str) -> None:
    assert "absent_database" in await refused(altered(database_url, name="/absent_database"))


@pytest.mark.parametrize("engine_name", POSTGRESQLS, indirect=True)
async def test_a_database_of_another_encoding_is_refused(database_url: str) -> None:
    server = await asyncpg.connect(database_url)
    name = f"tollway_test_{getpid()}_{token_hex(6)}"
    try:
        await server.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        other = Store(altered(database_url, name=f"/{name}"))
        with pytest.raises(Unsupported, match="is LATIN1, and must be UTF8"):
            await other.connect()
        await server.execute(f"DROP DATABASE {name}")
    finally:
        await server.close()


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb-local"], indirect=True)
async def test_a_wrong_password_is_said(database_url: str, store: Store) -> None:
    user = "guarded" if store.address.dialect == "postgresql" else f"guarded_{token_hex(4)}@'127.0.0.1'"
    name = user.partition("@")[0]
    word = "PASSWORD" if store.address.dialect == "postgresql" else "IDENTIFIED BY"
    await store.change(text(f"CREATE USER {user} {word} 'right'"))
    try:
        assert name in await refused(altered(database_url, user=f"{name}:hunter2"))
        # With the right one the server has another reason.
        with pytest.raises(Unavailable, match=r"permission denied|Access denied .* to database"):
            await migrate.current(altered(database_url, user=f"{name}:right"))
    finally:
        await store.change(text(f"DROP USER {user}"))


@pytest.mark.parametrize("engine_name", POSTGRESQLS, indirect=True)
async def test_a_database_without_rights_is_left_as_it_was(empty_database_url: str, store: Store) -> None:
    """Somebody who may connect but make no table: one sentence, and nothing is there afterwards."""
    visitor = f"visitor_{token_hex(4)}"
    owner = Store(empty_database_url)
    await owner.connect()
    await owner.change(text(f"CREATE USER {visitor}"))
    await owner.change(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    try:
        with pytest.raises(Unavailable, match="permission denied for schema public"):
            await migrate.upgrade(altered(empty_database_url, user=visitor))
        assert await migrate.current(empty_database_url) is None
    finally:
        await owner.change(text(f"DROP USER {visitor}"))
        await owner.close()


async def test_transactions_run_side_by_side(store: Store) -> None:
    for name in ("a", "b"):
        await store.insert(insert(users).values(username=name, created_at=1))
    both = asyncio.Barrier(2)

    async def take(transaction: Transaction, name: str) -> None:
        await transaction.change(update(users).where(users.c.username == name).values(quota=1))
        await both.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(store.run(lambda transaction, name=name: take(transaction, name)) for name in "ab"))


async def test_transactions_that_wait_for_each_other_both_succeed(store: Store) -> None:
    for name in ("a", "b"):
        await store.insert(insert(users).values(username=name, created_at=1))
    first_steps = asyncio.Barrier(2)
    begun = 0

    async def cross(transaction: Transaction, names: str) -> None:
        nonlocal begun
        begun += 1
        for step, name in enumerate(names):
            await transaction.change(update(users).where(users.c.username == name).values(quota=users.c.quota + 1))
            if step == 0 and begun <= 2:
                await first_steps.wait()

    orders = ("ab", "ba")
    await asyncio.gather(*(store.run(lambda transaction, names=names: cross(transaction, names)) for names in orders))
    assert begun == 3
    assert {row["quota"] for row in await store.all(select(users))} == {2}


async def connection_id(session: Store | Transaction, store: Store) -> int:
    row = await session.one(ONE_CONNECTION[store.address.dialect])
    assert row is not None
    return row["id"]


async def test_a_connection_that_breaks_ends_its_transaction_and_no_other(store: Store, database_url: str) -> None:
    other = Store(database_url)
    await other.connect()
    end = END[store.address.dialect]

    async def work(transaction: Transaction) -> None:
        await transaction.insert(insert(options).values(key="k", value="v"))
        number = await connection_id(transaction, store)
        await other.all(text(end.format(id=number))) if store.address.dialect == "postgresql" else await other.change(
            text(end.format(id=number))
        )
        await transaction.insert(insert(options).values(key="l", value="v"))

    with pytest.raises(Unavailable):
        await store.run(work)
    assert await store.all(select(options)) == []
    for _ in range(3):
        await store.upsert(options, {"key": "k", "value": "v"})
    await other.close()


async def test_a_statement_ends_when_nobody_waits_for_it_any_more(
    database_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(postgresql, "COMMAND_TIMEOUT_S", 1.0)
    hasty = Store(database_url)
    await hasty.connect()
    with pytest.raises(Unavailable):
        await hasty.all(text(SLEEP[store.address.dialect]))
    for _ in range(50):
        if not await store.all(text(ASLEEP[store.address.dialect])):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("it goes on")
    assert await hasty.one(select(users)) is None
    await hasty.close()


async def test_idle_connections_that_were_cut_are_replaced(store: Store, database_url: str) -> None:
    number = await connection_id(store, store)
    other = Store(database_url)
    await other.connect()
    statement = text(END[store.address.dialect].format(id=number))
    await other.one(statement) if store.address.dialect == "postgresql" else await other.change(statement)
    await other.close()
    await asyncio.sleep(0.1)
    assert await store.one(select(users)) is None


async def test_a_pool_is_as_large_as_it_is_told(database_url: str) -> None:
    store = Store(f"{database_url}{'&' if '?' in database_url else '?'}pool_size=2")
    await store.connect()
    running = most = 0

    async def work(transaction: Transaction) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await transaction.one(select(users))
        await asyncio.sleep(0.01)
        running -= 1

    await asyncio.gather(*(store.run(work) for _ in range(10)))
    assert most == 2
    await store.close()


async def test_a_text_that_is_too_long_is_refused_and_not_cut(store: Store) -> None:
    with pytest.raises(BadValue, match=r"(?i)too long"):
        await store.insert(insert(users).values(username="a" * 65, created_at=1))
    assert await store.insert(insert(users).values(username="\U0001f600" * 64, created_at=1)) > 0


async def test_encryption_that_is_only_preferred_can_be_done_without(database_url: str) -> None:
    store = Store(altered(database_url, query="sslmode=prefer"))
    await store.connect()
    assert await store.one(select(users)) is None
    await store.close()


async def test_encryption_that_cannot_be_had_is_not_done_without(database_url: str) -> None:
    await refused(altered(database_url, query="sslmode=require"))


async def test_a_root_that_cannot_be_read_is_named(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    for name, why in (("absent", "No such file"), ("text", "no certificate")):
        said = await refused(
            altered(database_url, query=f"sslmode=verify-full&sslrootcert={tmp_path}/{name}"), Unsupported
        )
        assert f"sslrootcert {tmp_path}/{name} cannot be read" in said
        assert why in said


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a PostgreSQL with a certificate for 127.0.0.1, and the folder of two roots: its `own` and `other`."""
    folder = tmp_path_factory.mktemp("roots")
    own, other = trustme.CA(), trustme.CA()
    own.cert_pem.write_to_path(str(folder / "own"))
    other.cert_pem.write_to_path(str(folder / "other"))
    issued = own.issue_cert("127.0.0.1")
    files = {"server.crt": issued.cert_chain_pems[0].bytes(), "server.key": issued.private_key_pem.bytes()}
    with private_postgresql(local_binaries(), "ssl=on", files=files) as port:
        yield port, folder


@pytest.mark.parametrize(
    ("host", "query", "is_encrypted"),
    [
        pytest.param("127.0.0.1", "sslmode=disable", False, id="disable"),
        pytest.param("127.0.0.1", "", True, id="by default, where it can be had"),
        pytest.param("127.0.0.1", "sslmode=prefer", True, id="prefer"),
        pytest.param("127.0.0.1", "sslmode=require", True, id="require"),
        pytest.param("127.0.0.1", "sslmode=require&sslrootcert={}/other", None, id="require, another root"),
        pytest.param("127.0.0.1", "sslmode=verify-ca&sslrootcert={}/own", True, id="verify-ca"),
        pytest.param("localhost", "sslmode=verify-ca&sslrootcert={}/own", True, id="verify-ca, another name"),
        pytest.param("127.0.0.1", "sslmode=verify-ca&sslrootcert={}/other", None, id="verify-ca, another root"),
        pytest.param("127.0.0.1", "sslmode=verify-full&sslrootcert={}/own", True, id="verify-full"),
        pytest.param("localhost", "sslmode=verify-full&sslrootcert={}/own", None, id="verify-full, another name"),
        pytest.param("127.0.0.1", "sslmode=verify-full", None, id="verify-full, the system's roots"),
    ],
)
async def test_connections_are_encrypted_as_asked(
    encrypted: tuple[int, Path], host: str, query: str, is_encrypted: bool | None
) -> None:
    port, folder = encrypted
    url = f"postgresql://postgres@{host}:{port}/postgres?{query.format(folder)}"
    if is_encrypted is None:
        await refused(url)
        return
    store = Store(url)
    await store.connect()
    found = await store.one(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    assert found == {"ssl": is_encrypted}
    await store.close()
