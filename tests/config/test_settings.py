"""Settings from the environment, and messages that name a variable without showing a secret."""

import pytest
from tollway.config.secret import Secret
from tollway.config.settings import VARIABLES, SettingError, Settings

DSN_SECRETS = [
    "root:s3cretpw@dbhost/tollway",
    "root:s3cretpw@dbhost",
    "root:s3c/re@tpw@dbhost:3306/tollway",
    "root:s3cretpw@mysql://dbhost/tollway",
    "root:s3cretpw://dbhost/tollway",
]


def refusal(name: str, text: str) -> str:
    with pytest.raises(SettingError) as caught:
        Settings.from_environ({name: text})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize("name", ["CRYPTO_SECRET", "METRICS_TOKEN"])
def test_a_secret_that_is_too_short_is_named_and_not_shown(name: str) -> None:
    assert refusal(name, "hunter2-short") == f"{name} must be a secret: it needs at least 16 characters"


def test_a_former_secret_that_is_too_short_is_named_and_not_shown() -> None:
    message = "CRYPTO_SECRET_FORMER must be a secret, or several between commas: it needs at least 16 characters"
    assert refusal("CRYPTO_SECRET_FORMER", "hunter2-short") == message


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("the only one there was", ["the only one there was"]),
        ("the last one there was, the one before it", ["the last one there was", "the one before it"]),
        ("one, with commas, of its own", ["one, with commas, of its own"]),
        ("one that has a comma,and could be two", ["one that has a comma,and could be two"]),
    ],
)
def test_former_secrets_stand_between_commas_which_may_also_be_their_own(text: str, among: list[str]) -> None:
    settings = Settings.from_environ({"CRYPTO_SECRET_FORMER": text})
    assert {Secret(each) for each in among} <= set(settings.crypto_secret_former)
    assert not [each for each in settings.crypto_secret_former if len(each.reveal()) < 16]
    assert text not in repr(settings)


@pytest.mark.parametrize("name", ["SQL_DSN", "DATABASE_URL"])
@pytest.mark.parametrize("text", DSN_SECRETS)
def test_an_address_with_credentials_and_no_scheme_is_named_and_not_shown(name: str, text: str) -> None:
    message = refusal(name, text)
    assert message.startswith(f"{name} must be a database URL: ")
    for part in ("root", "s3c", "dbhost"):
        assert part not in message


@pytest.mark.parametrize(
    "text",
    [
        "https://root:s3c/retpw@host/",
        "https://root:s3cretpw@host/",
        "https://dbhost:s3cretpw/",
        "https://[s3cretpw]/",
        "https://[s3cretpw/",
    ],
)
def test_a_webhook_that_cannot_be_used_is_named_and_not_shown(text: str) -> None:
    message = refusal("NOTIFY_WEBHOOK_URL", text)
    assert message.startswith("NOTIFY_WEBHOOK_URL must be a URL: it is https:// or http://, a host, and no user")
    assert "s3c" not in message


@pytest.mark.parametrize("text", ["whsec_s3cret", "s3cretpw" * 20, "whsec_" + "s3c=" * 8, "s3cretpw/" * 4 + "ü"])
def test_a_webhook_secret_that_cannot_be_used_is_named_and_not_shown(text: str) -> None:
    message = refusal("NOTIFY_WEBHOOK_SECRET", text)
    assert message.startswith("NOTIFY_WEBHOOK_SECRET must be base64 of 24 to 64 bytes: ")
    assert "s3c" not in message


@pytest.mark.parametrize(
    "text",
    [
        "tollway.db",
        "/srv/tollway.db",
        "./odd:name.db",
        "/srv/a:b/c@d/tollway.db",
        "C:\\data\\a@b\\tollway.db",
        "sqlite:////srv/tollway.db",
        "sqlite:///tollway.db?busy_timeout=5",
        "postgresql+asyncpg://root:s3cretpw@dbhost/tollway",
        "mysql://root:s3:cr@etpw@dbhost/tollway",
        "root:s3cretpw@tcp(dbhost:3306)/tollway",
        "root:s3:cr@et/pw@(dbhost)/tollway?charset=utf8",
    ],
)
def test_what_can_be_a_database_is_passed_on(text: str) -> None:
    assert Settings.from_environ({"SQL_DSN": text}).database_url == text


@pytest.mark.parametrize("name", ["SQL_DSN", "LOG_SQL_DSN", "REDIS_CONN_STRING"])
def test_a_password_in_an_address_is_not_shown(name: str) -> None:
    scheme = "redis" if name.startswith("REDIS") else "postgresql"
    assert "s3cretpw" not in repr(Settings.from_environ({name: f"{scheme}://root:s3cretpw@host/1"}))


@pytest.mark.parametrize(
    ("name", "text"), [("PORT", "http"), ("PORT", "65536"), ("CONNECT_TIMEOUT", "soon"), ("ACCESS_LOG", "perhaps")]
)
def test_another_value_that_cannot_be_used_is_shown(name: str, text: str) -> None:
    message = refusal(name, text)
    assert message.startswith(f"{name} must be ")
    assert repr(text) in message


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environ({}) == Settings()
    assert Settings.from_environ({variable.name: " " for variable in VARIABLES}) == Settings()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (("SQL_DSN", "DATABASE_URL", "SQLITE_PATH"), "SQL_DSN"),
        (("DATABASE_URL", "SQLITE_PATH"), "DATABASE_URL"),
        (("SQL_DSN", "SQLITE_PATH"), "SQL_DSN"),
    ],
)
def test_of_several_databases_the_one_that_is_tollways_own_counts(given: tuple[str, ...], taken: str) -> None:
    """Another app's DATABASE_URL, or a path left over from before, moves no accounts to another database."""
    texts = {"SQL_DSN": "sqlite:////sql_dsn", "DATABASE_URL": "sqlite:////database_url", "SQLITE_PATH": "/sqlite_path"}
    settings = Settings.from_environ({name: texts[name] for name in given})
    assert settings.database == texts[taken]


@pytest.mark.parametrize("text", ["*", "https://a.example", "http://localhost:5173, https://b.example", "null"])
def test_origins_are_taken_as_browsers_write_them(text: str) -> None:
    assert Settings.from_environ({"CORS_ORIGINS": text}).cors_origins == tuple(text.split(", "))


@pytest.mark.parametrize(
    "text", ["a.example", "https://a.example/", "https://a.example/app", "https://A.example", "localhost:5173"]
)
def test_an_origin_that_no_browser_sends_is_refused(text: str) -> None:
    assert refusal("CORS_ORIGINS", text).startswith("CORS_ORIGINS must be a comma list of origins, not ")
