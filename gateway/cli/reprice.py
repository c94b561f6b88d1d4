"""`tollway price reprice`: what past charges would cost at the price of now, and the corrections that make it so."""

from argparse import Namespace
from contextlib import AsyncExitStack
from typing import Any

from ...adapters.requests.model_suffix import parse_model
from ...config.amounts import QuotaOverflow, dollars
from ..repricing import Repricing, reprice
from ..store.corrections import correcting
from ..store.logs import LogFilter
from ..store.records import LogType
from .arguments import Commands, command, name, text
from .failures import Failure
from .moments import now_ms, past
from .output import clean, counted, table, tell
from .own_prices import effective_prices
from .session import opened_logs, opened_store
from .which import user_behind

DESCRIPTION = """\
Compare what was charged for a model with the price that it has now, and correct it. Of a price with dates, the one
counts that is in force at the time of each call; ratios stay as they were on the day.

Without --yes nothing is written. With it, each charge that differs gets a correction: a log row of its own, which is
charged to the user, the key and the budgets that paid the first time, or given back to them. Like an answer that costs
more than was held for it, a correction is charged in full: a balance that does not cover it falls below 0, and nothing
is served until it is topped up. Charges are never edited; what is corrected already is not corrected again, also after
a run that was cut off. Charges that are 0.2 s old or younger may not be seen yet: run it once more.
"""


def add_reprice(commands: Commands) -> None:
    """Add `tollway price reprice`."""
    parser = command(commands, "reprice", reprice_model, "correct past charges of a model to the price it has now")
    parser.description = DESCRIPTION
    parser.add_argument("--model", type=text, required=True, help="the model's name, as clients sent it")
    parser.add_argument("--since", type=past, metavar="TIME", help="only newer charges: ISO 8601, or 30m, 2h, 7d")
    parser.add_argument("--until", type=past, metavar="TIME", help="only older ones")
    parser.add_argument("--user", type=name, metavar="USER", help="only those of this user: the name or id")
    parser.add_argument("--yes", action="store_true", help="make the corrections, instead of only showing them")


async def reprice_model(arguments: Namespace) -> int:
    model: str = arguments.model
    now = now_ms()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store(arguments))
        log_store = await stack.enter_async_context(opened_logs(arguments, store))
        listed = (await effective_prices(store)).price_for(model, parse_model(model).base)
        if listed is None:
            raise Failure(f"the model {model!r} has no price; see tollway price set")
        user_id = None if arguments.user is None else (await user_behind(store, "--user", arguments.user)).id
        wanted = LogFilter(
            type=int(LogType.CONSUME), model=model, user_id=user_id, since=arguments.since, until=arguments.until
        )
        corrections = None
        if arguments.yes:
            apart = None if log_store is store else log_store
            corrections = await stack.enter_async_context(correcting(store, apart, now))
        try:
            found = await reprice(log_store, listed, wanted, now, corrections)
        except QuotaOverflow as error:
            raise Failure(f"a charge of {model!r} is too much at this price: {error}") from None
    return tell(arguments, _document(model, found, written=arguments.yes), _text(model, found, written=arguments.yes))


def _document(model: str, found: Repricing, *, written: bool) -> dict[str, Any]:
    return {
        "model": model,
        "looked_at": found.looked_at,
        "charges": found.charges,
        "quota": found.quota,
        "users": [
            {"user_id": id, "username": user.username, "charges": user.charges, "quota": user.quota}
            for id, user in sorted(found.users.items())
        ],
        "written": written,
    }


def _text(model: str, found: Repricing, *, written: bool) -> str:
    shown = clean(model)
    charges = counted(found.looked_at, f"charge of {shown} was", f"charges of {shown} were")
    compared = f"{charges} compared with its price"
    if not found.charges:
        return f"{compared}: all agree."
    rows = [(user.username, user.charges, dollars(user.quota)) for _, user in sorted(found.users.items())]
    rows.append(("in all", found.charges, dollars(found.quota)))
    end = "They are corrected." if written else "Nothing is written yet: add --yes to correct them."
    differ = counted(found.charges, "differs", "differ")
    return f"{compared}: {differ} from it, by\n\n{table(('user', 'charges', 'difference'), rows, empty='')}\n\n{end}"
