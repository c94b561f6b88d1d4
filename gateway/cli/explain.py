"""`tollway explain`: where a request would go, and what it may cost. No upstream is asked."""

import dataclasses
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import orjson
from msgspec.structs import replace

from ...adapters.call import Call
from ...adapters.errors import BadRequest, GatewayError
from ...adapters.operations import OPERATIONS
from ...adapters.providers.registry import PROVIDERS
from ...adapters.requests.model_suffix import parse_model
from ...config.amounts import dollars
from ...config.budget import BudgetKind
from ...config.channel import LONGEST_MODEL
from ...config.options import Options
from ...middleware.intake import read_call, read_document
from ...middleware.state import Principal
from ..explain import Balance, BudgetLeft, Cost, Excluded, Explanation, Way, World, explain
from ..snapshot import Snapshot, principal_of
from ..store import Store, budgets, channels, tokens, users
from ..store.records import ChannelState, Role, UserRow, UserStatus
from .arguments import Parser, finish, name, on_loop, text
from .failures import Usage
from .moments import now_ms
from .output import clean, iso, table, tell
from .session import opened_data_dir, settings_of
from .which import id_behind, unknown

RELAYED = {operation.name: operation for operation in OPERATIONS if operation.relayed}


def parser() -> Parser:
    parser = Parser(
        "tollway explain",
        description="Say where a request would go, which channels are left out and why, what it may cost, and what "
        "the balance and the budgets allow. No upstream is asked, and what a running server knows of ill channels is "
        "not known here.",
    )
    caller = parser.add_mutually_exclusive_group(required=True)
    caller.add_argument(
        "--user", type=name, metavar="USER", help="a request of this user, with a key without limits: the name or id"
    )
    caller.add_argument("--token", type=name, metavar="TOKEN", help="a request with this key: the name or id")
    parser.add_argument(
        "--model", type=text, help="the model's name, as a client sends it; may stand in the body instead"
    )
    parser.add_argument(
        "--operation",
        choices=RELAYED,
        default="chat_completions",
        metavar="NAME",
        help=f"one of {', '.join(RELAYED)}. Default: chat_completions",
    )
    parser.add_argument("--body", metavar="FILE", help="the request's JSON, to size it; - is standard input")
    finish(parser, on_loop(explain_request))
    return parser


async def explain_request(arguments: Namespace) -> int:
    """Exit status 0 also for a request that would be refused: the question was answered."""
    call = _call(arguments)
    settings = settings_of(arguments)
    async with opened_data_dir(arguments) as opened:
        defaults = Options(force_stream_usage=settings.force_stream_option)
        snapshot = Snapshot(opened.store, opened.vault, defaults=defaults)
        await snapshot.load()
        if arguments.user is not None:
            user = await users.by_id(opened.store, await id_behind(opened.store, "user", "--user", arguments.user))
            if user is None:
                raise unknown("user", arguments.user)
            principal, balance = _anyone_of(user), Balance(user.quota)
        else:
            token_id = await id_behind(opened.store, "token", "--token", arguments.token)
            token = next(iter(await tokens.by_ids(opened.store, [token_id])), None)
            owner = None if token is None else await users.by_id(opened.store, token.user_id)
            if token is None or owner is None:
                raise unknown("token", token_id)
            principal = principal_of(token, owner, snapshot.ratios.current)
            balance = Balance(owner.quota, None if token.unlimited else token.remain_quota)
        balance = dataclasses.replace(balance, budgets=await _budgets_of(opened.store, principal))
        states = await channels.states(opened.store)
    world = World(snapshot.pool.index, snapshot.prices, snapshot.ratios, snapshot.options.current)
    explanation = explain(call, principal, world, balance, now=time.time())
    excluded = tuple(_with_reason(each, states.get(each.channel.id)) for each in explanation.excluded)
    explanation = dataclasses.replace(explanation, excluded=excluded)
    return tell(arguments, _document(explanation), _text(explanation))


def _with_reason(excluded: Excluded, state: ChannelState | None) -> Excluded:
    """With what was written down when the channel, or this key of it, was taken out of use."""
    told = ""
    if state is not None and excluded.key_index is not None:
        told = state.disabled_keys.get(excluded.key_index, "")
    elif state is not None and excluded.reason.startswith("disabled"):  # and not merely of no use here
        told = state.status_reason
    return dataclasses.replace(excluded, reason=f"{excluded.reason}: {told}") if told else excluded


async def _budgets_of(store: Store, principal: Principal) -> tuple[BudgetLeft, ...]:
    """The budgets that a request of this caller pays out of. Nothing of a period that has not begun is used."""
    now = now_ms()
    periods = await budgets.current(store, now)
    found = await budgets.of_subjects(store, [principal.user_id], [principal.token_id])
    return tuple(
        BudgetLeft(
            each,
            0 if each.trouble else periods[each.id].remain_quota if each.id in periods else each.amount,
            each.ends_at(now),
        )
        for each in found
        if each.kind is not BudgetKind.GROUP or each.subject == principal.group
    )


def _anyone_of(user: UserRow) -> Principal:
    return Principal(
        token_id=0,
        user_id=user.id,
        username=user.username,
        group=user.group,
        user_group=user.group,
        is_admin=user.role >= Role.ADMIN,
        unlimited=True,
        disabled="" if user.status is UserStatus.ENABLED else "user",
    )


def _call(arguments: Namespace) -> Call:
    """The call that the arguments describe, checked as intake checks it. Raises `Usage`."""
    operation = RELAYED[arguments.operation]
    model: str = arguments.model or ""
    if arguments.body is None:
        if not 1 <= len(model) <= LONGEST_MODEL:
            raise Usage(f"argument --model: must be a name of 1 to {LONGEST_MODEL} characters, unless --body has one")
        call = Call(operation, model, model)
    elif operation.body == "form":
        raise Usage(f"argument --body: {operation.name} takes a form, not JSON; leave it out")
    else:
        try:
            body = _body(arguments.body)
            if model:
                body = orjson.dumps({**read_document(body), "model": model})
            call = read_call(operation, body, b"application/json", (), "")
        except BadRequest as error:
            raise Usage(f"argument --body: {error.message}") from None
    found = parse_model(call.model)
    return replace(call, base_model=found.base, effort=found.effort)


def _body(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Usage(f"argument --body: {path} cannot be read: {error.strerror}") from None


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "model": found.model,
        "served_as": found.served_as,
        "operation": found.operation,
        "group": found.group,
        "refusal": None if found.refusal is None else _refusal(found.refusal),
        "candidates": [
            {
                "channel": way.channel.id,
                "name": way.channel.name,
                "provider": PROVIDERS[way.channel.type].name,
                "key": way.key_index,
                "priority": way.channel.priority,
                "weight": way.channel.weight,
                "chance": round(way.chance, 4),
                "upstream_model": way.upstream_model,
            }
            for way in found.ways
        ],
        "excluded": [
            {"channel": each.channel.id, "name": each.channel.name, "key": each.key_index, "reason": each.reason}
            for each in found.excluded
        ],
        "cost": None if found.cost is None else {name: getattr(found.cost, name) for name in Cost.__slots__},
        "available": found.available,
        "budgets": [
            {
                "id": each.budget.id,
                "kind": each.budget.kind,
                "subject": each.budget.subject,
                "period": each.budget.period,
                "amount": each.budget.amount,
                "remain_quota": each.left,
                "ends_at": iso(each.ends_at),
            }
            for each in found.budgets
        ],
        "affordable_requests": found.affordable,
    }


def _refusal(error: GatewayError) -> dict[str, Any]:
    return {"status": error.status, "code": error.code, "message": error.message}


def _text(found: Explanation) -> str:
    paragraphs = [_verdict(found)]
    if found.ways:
        headings = ("channel", "name", "key", "priority", "weight", "chance", "asks for")
        paragraphs.append(table(headings, map(_way_line, found.ways), empty=""))
    if found.excluded:
        rows = ((each.channel.id, each.channel.name, each.key_index, each.reason) for each in found.excluded)
        paragraphs.append(table(("left out", "name", "key", "why"), rows, empty=""))
    paragraphs.append("\n".join([_money(found), *map(_budget_line, found.budgets)]))
    return "\n\n".join(paragraphs)


def _verdict(found: Explanation) -> str:
    what = f"{clean(found.model)} ({found.operation}, group {clean(found.group)})"
    if (refusal := found.refusal) is not None:
        return f"{what} would be refused with {refusal.status} {refusal.code}: {clean(refusal.message)}"
    return f"{what} would go to the first of these that answers, unless a server knows it to be ill:"


def _way_line(way: Way) -> tuple[object, ...]:
    channel = way.channel
    chance = f"{way.chance:.0%}"
    return channel.id, channel.name, way.key_index, channel.priority, channel.weight, chance, way.upstream_model


def _budget_line(each: BudgetLeft) -> str:
    left, amount = dollars(each.left), dollars(each.budget.amount)
    until = "" if each.ends_at is None else f" until {iso(each.ends_at)}"
    return f"{clean(each.budget.called)} leaves {left} of {amount}{until}."


def _money(found: Explanation) -> str:
    cost = found.cost
    if cost is None:
        return f"It has no price. There is {dollars(found.available)} to spend."
    cut = "" if cost.cut_to is None else f"Its answer is cut to {cost.cut_to} tokens (clamp_max_tokens).\n"
    held = "the latter is held while it runs"
    if cost.one_token is not None and cost.cut_to is None:
        held += f", or what there is, from {dollars(cost.one_token)} on, for a shorter answer (clamp_max_tokens)"
    more = "any number of such requests" if found.affordable is None else f"{found.affordable} such requests at least"
    return (
        f"1K tokens in cost {dollars(cost.input_1k)}, 1K out {dollars(cost.output_1k)} (group ratio {cost.ratio}). "
        f"This request costs {dollars(cost.least)} to {dollars(cost.reserved)}; {held}.\n"
        f"{cut}What may be spent, {dollars(found.available)}, covers {more}."
    )
