"""
Many log rows, made by the database itself, and the questions that are asked of them.

A month of an office: 100 users with two keys each, 20 models on 25 channels, the busiest user with a tenth of the
requests. One user, key, model and channel are rare: 100 rows over the whole month.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ClauseElement, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from tollway.gateway.store import Store
from tollway.gateway.store.hourly import HourFilter
from tollway.gateway.store.logs import LogFilter

DAY_MS = 24 * 3_600_000
MONTH_MS = 30 * DAY_MS
BEGIN = 490_000 * 3_600_000  # in November 2025
END = BEGIN + MONTH_MS
RARE = 900
SLICE = 50_000
"""Rows of one statement."""


COMPILERS = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}


class Asked:
    """A session that passes on what it is asked, and remembers it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queries: list[ClauseElement] = []

    async def all(self, query: Any) -> Any:
        self.queries.append(query)
        return await self._store.all(query)

    async def one(self, query: Any) -> Any:
        self.queries.append(query)
        return await self._store.one(query)


async def plan_of(store: Store, query: ClauseElement) -> str:
    """What the database says it will do; of MySQL, without the indexes that it might have taken instead."""
    dialect = store.address.dialect
    compiled = query.compile(dialect=COMPILERS[dialect].dialect(), compile_kwargs={"literal_binds": True})
    rows = await store.all(text(f"{'EXPLAIN QUERY PLAN' if dialect == 'sqlite' else 'EXPLAIN'} {compiled}"))
    steps = ((str(value).strip() for name, value in row.items() if name != "possible_keys") for row in rows)
    return "; ".join(" ".join(step) for step in steps)


@dataclass(frozen=True)
class Dialect:
    """How an engine spells what the others spell otherwise."""

    series: str
    divided: str = "({} / {})"
    padded: str = "lpad(CAST({} AS char(8)), 8, '0')"
    joined: str = "concat({})"


DIALECTS: Mapping[str, Dialect] = {
    "sqlite": Dialect(
        "(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) SELECT n FROM s)",
        padded="substr('00000000' || {}, -8)",
    ),
    "postgresql": Dialect(
        "(SELECT n FROM generate_series(CAST({first} AS bigint), {last}) AS n)",
        padded="lpad(CAST({} AS text), 8, '0')",
    ),
    "mysql": Dialect("(SELECT seq AS n FROM seq_{first}_to_{last})", divided="({} DIV {})"),
}


async def fill(store: Store, rows: int) -> None:
    """`rows` log rows and their hours, in an empty database."""
    for first in range(0, rows, SLICE):
        await _execute(store, _insert(store.address.dialect, first, min(first + SLICE, rows) - 1, rows))
    for day in range(BEGIN, END, DAY_MS):
        await _execute(store, HOURS.format(begin=day, end=day + DAY_MS))


async def _execute(store: Store, statement: str) -> None:
    if store.address.dialect == "sqlite":  # where `databases` trips over a % in plain text
        await store.run_plain(lambda connection: connection.execute(statement))
    else:
        await store.change(text(statement))


HOURS = """
INSERT INTO usage_hourly (
    hour, user_id, token_id, channel_id, model, requests, quota, input_tokens, output_tokens, cached_tokens
)
SELECT created_at - created_at % 3600000, user_id, token_id, channel_id, model,
    count(*), sum(quota), sum(input_tokens), sum(output_tokens), sum(cached_tokens)
FROM logs WHERE created_at >= {begin} AND created_at < {end}
GROUP BY created_at - created_at % 3600000, user_id, token_id, channel_id, model
"""


def _insert(name: str, first: int, last: int, rows: int) -> str:
    dialect = DIALECTS[name]
    quote = "`{}`" if name == "mysql" else '"{}"'

    def join(*parts: str) -> str:
        return " || ".join(parts) if name == "sqlite" else dialect.joined.format(", ".join(parts))

    rare = f"n % {max(1, rows // 100)} = 7"
    usual = join("'model-'", "(who % 20)")
    model = f"CASE WHEN luck % 9973 = 5 THEN 'model-19' ELSE {usual} END"
    failed = "luck % 499 = 0"
    drawn_channel = "who % 20 + 1 + CASE WHEN luck % 16 = 0 THEN 5 ELSE 0 END"
    columns = {
        "charge_id": join("'host-8f3a11d2-4711-9c1e55aa02-'", "CAST(n AS char(8))" if name == "mysql" else "n"),
        "created_at": f"{BEGIN} + " + dialect.divided.format(f"n * {MONTH_MS // 1000}", max(1, rows // 1000)),
        "type": "2",
        "user_id": f"CASE WHEN {rare} THEN {RARE} ELSE who END",
        "username": join("'user-'", "who"),
        "token_id": f"CASE WHEN {rare} THEN {RARE} ELSE who * 2 + luck % 2 END",
        "token_name": join("'key-'", "who"),
        "channel_id": f"CASE WHEN {rare} THEN {RARE} ELSE {drawn_channel} END",
        "channel_name": join("'channel-'", "(who % 20)"),
        "model": f"CASE WHEN {rare} THEN 'rare' ELSE {model} END",
        "upstream_model": model,
        "operation": "'chat_completions'",
        "group": "'default'",
        "request_id": join("'req_0199e1b0c4d'", "(n % 4)", "'5f3a9c'", dialect.padded.format("n")),
        "status": f"CASE WHEN {failed} THEN 502 ELSE 200 END",
        "input_tokens": "luck % 3000",
        "output_tokens": "luck % 500",
        "cached_tokens": "0",
        "quota": "luck % 900 + 1",
        "price_version": "'2026-11-01'",
        "breakdown": """'{"group_ratio":"1","input":[1000,"0.075"],"output":[500,"0.3"]}'""",
        "outcome": f"CASE WHEN {failed} THEN 'failed' ELSE 'completed' END",
        "attempts": "1",
        "duration_ms": "luck % 9000",
        "first_byte_ms": "luck % 700",
        "ip": "'203.0.113.7'",
    }
    # Spread without a pattern that an index could profit from; `who` from 0 to 99, the small numbers more often.
    spread = f"(SELECT n, n * 2654435761 % 10007 AS r FROM {dialect.series.format(first=first, last=last)} AS s)"
    who = dialect.divided.format("r * r", 1_001_401)
    drawn = f"(SELECT n, {who} AS who, n * 40503 % 65521 AS luck FROM {spread} AS t)"
    names = ", ".join(quote.format(name) for name in columns)
    return f"INSERT INTO logs ({names}) SELECT {', '.join(columns.values())} FROM {drawn} AS u ORDER BY n"


MIDDLE = BEGIN + 15 * DAY_MS

DAY = {"since": MIDDLE, "until": MIDDLE + DAY_MS}
WEEK = {"since": MIDDLE, "until": MIDDLE + 7 * DAY_MS}

PAGES: Mapping[str, LogFilter] = {
    "newest": LogFilter(),
    "user": LogFilter(user_id=0),
    "user, rare": LogFilter(user_id=RARE),
    "token": LogFilter(token_id=1),
    "token, rare": LogFilter(token_id=RARE),
    "model": LogFilter(model="model-0"),
    "model, rare": LogFilter(model="rare"),
    "channel": LogFilter(channel_id=1),
    "channel, rare": LogFilter(channel_id=RARE),
    "time": LogFilter(**DAY),
    "user and time": LogFilter(user_id=3, **DAY),
    "token and time": LogFilter(token_id=1, **DAY),
    "model and time": LogFilter(model="rare", **DAY),
    "user and model": LogFilter(user_id=0, model="model-0"),
    "user and model, each common, rarely together": LogFilter(user_id=0, model="model-19"),
    "user and model, each common, never together": LogFilter(user_id=0, model="model-1"),
    "token and model, rarely together": LogFilter(token_id=1, model="model-19"),
    "channel and model, rarely together": LogFilter(channel_id=1, model="model-19"),
    "user and channel": LogFilter(user_id=0, channel_id=1),
    "failed": LogFilter(outcome="failed"),
    "failed, of a user": LogFilter(user_id=0, outcome="failed"),
    "failed, of an ordinary user": LogFilter(user_id=57, outcome="failed"),
    "failed, of a rare user": LogFilter(user_id=RARE, outcome="failed"),
    "request id": LogFilter(request_id="req_0199e1b0c4d15f3a9c00012345"),
}
"""Answered with the newest 100 rows."""

SUMS: Mapping[str, HourFilter] = {
    "a day": HourFilter(**DAY),
    "a week": HourFilter(**WEEK),
    "the month": HourFilter(),
    "a user's month": HourFilter(user_id=0, since=BEGIN, until=END),
    "a token's week": HourFilter(token_id=1, **WEEK),
    "a model's week": HourFilter(model="model-0", **WEEK),
    "a channel's month": HourFilter(channel_id=1, since=BEGIN, until=END),
}
"""Answered from the hourly sums."""
