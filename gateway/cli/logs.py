"""`tollway logs`: what was served, to whom, and what it cost."""

from argparse import Namespace
from dataclasses import fields
from typing import Any, cast

from ...config.amounts import dollars
from ...config.options import Options
from ..store import Store, corrections, hourly, logs, options
from ..store.names import NamedKind, may_be_id, meant_by
from ..store.records import LogRow, LogType
from .arguments import Commands, Parser, command, finish, name, number, on_loop, text, whole
from .failures import Failure
from .moments import now_ms, past
from .output import as_json, counted, iso, short, table, tell
from .session import opened_logs, opened_store
from .which import id_behind, unknown

MOST_ROWS = 100_000
NOTHING = "There is nothing to show. A request that was refused, or that no channel served, is in the access log only."
OUTCOMES = ("failed", "truncated", "cancelled", "interrupted")


def parser() -> Parser:
    parser = Parser(
        "tollway logs",
        usage="%(prog)s [FILTER ...] [--limit N] [--before ID] [--json] [--data-dir DIR]\n"
        "       %(prog)s rebuild-hours [--since TIME] [--until TIME] [--json] [--data-dir DIR]",
        description="Show what was served, newest first, and what of it was corrected by tollway price reprice. "
        "ms is the time of the attempt that was charged, without those that failed before it. Filters go together: "
        "what fits all of them is shown.",
    )
    parser.add_argument("--user", type=name, metavar="USER", help="only requests of this user: the name or id")
    parser.add_argument("--token", type=name, metavar="TOKEN", help="only requests with this key: the name or id")
    parser.add_argument("--model", type=text, help="only requests for this model, as clients sent it")
    parser.add_argument(
        "--channel",
        type=name,
        metavar="CHANNEL",
        help="only what this channel served: the name or id; by a name that none has now, what one served under it",
    )
    parser.add_argument("--outcome", choices=OUTCOMES, help="only requests that ended badly, in this way")
    parser.add_argument(
        "--request", type=text, metavar="ID", help="only this request (x-request-id), and its corrections"
    )
    parser.add_argument("--since", type=past, metavar="TIME", help="only newer ones: ISO 8601, or 30m, 2h, 7d ago")
    parser.add_argument("--until", type=past, metavar="TIME", help="only older ones")
    parser.add_argument(
        "--before", type=number, metavar="ID", help="the next page: what is older than the row of this id"
    )
    parser.add_argument(
        "--limit", type=whole(1, MOST_ROWS), default=100, metavar="N", help="show at most so many rows. Default: 100"
    )
    finish(parser, on_loop(show), json="print each row, with its id and all that is known, as one JSON document a line")
    commands = cast("Commands", parser.add_subparsers(dest="action", metavar="ACTION", prog=parser.prog))
    rebuild = command(
        commands,
        "rebuild-hours",
        rebuild_hours,
        "make the hourly sums again from the log rows, but for hours of which rows may be gone",
    )
    rebuild.add_argument("--since", type=past, default=0, metavar="TIME", help="from the hour of this time on")
    rebuild.add_argument("--until", type=past, metavar="TIME", help="up to this time")
    return parser


async def show(arguments: Namespace) -> int:
    async with opened_store(arguments) as store, opened_logs(arguments, store) as log_store:
        user_id, token_id = [await _id(store, kind, arguments) for kind in ("user", "token")]
        channel_id, channel_name = await _channel(store, log_store, arguments.channel)
        wanted = logs.LogFilter(
            user_id=user_id,
            token_id=token_id,
            model=arguments.model,
            channel_id=channel_id,
            channel_name=channel_name,
            outcome=arguments.outcome,
            request_id=arguments.request,
            since=arguments.since,
            until=arguments.until,
        )
        rows = await logs.find(log_store, wanted, limit=arguments.limit, before=arguments.before)
        if arguments.request is not None:
            rows = await corrections.of(log_store, rows) + rows
    if arguments.json:
        for row in rows:
            print(as_json(_document(row)))
    else:
        headings = ("time", "user", "token", "model", "channel", "status", "in", "out", "cost", "ms", "outcome")
        print(table(headings, map(_line, rows), empty=NOTHING))
    return 0


async def _id(store: Store, kind: NamedKind, arguments: Namespace) -> int | None:
    typed: str | None = getattr(arguments, kind)
    return None if typed is None else await id_behind(store, kind, f"--{kind}", typed, or_gone=True)


async def _channel(store: Store, log_store: Store, typed: str | None) -> tuple[int | None, str | None]:
    """
    The id of the channel that is meant, or its name as the rows have it: that of one that was renamed or deleted.

    Raises `Failure` for a name that no channel has or had, and for one that several have.
    """
    if typed is None:
        return None, None
    if not await meant_by(store, "channel", typed):
        if await logs.names_channel(log_store, typed):
            return None, typed
        if not may_be_id(typed):
            raise Failure(f"argument --channel: {unknown('channel', typed)}, and no log row names it")
    return await id_behind(store, "channel", "--channel", typed, or_gone=True), None


async def rebuild_hours(arguments: Namespace) -> int:
    """Hours whose rows may be gone stay as they are: they cannot be made again."""
    hours = wrong_hours = wrong_sums = 0
    async with opened_store(arguments) as store, opened_logs(arguments, store) as log_store:
        days = Options.parse(await options.list_all(store)).log_retention_days
        kept_from = hourly.kept_from(days, now_ms())
        begins = await hourly.next_hour(log_store, 0)
        first = await hourly.first_whole_hour(log_store, kept_from)
        hour = first and await hourly.next_hour(log_store, max(first, hourly.hour_of(arguments.since)))
        while hour is not None and (arguments.until is None or hour < arguments.until):
            wrong = await hourly.rebuild(log_store, hour, kept_from)
            hours, wrong_hours, wrong_sums = hours + 1, wrong_hours + bool(wrong), wrong_sums + wrong
            hour = await hourly.next_hour(log_store, hour + hourly.HOUR_MS)
    document = {"first_hour": iso(first), "hours": hours, "wrong_hours": wrong_hours, "wrong_sums": wrong_sums}
    if first is None:
        return tell(arguments, document, "There are no log rows: nothing was made again.")
    compared = counted(hours, "hour was compared with its rows", "hours were compared with their rows")
    where = counted(wrong_hours, "hour", "hours")
    lines = f"{compared}; made right: {counted(wrong_sums, 'sum', 'sums')} in {where}."
    if begins is not None and begins < first:
        lines += f" Hours before {iso(first)} stay: some of their rows may be gone."
    return tell(arguments, document, lines)


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
        _outcome(row),
    )


def _outcome(row: LogRow) -> str:
    if row.type == LogType.CORRECTION:
        return f"corrects {row.other.get('request_id') or row.request_id}"
    return f"{row.outcome}, estimated" if row.estimated else row.outcome
