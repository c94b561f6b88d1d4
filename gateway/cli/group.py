"""`tollway group`: user groups, and the share of a price that each pays."""

from argparse import ArgumentTypeError, Namespace
from decimal import Decimal, InvalidOperation

from ...config.groups import GROUP_RATIO, GroupError, GroupRatios
from ..store import groups, options
from ..store.records import GroupRow
from .arguments import Parser, command, group, name
from .failures import Failure
from .moments import now_ms
from .output import table, tell
from .session import opened_store

LONGEST_DESCRIPTION = 255


def parser() -> Parser:
    parser, commands = group("tollway group", "Groups: which channels a user reaches, and at what share of the price.")
    command(commands, "list", list_groups, "list the groups that have a ratio, and where it comes from")
    setting = command(commands, "set", set_group, "set a group's price ratio")
    setting.add_argument("name", type=name, metavar="NAME", help="the group")
    setting.add_argument("--ratio", type=ratio, required=True, metavar="R", help="the factor on prices, such as 0.8")
    setting.add_argument("--description", type=description, default="", metavar="TEXT", help="what the group is for")
    deleting = command(commands, "delete", delete_group, "forget a group's ratio; users and channels keep its name")
    deleting.add_argument("name", type=name, metavar="NAME", help="the group")
    return parser


def ratio(text: str) -> Decimal:
    try:
        value = Decimal(text)
        GroupRatios(ratios={"group": value})
    except (InvalidOperation, GroupError):
        raise ArgumentTypeError(f"must be a number from 0 to 1000000, not {text!r}") from None
    return value


def description(text: str) -> str:
    if len(text) > LONGEST_DESCRIPTION or not text.isprintable():
        raise ArgumentTypeError(f"must be at most {LONGEST_DESCRIPTION} printable characters")
    return text


async def list_groups(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        rows = await groups.list_all(store)
        stored = await options.list_all(store)
    source = f"option {GROUP_RATIO}" if stored.get(GROUP_RATIO) else "default"
    ratios = GroupRatios.from_options(stored)
    found = {
        name: _document(name, ratio, ratios.usable_groups.get(name, ""), source)
        for name, ratio in ratios.ratios.items()
    }
    # What was set here goes before the option, as it does in the relay.
    found |= {row.name: _document(row.name, row.ratio, row.description, "group set") for row in rows}
    documents = [document for _, document in sorted(found.items())]
    headings = ("name", "ratio", "description", "source")
    text = table(headings, (tuple(each.values()) for each in documents), empty="There are no groups.")
    return tell(arguments, documents, f"{text}\nAny other group pays 1 of a price.")


def _document(name: str, ratio: Decimal, description: str, source: str) -> dict[str, str]:
    return {"name": name, "ratio": str(ratio), "description": description, "source": source}


async def set_group(arguments: Namespace) -> int:
    row = GroupRow(arguments.name, arguments.ratio, arguments.description)
    async with opened_store(arguments, create=True) as store:
        await groups.put(store, row, now_ms=now_ms())
    document = {"name": row.name, "ratio": str(row.ratio)}
    return tell(arguments, document, f"Group {row.name} pays {row.ratio} of a price.")


async def delete_group(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        if not await groups.delete(store, arguments.name, now_ms=now_ms()):
            raise Failure(f"the group {arguments.name!r} was not set here")
    return tell(arguments, {"name": arguments.name, "status": "deleted"}, f"Group {arguments.name} is deleted.")
