"""`tollway budget`: what a user, a key or a group may spend in a day, a week or a month."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import date
from typing import Any

from ...config.amounts import dollars
from ...config.budget import Budget, BudgetKind, Period, UnknownPeriod, runs_out, span_of
from ...config.groups import GroupRatios
from ..store import Store, budgets, options
from ..store.budgets import BudgetPeriod
from .arguments import MOST_QUOTA, QUOTA, Parser, command, group, name, number, whole
from .failures import Failure, Usage
from .hours import spent_by_budgets
from .moments import now_ms
from .output import clean, iso, table, tell
from .session import opened_logs, opened_store
from .which import id_behind

PERIODS = tuple(period.value for period in Period)
DEFAULT_SOFT = 80
DESCRIPTION = """\
Budgets: the most that somebody may spend in a day, a week or a month. Example: a dollar a day for alice, and a
hundred a month for a group: tollway budget set --user alice --period daily --amount 500000;
tollway budget set --group default --period monthly --amount 50000000.
"""


def parser() -> Parser:
    parser, commands = group("tollway budget", DESCRIPTION)
    setting = command(
        commands, "set", set_budget, "set one, which counts from now on, or change one, which keeps its count"
    )
    _add_key(setting, required=True)
    setting.add_argument(
        "--amount",
        type=whole(1, MOST_QUOTA, QUOTA),
        required=True,
        metavar="N",
        help="quota a period; 500000 is a dollar",
    )
    setting.add_argument(
        "--soft-percent",
        type=whole(0, 100),
        default=DEFAULT_SOFT,
        metavar="N",
        help=f"tell the operator, once a period, when so much of it is used; 0: never. Default: {DEFAULT_SOFT}",
    )
    command(commands, "list", list_budgets, "list the budgets, what is left of each, and until when it lasts")
    deleting = command(commands, "delete", delete_budget, "take a budget away")
    deleting.add_argument(
        "id", nargs="?", type=number, metavar="ID", help="its id, as `budget list` shows it; or say whose and which"
    )
    _add_key(deleting, required=False)
    return parser


def _add_key(parser: ArgumentParser, *, required: bool) -> None:
    """The flags that tell one budget from all others."""
    whose = parser.add_mutually_exclusive_group(required=required)
    whose.add_argument("--user", type=name, metavar="USER", help="of a user: the name or id")
    whose.add_argument("--token", type=name, metavar="TOKEN", help="of a key: the name or id")
    whose.add_argument("--group", type=name, metavar="GROUP", help="of all requests that this group routes and prices")
    parser.add_argument(
        "--period", choices=PERIODS, required=required, help="begins anew at midnight, on Monday or on the 1st (UTC)"
    )


async def set_budget(arguments: Namespace) -> int:
    period, now = Period(arguments.period), now_ms()
    async with opened_store(arguments) as store:
        kind, subject = await _subject(store, arguments)
        budget_id = await budgets.put(
            store, kind, subject, period, amount=arguments.amount, soft_percent=arguments.soft_percent, now_ms=now
        )
        found = [budget for budget in await budgets.list_all(store) if budget.id == budget_id]
        whose = (await budgets.subjects_of(store, found)).get(budget_id, f"{kind} {subject}")
    document = {"id": budget_id, "kind": kind, "subject": subject, "period": period, "amount": arguments.amount}
    ends_at = iso(span_of(period, now).ends_at)
    text = f"{clean(whose)} may spend {dollars(arguments.amount)} {period}; it next begins anew at {ends_at}."
    return tell(arguments, document, text[:1].upper() + text[1:])


async def delete_budget(arguments: Namespace) -> int:
    if arguments.id is None:
        if arguments.period is None or (arguments.user or arguments.token or arguments.group) is None:
            raise Usage("say which: its ID, or --period with one of --user, --token and --group")
    elif any((arguments.user, arguments.token, arguments.group, arguments.period)):
        raise Usage("argument ID: not allowed with --user, --token, --group or --period")
    async with opened_store(arguments) as store:
        kind, subject, period = await _key(store, arguments)
        if not await budgets.remove(store, kind, subject, period, now_ms=now_ms()):
            raise Failure(f"{kind} {subject} has no {period} budget")
    document = {"kind": kind, "subject": subject, "period": period, "status": "deleted"}
    return tell(arguments, document, f"The {period} budget of {kind} {subject} is deleted.")


async def _key(store: Store, arguments: Namespace) -> tuple[BudgetKind, str, Period | UnknownPeriod]:
    """Which budget is meant. Raises `Failure` for none."""
    if arguments.id is None:
        return *await _subject(store, arguments), Period(arguments.period)
    for each in await budgets.list_all(store):
        if each.id == arguments.id:
            return each.kind, each.subject, each.period
    raise Failure(f"the budget {arguments.id} does not exist")


async def _subject(store: Store, arguments: Namespace) -> tuple[BudgetKind, str]:
    """Whose budget is meant. Raises `Failure` for nobody, and for several."""
    if arguments.group is not None:
        if not await _is_group(store, arguments.group):
            raise Failure(f"argument --group: no user, key or ratio is of a group {arguments.group!r}")
        return BudgetKind.GROUP, arguments.group
    kind, typed = (
        (BudgetKind.USER, arguments.user) if arguments.user is not None else (BudgetKind.TOKEN, arguments.token)
    )
    return kind, str(await id_behind(store, kind.value, f"--{kind}", typed))


async def _is_group(store: Store, name: str) -> bool:
    if name in GroupRatios.from_options(await options.list_all(store)).ratios:
        return True
    return await budgets.knows_group(store, name)


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget and where it stands now. Nothing of a period that has not begun is used."""

    budget: Budget
    subject: str
    used: int
    left: int
    ends_at: int | None
    runs_out_on: date | None


async def list_budgets(arguments: Namespace) -> int:
    now = now_ms()
    async with opened_store(arguments) as store, opened_logs(arguments, store) as hours:
        found = await budgets.list_all(store)
        subjects = await budgets.subjects_of(store, found)
        periods = await budgets.current(store, now)
        lately = await spent_by_budgets(store, hours, found, now)
    standings = [_standing(each, subjects[each.id], periods.get(each.id), lately[each.id], now) for each in found]
    headings = ("id", "of", "period", "amount", "used", "left", "begins anew", "runs out", "told at")
    text = table(headings, map(_line, standings), empty="There are no budgets.")
    return tell(arguments, list(map(_document, standings)), text)


def _standing(budget: Budget, subject: str, period: BudgetPeriod | None, lately: int, now: int) -> Standing:
    used, left = (0, budget.amount) if period is None else (period.used_quota, period.remain_quota)
    ends_at = budget.ends_at(now)
    day = None if ends_at is None else runs_out(left, lately, now, ends_at)
    return Standing(budget, subject, used, left, ends_at, day)


def _document(standing: Standing) -> dict[str, Any]:
    budget = standing.budget
    return {
        "id": budget.id,
        "kind": budget.kind,
        "subject": budget.subject,
        "name": standing.subject,
        "period": budget.period,
        "amount": budget.amount,
        "soft_percent": budget.soft_percent,
        "used_quota": standing.used,
        "remain_quota": standing.left,
        "ends_at": iso(standing.ends_at),
        "runs_out_on": standing.runs_out_on and standing.runs_out_on.isoformat(),
    }


def _line(standing: Standing) -> tuple[object, ...]:
    budget = standing.budget
    return (
        budget.id,
        standing.subject,
        budget.period,
        dollars(budget.amount),
        dollars(standing.used),
        dollars(standing.left),
        (iso(standing.ends_at) or "")[:10],
        standing.runs_out_on,
        f"{budget.soft_percent} %" if budget.soft_percent else "never",
    )
