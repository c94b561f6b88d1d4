import pytest
from tollway.gateway.store import Unsupported
from tollway.gateway.store.address import Address, parse, shown
from tollway.gateway.store.server_address import Server


def server(text: str) -> Server:
    found = parse(text).server
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("sqlite:///data/tollway.db", "data/tollway.db", id="three slashes are relative"),
        pytest.param("sqlite:////data/tollway.db", "/data/tollway.db", id="four slashes are absolute"),
        pytest.param("sqlite+aiosqlite:///tollway.db", "tollway.db", id="a driver in the scheme is ignored"),
        pytest.param("/data/tollway.db", "/data/tollway.db", id="a plain absolute path"),
        pytest.param("sqlite:////data/a%20b%23c.db", "/data/a b#c.db", id="a URL is unquoted"),
        pytest.param("/data/a%20b#c.db", "/data/a%20b#c.db", id="a path is not"),
    ],
)
def test_sqlite_is_spelled_in_many_ways(text: str, path: str) -> None:
    assert parse(text) == Address("sqlite", path=path)


def test_the_busy_timeout_of_a_new_api_path_is_honoured() -> None:
    assert parse("sqlite:///one-api.db?_busy_timeout=30000").busy_timeout_ms == 30_000


@pytest.mark.parametrize(
    ("text", "shows", "user", "password"),
    [
        pytest.param("postgres://u:p@h/d", "postgresql://h:5432/d", "u", "p", id="pg"),
        pytest.param("postgresql+asyncpg://u@h:6432/d", "postgresql://h:6432/d", "u", "", id="pg with driver"),
        pytest.param("mariadb://u:p@h/d", "mysql://h:3306/d", "u", "p", id="mariadb"),
        pytest.param("mysql://u:p%40s%2Fs@h/d", "mysql://h:3306/d", "u", "p@s/s", id="a quoted password"),
        pytest.param("mysql://u:p@s/s#1@h/d", "mysql://h:3306/d", "u", "p@s/s#1", id="a password that was not quoted"),
        pytest.param("postgres://u:p:q@[::1]:1/d", "postgresql://::1:1/d", "u", "p:q", id="IPv6"),
        pytest.param("postgres://u@/d", "postgresql://127.0.0.1:5432/d", "u", "", id="no host"),
        pytest.param("postgres://u@/d?host=/run/pg", "postgresql:///run/pg:5432/d", "u", "", id="pg's socket"),
        pytest.param("u:p@ss@tcp(h:3307)/d?parseTime=true", "mysql://h:3307/d", "u", "p@ss", id="Go's mysql"),
        pytest.param("u:p%40@tcp(h)/d", "mysql://h:3306/d", "u", "p%40", id="Go quotes no password"),
        pytest.param("u:a/b?c@tcp(h)/d", "mysql://h:3306/d", "u", "a/b?c", id="Go's password holds anything"),
        pytest.param("u@unix(/run/my.sock)/d", "mysql:///run/my.sock:3306/d", "u", "", id="Go's socket"),
    ],
)
def test_servers_are_spelled_in_many_ways(text: str, shows: str, user: str, password: str) -> None:
    found = server(text)
    assert (shown(parse(text)), found.user, found.password.reveal()) == (shows, user, password)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        pytest.param("postgres://u@h/d", "tls", "prefer", id="pg tries TLS"),
        pytest.param("mysql://u@h/d", "tls", "disable", id="mysql does not"),
        pytest.param("postgres://u@h/d?sslmode=disable", "tls", "disable", id="sslmode"),
        pytest.param("mysql://u@h/d?sslmode=verify-full", "tls", "verify-full", id="sslmode of mysql"),
        pytest.param("postgres://u@h/d?sslmode=require&sslrootcert=/ca", "tls", "verify-ca", id="a root is used"),
        pytest.param("postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca", "tls_root", "/ca", id="sslrootcert"),
        pytest.param("u@tcp(h)/d?tls=skip-verify", "tls", "require", id="Go's skip-verify"),
        pytest.param("u@tcp(h)/d?tls=true", "tls", "verify-full", id="Go's true"),
        pytest.param("u@tcp(h)/d?tls=false", "tls", "disable", id="Go's false"),
        pytest.param("u@tcp(h)/d?tls=preferred", "tls", "prefer", id="Go's preferred"),
        pytest.param("postgres://u@h/d?pool_size=30", "pool_size", 30, id="pool_size"),
        pytest.param("postgres://u@h/d?connect_timeout=3", "connect_timeout_s", 3.0, id="connect_timeout"),
        pytest.param("u@tcp(h)/d?timeout=1500ms", "connect_timeout_s", 1.5, id="Go's timeout"),
        pytest.param("postgres://u@h/d?statement_cache_size=0", "statement_cache", 0, id="behind PgBouncer"),
        pytest.param("postgres://u@h/d?application_name=a", "application", "a", id="application_name"),
    ],
)
def test_an_option_is_honoured(text: str, field: str, value: object) -> None:
    assert getattr(server(text), field) == value


@pytest.mark.parametrize(
    "text",
    [
        "u:p@tcp(h)/d?charset=utf8mb4&parseTime=True&loc=Local",
        "u:p@tcp(h)/d?collation=utf8mb4_unicode_ci&interpolateParams=true&clientFoundRows=true",
        "postgres://u@h/d?TimeZone=Asia%2FShanghai&client_encoding=UTF8",
    ],
)
def test_an_option_that_changes_nothing_here_is_harmless(text: str) -> None:
    assert server(text).name == "d"


def test_a_password_is_not_shown() -> None:
    address = parse("postgres://user:hunter2@db.example/tollway?sslmode=require")
    assert shown(address) == "postgresql://db.example:5432/tollway"
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("oracle://h/d", "oracle:// is no database known here", id="an unknown scheme"),
        pytest.param("sqlite://tollway.db", "three slashes", id="two slashes"),
        pytest.param("sqlite:///:memory:", "needs a SQLite file", id="memory"),
        pytest.param("garbage", "such as sqlite:///file.db", id="no scheme"),
        pytest.param("root:hunter2@host/db", "such as sqlite:///file.db", id="a password without a scheme"),
        pytest.param("root:hunter2@host://db", "it is no database known here", id="a password as a scheme"),
        pytest.param("sqlite://", "three slashes", id="nothing"),
        pytest.param("sqlite:///a.db?mode=ro", "mode", id="an option that would be ignored"),
        pytest.param("postgres://h/d", "names its user and its database", id="no user"),
        pytest.param("postgres://u:hunter2@h", "names its user and its database", id="no database"),
        pytest.param("postgres://u:hunter2@h/", "names its user and its database", id="an empty database"),
        pytest.param("postgres://u:hunter2@h:port/d", "port of a PostgreSQL URL", id="a port that is none"),
        pytest.param("u:hunter2@tcp(h:99999)/d", "port of a MySQL address", id="Go's port that is none"),
        pytest.param("postgres://u:hunter2@a,b/d", "names one host", id="several hosts"),
        pytest.param("postgres://u:hunter2@h/d?sslmode=yes", "sslmode of a database URL must be one of", id="sslmode"),
        pytest.param("postgres://u@h/d?sslmode=prefer&sslrootcert=/ca", "of no use with sslmode=prefer", id="root"),
        pytest.param("u@tcp(h)/d?tls=custom", "tls of a MySQL URL must be one of", id="Go's own tls"),
        pytest.param("postgres://u@h/d?ssl=true", "the option ssl of a PostgreSQL URL is not", id="ssl"),
        pytest.param("postgres://u@h/d?sslcert=/c", "the option sslcert of a PostgreSQL", id="sslcert"),
        pytest.param("postgres://u@h/d?charset=utf8mb4", "the option charset of a PostgreSQL", id="another's option"),
        pytest.param("u@tcp(h)/d?multiStatements=true", "the option multiStatements of a MySQL", id="a Go option"),
        pytest.param("u@tcp(h)/d?charset=utf8", "can only be utf8mb4", id="half an encoding"),
        pytest.param("u@tcp(h)/d?collation=latin1_bin", "must be one of utf8mb4", id="a collation"),
        pytest.param("u@tcp(h)/d?timeout=soon", "must be a duration such as 10s", id="a duration that is none"),
        pytest.param("postgres://u@h/d?pool_size=1", "from 2 to 1000", id="a pool that is too small"),
        pytest.param("postgres://u@h/d?pool_size=many", "from 2 to 1000", id="a pool that is no number"),
        pytest.param("postgres://u@h/d?connect_timeout=0", "from 1 to 3600", id="no time at all"),
        pytest.param("postgres://u@h/d?host=other", "the option is for a socket", id="a second host"),
        pytest.param("postgres://u@h/d?hunter2=hunter2", "option of this name|the option", id="what may be a password"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(Unsupported, match=says) as refused:
        parse(text)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)
