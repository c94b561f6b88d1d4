"""`tollway db`: the database's schema, and the secret that it is encrypted under."""

from argparse import Namespace, RawDescriptionHelpFormatter

from ..rotation import rotate
from ..store import migrate
from ..store.address import parse, shown
from .arguments import Parser, command, group
from .moments import now_ms
from .output import counted, tell
from .session import exists, opened_data_dir, settings_of

ROTATE = """\
Encrypt everything that is encrypted in the database anew, under CRYPTO_SECRET, in one transaction. CRYPTO_SECRET_FORMER
names the secret that it was under before, or several between commas: they open what was written under them, and encrypt
nothing.

Start every server with both first: those that have both go on, and one with the former alone leaves every channel out
from then on, says so in its log, and is refused when it starts again. After it, CRYPTO_SECRET_FORMER may be taken
away. Callers' keys stay as they are and go on working. Where the secret was kept in DATA_DIR/crypto_secret, the new one
is kept there from then on, and CRYPTO_SECRET need not stay set.

It may be killed at any moment and run again; where all is done already, it says so and changes nothing. Where neither
secret is the database's, or a channel opens with none of them, it refuses and changes nothing.
"""


def parser() -> Parser:
    parser, commands = group(
        "tollway db",
        "The database: its schema, which every start brings up to date by itself, and the secret it is encrypted "
        "under.",
    )
    command(commands, "upgrade", upgrade, "make the database, or bring its schema up to date")
    command(commands, "current", current, "show the schema that the database has, and change nothing")
    rotating = command(commands, "rotate-secret", rotate_secret, "encrypt everything anew under a new CRYPTO_SECRET")
    rotating.description = ROTATE
    rotating.formatter_class = RawDescriptionHelpFormatter
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


async def rotate_secret(arguments: Namespace) -> int:
    async with opened_data_dir(arguments) as opened:
        done = await rotate(opened, settings_of(arguments), now_ms=now_ms())
        where = shown(opened.store.address)
    document = {"database": where, "changed": done.changed, "channels": done.channels}
    text = (
        f"{where} is under the current CRYPTO_SECRET now, "
        + counted(done.channels, "channel was encrypted anew", "channels were encrypted anew")
        + ": CRYPTO_SECRET_FORMER may be taken away."
        if done.changed
        else f"Nothing to do: {where} is under the current CRYPTO_SECRET."
    )
    return tell(arguments, document, text)


async def _revision(arguments: Namespace) -> str | None:
    url = settings_of(arguments).database
    return await migrate.current(url) if exists(url) else None
