"""`tollway logs`: what was served, to whom, and what it cost."""

import re
from argparse import ArgumentTypeError, Namespace
from dataclasses import fields
from typing import Any

from ..store import logs
from ..store.records import LogRow, LogType
from .arguments import Parser, finish, moment, name, number, on_loop, text, whole
from .output import as_json, dollars, iso, short, table
from .session import now_ms, opened_store, user_named

AGO = re.compile(r"(\d{1,9})([smhd])")
UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MOST_ROWS = 100_000


def parser() -> Parser:
    parser = Parser(
        "tollway logs",
        description="Show what was served, newest first. With --json each line is one JSON document.",
    )
    parser.add_argument("--user", type=name, metavar="NAME", help="only requests of this user")
    parser.add_argument("--token", type=number, metavar="N", help="only requests with the key of this id")
    parser.add_argument("--model", type=text, help="only requests for this model, as clients sent it")
    parser.add_argument("--channel", type=number, metavar="N", help="only requests that this channel served")
    parser.add_argument("--since", type=since, metavar="TIME", help="only newer ones: ISO 8601, or 30m, 2h, 7d")
    parser.add_argument(
        "--limit", type=whole(1, MOST_ROWS), default=100, metavar="N", help="at most so many. Default: 100"
    )
    finish(parser, on_loop(show))
    return parser


def since(value: str) -> int:
    """A time, or how long ago, as milliseconds since the epoch."""
    if ago := AGO.fullmatch(value):
        return max(0, now_ms() - int(ago[1]) * UNIT_MS[ago[2]])
    try:
        return moment(value)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"must be a time such as 2027-01-31T18:00:00Z, or 30m, 2h, 7d, not {value!r}") from None


async def show(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        user_id = None if arguments.user is None else (await user_named(store, arguments.user)).id
        wanted = logs.LogFilter(
            user_id=user_id,
            token_id=arguments.token,
            model=arguments.model,
            channel_id=arguments.channel,
            since=arguments.since,
        )
        rows = await logs.find(store, wanted, limit=arguments.limit)
    if arguments.json:
        for row in rows:
            print(as_json(_document(row)))
    else:
        headings = ("time", "user", "token", "model", "channel", "status", "in", "out", "cost", "ms", "outcome")
        print(table(headings, map(_line, rows), empty="Nothing was served."))
    return 0


def _document(row: LogRow) -> dict[str, Any]:
    document: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(row)}
    return document | {
        "created_at": iso(row.created_at),
        "type": _type(row.type),
        "breakdown": dict(row.breakdown),
        "other": dict(row.other),
    }


def _type(number: int) -> str:
    try:
        return LogType(number).name.lower()
    except ValueError:  # written by another version
        return str(number)


def _line(row: LogRow) -> tuple[object, ...]:
    return (
        short(row.created_at),
        row.username,
        row.token_name,
        row.model,
        row.channel_name,
        row.status,
        row.input_tokens,
        row.output_tokens,
        dollars(row.quota),
        row.duration_ms,
        f"{row.outcome}, estimated" if row.estimated else row.outcome,
    )
