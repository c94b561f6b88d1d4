"""`tollway db`: the database's schema."""

from argparse import Namespace

from ..store import migrate
from ..store.address import parse, shown
from .arguments import Parser, command, group
from .output import tell
from .session import exists, opened_data_dir, settings_of


def parser() -> Parser:
    parser, commands = group("tollway db", "The database: its schema, which every start brings up to date by itself.")
    command(commands, "upgrade", upgrade, "make the database, or bring its schema up to date")
    command(commands, "current", current, "show the schema that the database has, and change nothing")
    return parser


async def upgrade(arguments: Namespace) -> int:
    before = await _revision(arguments)
    async with opened_data_dir(arguments, create=True) as opened:
        where = shown(opened.store.address)
    document = {"database": where, "before": before, "revision": migrate.HEAD}
    done = "was up to date" if before == migrate.HEAD else "is up to date now"
    return tell(arguments, document, f"{where} {done}: schema {migrate.HEAD}.")


async def current(arguments: Namespace) -> int:
    revision = await _revision(arguments)
    where = shown(parse(settings_of(arguments).database))
    document = {"database": where, "revision": revision, "head": migrate.HEAD, "up_to_date": revision == migrate.HEAD}
    has = "has no schema yet" if revision is None else f"has schema {revision}"
    return tell(arguments, document, f"{where} {has}; this Tollway's is {migrate.HEAD}.")


async def _revision(arguments: Namespace) -> str | None:
    url = settings_of(arguments).database
    return await migrate.current(url) if exists(url) else None
