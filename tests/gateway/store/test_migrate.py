import asyncio
import hashlib
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Text, create_engine, inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tollway.gateway.store import ForeignDatabase, SchemaTooNew, Store, Unavailable, migrate, users
from tollway.gateway.store.schema import metadata

from tests.servers import MYSQLS, POSTGRESQLS

pytestmark = pytest.mark.anyio

T = TypeVar("T")

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}
UPGRADE = "import asyncio, sys; from tollway.gateway.store import migrate; asyncio.run(migrate.upgrade(sys.argv[1]))"
SERVE = """
import asyncio, sys
from tollway.gateway.store import Store, migrate

async def main():
    store = Store(sys.argv[1])
    await store.connect()
    print(await migrate.needs_upgrade(store), *(name in sys.modules for name in ("alembic", "sqlalchemy.ext.asyncio")))
    await store.close()

asyncio.run(main())
"""

# Half a second each.
SLOW = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3000000) SELECT count(*) FROM c",
    "postgresql": "SELECT pg_sleep(0.5)",
    "mysql": "SELECT sleep(0.5)",
}

# Tests of what an engine without transactions around changes of tables cannot promise.
WHOLE_OR_NOT_AT_ALL = ("sqlite", *POSTGRESQLS)


async def python(program: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncGenerator[Store]:
    store = Store(empty_database_url)
    await store.connect()
    yield store
    await store.close()


async def on(url: str, work: Callable[[Connection], T]) -> T:
    """What `work` finds on a connection of SQLAlchemy's own."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    engine = create_async_engine(f"{DRIVERS[scheme]}://{rest}", poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(work)
    await engine.dispose()
    return found


def schema_of(connection: Connection) -> dict[str, Any]:
    """Columns, keys and indexes of every table, and the revision."""
    found = inspect(connection)
    tables = found.get_table_names()

    def indexes_of(table: str) -> list[object]:
        return [(index, *map(str, index.pop("dialect_options", {}).values())) for index in found.get_indexes(table)]

    parts = (found.get_columns, found.get_pk_constraint, found.get_foreign_keys, indexes_of)
    schema: dict[str, Any] = {table: [str(part(table)) for part in parts] for table in sorted(tables)}
    if "alembic_version" in tables:
        schema["version"] = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return schema


def details(path: Path, table: str) -> list[list[tuple[object, ...]]]:
    """Columns with types and defaults, foreign keys, and the columns of every index, of one table."""
    connection = sqlite3.connect(path)
    indexes = sorted(name for _, name, *_ in connection.execute(f"PRAGMA index_list({table})"))
    columns = sorted(row[1:] for row in connection.execute(f"PRAGMA table_xinfo({table})"))
    questions = [f"foreign_key_list({table})", *(f"index_info({name})" for name in indexes)]
    # Without the number of a column in its table: one that was added later stands at the end.
    answers = [[row[2:] for row in connection.execute(f"PRAGMA {question}")] for question in questions]
    connection.close()
    return [[tuple(indexes)], columns, *answers]


async def test_an_empty_database_is_brought_up_to_date(empty: Store, empty_database_url: str) -> None:
    url = empty_database_url
    assert (await migrate.needs_upgrade(empty), await migrate.current(url)) == (True, None)
    await migrate.upgrade(url)
    assert (await migrate.needs_upgrade(empty), await migrate.current(url)) == (False, migrate.HEAD)
    assert await users.create(empty, username="ada", now_ms=1) == 1


async def test_an_upgrade_that_is_cancelled_keeps_no_lock(
    empty: Store, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that gives a start up, and tries again in the same process, must not wait for itself."""
    upgrade = command.upgrade

    def cancelled(config: Config, revision: str) -> None:
        upgrade(config, revision)
        asyncio.get_running_loop().call_later(0.05, start.cancel)
        config.attributes["connection"].exec_driver_sql(SLOW[empty.address.dialect])

    monkeypatch.setattr(command, "upgrade", cancelled)
    start = asyncio.create_task(migrate.upgrade(empty_database_url))
    with pytest.raises(asyncio.CancelledError):
        await start
    monkeypatch.undo()
    async with asyncio.timeout(10):
        await migrate.upgrade(empty_database_url)
    assert await users.create(empty, username="ada", now_ms=1) == 1


async def test_a_missing_file_is_made_and_private(tmp_path: Path) -> None:
    await migrate.upgrade(f"sqlite:///{tmp_path}/new.db")
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


async def test_upgrading_again_changes_nothing(database_url: str) -> None:
    before = await on(database_url, schema_of)
    await migrate.upgrade(database_url)
    assert await on(database_url, schema_of) == before


async def test_upgrading_a_file_again_does_not_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    await migrate.upgrade(str(path))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    await migrate.upgrade(str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


async def test_four_processes_at_once_all_succeed(empty_database_url: str, empty: Store) -> None:
    ends = await asyncio.gather(*(python(UPGRADE, empty_database_url) for _ in range(4)))
    assert [(code, err) for code, _, err in ends] == [(0, "")] * 4
    assert (await on(empty_database_url, schema_of))["version"] == [migrate.HEAD]


async def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    await migrate.upgrade(f"sqlite:///{tmp_path}/migrated.db")
    engine = create_engine(f"sqlite:///{tmp_path}/plain.db")
    metadata.create_all(engine)
    engine.dispose()
    for table in metadata.tables:
        assert details(tmp_path / "migrated.db", table) == details(tmp_path / "plain.db", table), table


async def test_alembic_finds_nothing_to_add(database_url: str) -> None:
    def differs(_: object, __: object, ___: object, ____: object, wanted: object) -> bool | None:
        return False if isinstance(wanted, Text) else None  # on MySQL it is one of the longer ones

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": differs})
        return list(compare_metadata(context, metadata))

    assert await on(database_url, compare) == []


def test_every_revision_is_listed_in_order() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations")))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == migrate.REVISIONS


async def test_a_newer_schema_is_refused_and_left_alone(database_url: str, store: Store) -> None:
    await store.change(text("UPDATE alembic_version SET version_num = '9999'"))
    before = await on(database_url, schema_of)
    for attempt in (migrate.needs_upgrade(store), migrate.upgrade(database_url), migrate.current(database_url)):
        with pytest.raises(SchemaTooNew, match="has schema 9999, this Tollway knows up to"):
            await attempt
    assert await on(database_url, schema_of) == before


async def test_another_programs_database_is_refused_and_left_alone(empty_database_url: str, empty: Store) -> None:
    await empty.change(text("CREATE TABLE users (id INTEGER PRIMARY KEY, access_token VARCHAR(32))"))
    before = await on(empty_database_url, schema_of)
    remedy = "another folder with --data-dir" if empty.address.path else "another one in SQL_DSN"
    for attempt in (migrate.needs_upgrade(empty), migrate.upgrade(empty_database_url)):
        with pytest.raises(ForeignDatabase, match=f"holds tables of another program: name {remedy}"):
            await attempt
    assert await on(empty_database_url, schema_of) == before


@pytest.mark.parametrize("engine_name", WHOLE_OR_NOT_AT_ALL, indirect=True)
async def test_a_failing_revision_leaves_nothing(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError, match="half way"):
        await migrate.upgrade(empty_database_url)
    assert await on(empty_database_url, schema_of) == {}


@pytest.mark.parametrize("engine_name", MYSQLS, indirect=True)
@pytest.mark.parametrize("steps", [0, 3, 10, 14, 18, 24])
async def test_an_upgrade_that_was_cut_short_is_taken_up(
    empty_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    left = steps
    execute = Connection.execute

    def cut(self: Connection, statement: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        if str(statement).lstrip().startswith(("CREATE", "ALTER", "INSERT")) or statement.__visit_name__.startswith(
            ("create", "alter", "add", "drop")
        ):
            if left == 0:
                raise RuntimeError("killed")
            left -= 1
        return execute(self, statement, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "execute", cut)
        with pytest.raises(RuntimeError, match="killed"):
            await migrate.upgrade(empty_database_url)
    await migrate.upgrade(empty_database_url)
    assert await on(empty_database_url, schema_of) == await on(database_url, schema_of)
    store = Store(empty_database_url)
    await store.connect()
    assert len(await store.all(select(metadata.tables["installation"]))) == 1
    await store.close()


@pytest.mark.parametrize("engine_name", MYSQLS, indirect=True)
async def test_every_column_compares_by_its_characters(store: Store) -> None:
    collations = text(
        "SELECT DISTINCT collation_name AS name FROM information_schema.columns WHERE table_schema = database() "
        "AND collation_name IS NOT NULL"
    )
    assert [row["name"] for row in await store.all(collations)] == ["utf8mb4_nopad_bin"]


async def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"this is text, and no database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await migrate.upgrade(str(tmp_path / "text.db"))


async def test_a_process_that_is_up_to_date_does_not_load_alembic(database_url: str) -> None:
    assert await python(SERVE, database_url) == (0, "False False False\n", "")
