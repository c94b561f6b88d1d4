import pytest
from tollway.gateway.store import Store, Unsupported
from tollway.gateway.store.address import Address, parse, shown


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
    ("text", "dialect", "url"),
    [
        pytest.param(
            "postgres://u:p@h/d?sslmode=require", "postgresql", "postgresql://u:p@h/d?sslmode=require", id="pg"
        ),
        pytest.param("postgresql+asyncpg://h/d", "postgresql", "postgresql://h/d", id="pg with driver"),
        pytest.param("mariadb://h/d", "mysql", "mysql://h/d", id="mariadb"),
        pytest.param("u:p@ss@tcp(h:3306)/d?parseTime=true", "mysql", "mysql://u:p%40ss@h:3306/d", id="Go's mysql"),
    ],
)
def test_servers_are_recognised(text: str, dialect: str, url: str) -> None:
    address = parse(text)
    assert (address.dialect, address.url.reveal()) == (dialect, url)


def test_a_password_is_not_shown() -> None:
    address = parse("postgres://user:hunter2@db.example/tollway?sslmode=require")
    assert shown(address) == "postgresql://db.example/tollway"
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
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(Unsupported, match=says) as refused:
        parse(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgres://h/d", "mysql://h/d"])
def test_a_server_is_refused_until_it_is_served(url: str) -> None:
    with pytest.raises(Unsupported, match=r"SQL.* (not served|not installed)"):
        Store(url)
