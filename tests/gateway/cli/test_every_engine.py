"""Every command once on every engine, and those that read logs also where these have a database of their own."""

import asyncio
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tollway.config.settings import Settings
from tollway.gateway.data_dir import open_stores
from tollway.gateway.store import charges, leases
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.records import ChargeRecord

from tests.servers import Servers

from .conftest import Tollway
from .test_manual import parsers

NOW = int(time.time() * 1000)
HOUR_MS = 3_600_000
STDIN = "long-enough-for-a-password-or-a-key"
PRICES = '[models."z 😀"]\nper_call = 1\nsource = "s"\nchecked = 2026-01-01\n'
BODY = '{"model": "m 😀", "messages": [{"role": "user", "content": "hi"}]}'

# A command a line (more of it on lines that begin with a blank) and, behind the bar, what its JSON must hold. The names
# hold what a driver may trip over.
BEFORE = r"""
db upgrade                                                                    | "revision"
db current                                                                    | "up_to_date": true
user create --username Ann --quota 5000000                                    | "id": 1
user create --username ann --role admin --group "it's %s" --password-stdin    | "id": 2
user update ann --group vip --role user --password-stdin                      | "id": 2
user password Ann --password-stdin                                            | "id": 1
user quota Ann --add -1000000                                                 | "quota": 4000000
user disable 1                                                                | "disabled"
user enable --username Ann                                                    | "enabled"
token create --user Ann --name "it's \\ 😀" --quota 90 --models m --allow-ips ::1 --group default
    --expires 9999-12-31 --requests-per-minute 2147483647 --tokens-per-minute 2147483647
    --parallel-requests 2147483647                                            | "key"
token create --user ann --name T                                              | "key"
token create --user ann --name t                                              | "key"
token update 1 --quota 100 --models "" --allow-ips "" --expires "" --group ""
    --name "%s :x"                                                            | "id": 1
token update T --unlimited --requests-per-minute 0                            | "id": 2
token disable T                                                               | "disabled"
token enable T                                                                | "enabled"
token delete t                                                                | "deleted"
token list                                                                    | "T"
token list --user Ann                                                         | "remain_quota": 100
channel create --name C --type echo --models "m,M,m 😀" --group "default,it's %s"
    --priority -1000000000 --weight 1000000 --model-mapping '{"m": "😀"}' --tag "\\ %" | "id": 1
channel create --name c --type openai --models m --key-stdin
    --prompt-cache-ratio 0.25 --auto-ban false                                | "id": 2
channel update c --group vip --prompt-cache-ratio "" --base-url http://127.0.0.1:9 | "id": 2
channel disable c                                                             | "disabled"
channel enable 2                                                              | "enabled"
channel test C                                                                | "passed"
channel delete c                                                              | "deleted"
channel test --all                                                            | "passed"
channel list                                                                  | "\\ %"
option set log_retention_days 30                                              | "30"
option set GroupRatio '{"default": 1, "😀": 0.5}'                             | "GroupRatio"
option list log*                                                              | 30
option unset log_retention_days                                               | true
group set "it's %s" --ratio 0.80 --description "\\ 😀"                        | "0.80"
group set vip --ratio 1e-5                                                    | "vip"
group delete vip                                                              | "deleted"
group list                                                                    | "it's %s"
price set m --input 2 --output 0 --source "it's \\ %s"                        | "2"
price set "m 😀" --input 1 --output 1 --tool web_search=10                    | "1"
price set M --per-call 1                                                      | "1"
price unset M                                                                 | "unset"
price import PRICES                                                           | "imported"
price show m                                                                  | "own": true
price list                                                                    | "z
price export --own                                                            | it's
price export --own --format ratios                                            | "it's %s":0.80
"""
AFTER = r"""
logs                                                                          | "r2"
logs --user Ann --token 1 --channel C --model m --since 3h --until 1h         | "r1"
logs --user Ann --limit 1                                                     | "r2"
logs --user Ann --before 2                                                    | "r1"
logs --token "%s :x"                                                          | "r1"
logs --channel 1 --before 3                                                   | "r2"
logs --model "m 😀"                                                           | "r3 \\ \ud83d
logs --outcome failed                                                         | "r3 \\ \ud83d
logs --outcome failed --user ann --token T --model "m 😀" --channel C --since 1d --limit 1 | "r3 \\ \ud83d
logs --request "r3 \\ 😀"                                                   | "failed"
logs rebuild-hours --since 2d --until 1h                                      | "wrong_sums": 0
price reprice --model m                                                       | "charges": 2
price reprice --model m --user Ann --since 3h --until 1h --yes                | "charges": 1
price reprice --model m --yes                                                 | "charges": 1
logs --request r1                                                             | "correction"
budget set --user Ann --period daily --amount 500000                          | "id": 1
budget set --user 1 --period daily --amount 600000 --soft-percent 0           | "id": 1
budget set --token "%s :x" --period weekly --amount 1000000000000000          | "id": 2
budget set --group "it's %s" --period monthly --amount 1                      | "id": 3
budget list                                                                   | "it's %s"
budget delete --group "it's %s" --period monthly                              | "deleted"
explain --user Ann --model m                                                  | "refusal": null
explain --token "%s :x" --body BODY                                           | "budgets"
user list                                                                     | "used_quota": 200
user delete ann                                                               | "deleted"
db rotate-secret                                                              | "changed": false
audit                                                                         | "clean": true
"""
APART = r"""
logs --user Ann --token 1 --channel C --model m                               | "r1"
logs --outcome failed --limit 1                                               | "r3 \\ \ud83d
logs rebuild-hours                                                            | "wrong_sums": 0
price reprice --model m                                                       | "charges": 2
price reprice --model m --yes                                                 | "charges": 2
price reprice --model m --yes                                                 | "charges": 0
logs --request r1                                                             | "correction"
budget list                                                                   | "runs_out_on"
user list                                                                     | "used_quota": 400
audit                                                                         | "clean": true
"""


@pytest.fixture
def log_url(engine_name: str, servers: Servers, tmp_path: Path) -> Iterator[str]:
    databases = servers.databases(engine_name)
    (tmp_path / "logs").mkdir()
    url = databases.make(tmp_path / "logs")
    yield url
    databases.drop(url)


async def serve(holder: str) -> None:
    """Two calls of Ann's, at twice the price that the model has now, and one of ann's that failed."""
    bill = {"group_ratio": "1", "input": [100, "4"]}
    ann = {"user_id": 1, "username": "Ann", "token_id": 1, "token_name": "%s :x", "channel_id": 1, "model": "m"}
    other = {"user_id": 2, "username": "ann", "token_id": 2, "token_name": "T", "channel_id": 1, "model": "m 😀"}
    records = (
        ChargeRecord(NOW - 2 * HOUR_MS, quota=200, input_tokens=100, breakdown=bill, request_id="r1", **ann),
        ChargeRecord(NOW, quota=200, input_tokens=100, breakdown=bill, request_id="r2", unlimited=True, **ann),
        ChargeRecord(NOW, quota=0, request_id="r3 \\ 😀", unlimited=True, outcome="failed", **other),
    )
    batch = Batch(holder, 0, len(records), records)
    async with open_stores(Settings.from_environ()) as opened:
        await leases.join(opened.store, holder, host="", now_ms=NOW)
        if opened.log_store is not None:
            assert await charges.flush_logs(opened.log_store, batch)
        assert await charges.flush(opened.store, batch, NOW, with_logs=opened.log_store is None)
        await leases.leave(opened.store, holder)


def lines(script: str) -> Iterator[tuple[list[str], str]]:
    for line in script.strip().replace("\n ", " ").splitlines():
        command, _, wanted = line.rpartition("|")
        yield shlex.split(command), wanted.strip()


def test_every_command_does_its_work(
    tollway: Tollway, database_url: str, log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"PRICES": tmp_path / "prices.toml", "BODY": tmp_path / "body.json"}
    for name, content in (("PRICES", PRICES), ("BODY", BODY)):
        files[name].write_text(content)

    def all_of(script: str) -> None:
        for words, wanted in lines(script):
            ended = tollway(*(files.get(word, word) for word in words), "--json", stdin=STDIN)
            assert ended.status == 0, (words, ended.err)
            assert wanted in ended.out, words

    monkeypatch.setenv("SQL_DSN", database_url)
    all_of(BEFORE)
    asyncio.run(serve("beside"))
    all_of(AFTER)
    monkeypatch.setenv("LOG_SQL_DSN", log_url)
    asyncio.run(serve("apart"))
    all_of(APART)


def test_no_command_is_left_out() -> None:
    said = [f"tollway {shlex.join(words)} " for words, _ in (*lines(BEFORE), *lines(AFTER))]
    asks_no_database = ("tollway serve", "tollway demo", "tollway channel types")
    assert not [
        parser.prog
        for parser in parsers()
        if parser.prog not in asks_no_database and not any(each.startswith(f"{parser.prog} ") for each in said)
    ]
