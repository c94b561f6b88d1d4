"""`tollway budget`: what is set, refused, listed and taken away; and until when budgets and balances last."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from tollway.config.budget import BudgetKind, Period
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import budgets, charges, leases, schema
from tollway.gateway.store.charges import Batch
from tollway.gateway.store.records import ChargeRecord

from .conftest import Tollway

Done = Callable[..., Any]


@pytest.fixture
def ada(done: Done) -> int:
    return done("user", "create", "--username", "ada", "--quota", 7000, "--group", "vip")["id"]


@pytest.fixture
def laptop(done: Done, ada: int) -> int:
    return done("token", "create", "--user", "ada", "--name", "laptop")["id"]


def spend(in_store: Callable[..., Any], user_id: int, token_id: int, quota: int, *, days_ago: int = 1) -> None:
    """A charge that pays out of the budgets that there are."""
    now = int(time.time() * 1000)

    async def work(opened: DataDir) -> None:
        found = await budgets.list_all(opened.store)
        periods = [await budgets.begin(opened.store, budget.id, now) for budget in found]
        ids = tuple(period.id for period in periods if period is not None)
        record = ChargeRecord(
            now - days_ago * 86_400_000, user_id, quota, token_id=token_id, unlimited=True, budgets=ids
        )
        await leases.join(opened.store, f"h{quota}", host="", now_ms=1)
        assert await charges.flush(opened.store, Batch(f"h{quota}", 0, 1, (record,)), now)
        await leases.leave(opened.store, f"h{quota}")

    in_store(work)


def test_a_budget_is_set_listed_and_deleted(done: Done, tollway: Tollway, ada: int, laptop: int) -> None:
    made = done("budget", "set", "--user", "ada", "--period", "daily", "--amount", 1_000_000)
    assert made == {"id": 1, "kind": "user", "subject": str(ada), "period": "daily", "amount": 1_000_000}
    done("budget", "set", "--token", laptop, "--period", "weekly", "--amount", 500, "--soft-percent", 0)
    done("budget", "set", "--group", "vip", "--period", "monthly", "--amount", 10**15)
    found = done("budget", "list")
    assert [(each["name"], each["period"], each["amount"], each["soft_percent"]) for each in found] == [
        ("user ada", "daily", 1_000_000, 80),
        (f"token {laptop} (laptop)", "weekly", 500, 0),
        ("group vip", "monthly", 10**15, 80),
    ]
    assert all(each["remain_quota"] == each["amount"] and each["runs_out_on"] is None for each in found)
    text = tollway("budget", "list").out
    assert "user ada" in text
    assert "$2.00" in text
    assert done("budget", "set", "--user", ada, "--period", "daily", "--amount", 7)["id"] == 1
    assert tollway("budget", "set", "--user", ada, "--period", "daily", "--amount", 7).out.startswith(
        "User ada may spend"
    )
    assert done("budget", "delete", "--token", "laptop", "--period", "weekly")["status"] == "deleted"
    assert [each["amount"] for each in done("budget", "list")] == [7, 10**15]


def test_a_budget_is_deleted_by_the_id_that_the_list_shows(tollway: Tollway, done: Done, ada: int) -> None:
    daily = done("budget", "set", "--user", "ada", "--period", "daily", "--amount", 5)["id"]
    monthly = done("budget", "set", "--user", "ada", "--period", "monthly", "--amount", 50)["id"]
    assert done("budget", "delete", daily)["status"] == "deleted"
    assert [each["id"] for each in done("budget", "list")] == [monthly]
    again = tollway("budget", "delete", daily)
    assert (again.status, again.err) == (1, f"tollway budget: the budget {daily} does not exist\n")


@pytest.mark.parametrize("argv", [(), ("--user", "ada"), ("--period", "daily"), ("1", "--period", "daily")])
def test_a_budget_that_is_half_named_is_not_deleted(argv: tuple[str, ...], tollway: Tollway, ada: int) -> None:
    ended = tollway("budget", "delete", *argv)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "ID" in ended.err


def test_no_budgets_are_no_table(tollway: Tollway, ada: int) -> None:
    assert tollway("budget", "list").out == "There are no budgets.\n"


REFUSED = {
    "a negative amount": ("--amount", ("--user", "ada", "--period", "daily", "--amount", "-1")),
    "nothing": ("--amount", ("--user", "ada", "--period", "daily", "--amount", "0")),
    "beyond 64 bits": ("--amount", ("--user", "ada", "--period", "daily", "--amount", str(2**64))),
    "beyond two billion dollars": ("--amount", ("--user", "ada", "--period", "daily", "--amount", str(10**15 + 1))),
    "half a quota": ("--amount", ("--user", "ada", "--period", "daily", "--amount", "0.5")),
    "no amount": ("--amount", ("--user", "ada", "--period", "daily")),
    "an unknown period": ("--period", ("--user", "ada", "--period", "yearly", "--amount", "5")),
    "no period": ("--period", ("--user", "ada", "--amount", "5")),
    "nobody": ("--user", ("--period", "daily", "--amount", "5")),
    "two subjects": ("--group", ("--user", "ada", "--group", "vip", "--period", "daily", "--amount", "5")),
    "more than the whole": (
        "--soft-percent",
        ("--user", "ada", "--period", "daily", "--amount", "5", "--soft-percent", "101"),
    ),
}
UNKNOWN = {
    "an unknown user": ("--user", ("--user", "eve")),
    "an unknown id": ("--user", ("--user", "999")),
    "an id beyond 64 bits": ("--user", ("--user", str(10**19))),
    "an unknown key": ("--token", ("--token", "phone")),
    "an unknown group": ("--group", ("--group", "nobody")),
}


@pytest.mark.parametrize(("field", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused_and_the_field_named(
    tollway: Tollway, done: Done, ada: int, field: str, words: tuple[str, ...]
) -> None:
    ended = tollway("budget", "set", *words)
    assert (ended.status, ended.out) == (2, "")
    assert field in ended.err
    assert ended.err.count("\n") == 1
    assert done("budget", "list") == []


@pytest.mark.parametrize(("field", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_subject_is_refused_and_the_field_named(
    tollway: Tollway, done: Done, laptop: int, field: str, words: tuple[str, ...]
) -> None:
    for action, rest in (("set", ("--amount", "5")), ("delete", ())):
        ended = tollway("budget", action, *words, "--period", "daily", *rest)
        assert (ended.status, ended.out) == (1, "")
        assert f"argument {field}: " in ended.err
    assert done("budget", "list") == []


def test_a_name_that_may_be_several_keys_is_not_guessed(tollway: Tollway, done: Done, laptop: int) -> None:
    other = done("token", "create", "--user", "ada", "--name", "laptop")["id"]
    ended = tollway("budget", "set", "--token", "laptop", "--period", "daily", "--amount", "5")
    assert ended.status == 1
    assert f"argument --token: 'laptop' may be any of {laptop} (ada), {other} (ada): give the id" in ended.err


def test_a_budget_that_is_not_there_cannot_be_deleted(tollway: Tollway, ada: int) -> None:
    ended = tollway("budget", "delete", "--user", "ada", "--period", "daily")
    assert ended.status == 1
    assert ended.err == f"tollway budget: user {ada} has no daily budget\n"


def test_lists_show_the_day_on_which_it_runs_out(
    done: Done, in_store: Callable[..., Any], ada: int, laptop: int
) -> None:
    for flag, subject in (("--user", "ada"), ("--token", "laptop"), ("--group", "vip")):
        done("budget", "set", flag, subject, "--period", "daily", "--amount", 10**6)
        done("budget", "set", flag, subject, "--period", "monthly", "--amount", 1000)
    spend(in_store, ada, laptop, 1000)
    spend(in_store, ada, laptop, 999, days_ago=8)  # not of the last seven days
    before = datetime.now(UTC)
    found = {(each["kind"], each["period"]): each for each in done("budget", "list")}
    assert {kind for kind, _ in found} == set(BudgetKind)
    for kind in BudgetKind:
        assert found[kind, Period.DAILY]["runs_out_on"] is None  # it begins anew before
        monthly = found[kind, Period.MONTHLY]
        assert (monthly["used_quota"], monthly["remain_quota"]) == (1999, -999)
        assert datetime.fromisoformat(monthly["runs_out_on"]).date() in (before.date(), datetime.now(UTC).date())
    (user,) = done("user", "list")
    assert user["quota"] == 7000 - 1999
    days = timedelta(days=7 * user["quota"] / 1000)
    assert user["runs_out_on"] in {(when + days).date().isoformat() for when in (before, datetime.now(UTC))}


def test_who_spends_nothing_runs_out_of_nothing(done: Done, ada: int) -> None:
    (user,) = done("user", "list")
    assert user["runs_out_on"] is None


def test_the_audit_is_clean_with_budgets(done: Done, in_store: Callable[..., Any], ada: int, laptop: int) -> None:
    done("budget", "set", "--user", "ada", "--period", "daily", "--amount", 5000)
    spend(in_store, ada, laptop, 300)
    done("budget", "set", "--user", "ada", "--period", "daily", "--amount", 200)
    assert done("audit")["clean"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "example.com/hook",
        "https:///s3cret",
        "https://user:s3cret@example.com/",
        "http://ä.example/s3cret",
    ],
)
def test_a_webhook_that_is_none_is_refused_and_not_shown(
    tollway: Tollway, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("NOTIFY_WEBHOOK_URL", url)
    ended = tollway("budget", "list")
    assert ended.status == 2
    assert ended.err.startswith("tollway budget: NOTIFY_WEBHOOK_URL must be a URL: ")
    assert url not in ended.err


def test_a_budget_of_a_newer_version_is_shown_explained_and_deleted(
    done: Done, tollway: Tollway, in_store: Callable[..., Any], ada: int
) -> None:
    made = done("budget", "set", "--user", "ada", "--period", "daily", "--amount", 1_000_000)

    async def rename(opened: DataDir) -> None:
        await opened.store.change(update(schema.budgets).values(period="hourly"))

    in_store(rename)
    (shown,) = done("budget", "list")
    assert (shown["period"], shown["ends_at"], shown["runs_out_on"]) == ("hourly", None, None)
    assert "hourly" in tollway("budget", "list").out
    explained = done("explain", "--model", "gpt-4o", "--user", "ada")
    assert (explained["refusal"]["status"], explained["available"]) == (503, 0)
    assert "The hourly budget of this user was set by a newer version" in explained["refusal"]["message"]
    assert "leaves $0.00 of $2.00.\n" in tollway("explain", "--model", "gpt-4o", "--user", "ada").out
    done("budget", "delete", made["id"])
    assert done("budget", "list") == []
