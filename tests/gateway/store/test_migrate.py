import asyncio
import hashlib
import sqlite3
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from tollway.gateway.store import ForeignDatabase, SchemaTooNew, Store, Unavailable, migrate
from tollway.gateway.store.schema import metadata

pytestmark = pytest.mark.anyio

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


async def python(program: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncGenerator[Store]:
    store = Store(str(tmp_path / "empty.db"))
    await store.connect()
    yield store
    await store.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def schema_of(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return rows


def details(path: Path, table: str) -> list[list[tuple[object, ...]]]:
    """Columns with types and defaults, foreign keys, and the columns of every index, of one table."""
    connection = sqlite3.connect(path)
    indexes = sorted(name for _, name, *_ in connection.execute(f"PRAGMA index_list({table})"))
    questions = [f"table_xinfo({table})", f"foreign_key_list({table})", *(f"index_info({name})" for name in indexes)]
    answers = [connection.execute(f"PRAGMA {question}").fetchall() for question in questions]
    connection.close()
    return [[tuple(indexes)], *answers]


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


async def test_an_empty_database_is_brought_up_to_date(empty: Store) -> None:
    url = empty.address.path
    assert (await migrate.needs_upgrade(empty), await migrate.current(url)) == (True, None)
    await migrate.upgrade(url)
    assert (await migrate.needs_upgrade(empty), await migrate.current(url)) == (False, migrate.HEAD)


async def test_a_missing_database_is_made_and_private(tmp_path: Path) -> None:
    await migrate.upgrade(f"sqlite:///{tmp_path}/new.db")
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


async def test_upgrading_again_changes_nothing(path: Path) -> None:
    before = digest(path)
    await migrate.upgrade(str(path))
    assert digest(path) == before


async def test_four_processes_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    ends = await asyncio.gather(*(python(UPGRADE, str(path)) for _ in range(4)))
    assert [(code, err) for code, _, err in ends] == [(0, "")] * 4
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(migrate.HEAD,)]
    connection.close()


def test_the_migrations_make_the_tables_of_the_schema(path: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/plain.db")
    metadata.create_all(engine)
    engine.dispose()
    for table in metadata.tables:
        assert details(path, table) == details(tmp_path / "plain.db", table), table


def test_alembic_finds_nothing_to_add(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_every_revision_is_listed_in_order() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations")))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == migrate.REVISIONS


async def test_a_newer_schema_is_refused_and_left_alone(path: Path, store: Store) -> None:
    execute(path, "UPDATE alembic_version SET version_num = '9999'")
    before = schema_of(path)
    for attempt in (migrate.needs_upgrade(store), migrate.upgrade(str(path)), migrate.current(str(path))):
        with pytest.raises(SchemaTooNew, match="has schema 9999, this Tollway knows up to"):
            await attempt
    assert schema_of(path) == before


async def test_another_programs_database_is_refused_and_left_alone(empty: Store) -> None:
    path = Path(empty.address.path)
    execute(path, "CREATE TABLE users (id INTEGER PRIMARY KEY, access_token TEXT)")
    before = schema_of(path)
    for attempt in (migrate.needs_upgrade(empty), migrate.upgrade(str(path))):
        with pytest.raises(ForeignDatabase, match="name another folder with --data-dir"):
            await attempt
    assert schema_of(path) == before


async def test_a_failing_revision_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError, match="half way"):
        await migrate.upgrade(str(tmp_path / "new.db"))
    assert schema_of(tmp_path / "new.db") == []


async def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"this is text, and no database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await migrate.upgrade(str(tmp_path / "text.db"))


async def test_a_process_that_is_up_to_date_does_not_load_alembic(path: Path) -> None:
    assert await python(SERVE, str(path)) == (0, "False False False\n", "")
