"""`tollway serve`: the relay in the foreground."""

import asyncio
import errno
import signal
import socket
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from ...config.settings import MOST_WORKERS, VARIABLES, Settings
from .arguments import Parser, finish, whole
from .failures import Failure

DESCRIPTION = """\
Serve the relay until SIGTERM. Open requests are then finished, and every charge is written to the database. Those that
it does not take stay in DATA_DIR/journal for the next start, and the exit status is then 1. Ctrl-C does the same;
a second one cuts open requests off, and a third waits for nothing.

Several workers share the data directory and the port, and no balance is overdrawn by them. Each has its own connections
and view of health; rate limits count over all of them where there is a Redis.
"""


def parser() -> Parser:
    parser = Parser(
        "tollway serve", description=DESCRIPTION, epilog=variables(), formatter_class=RawDescriptionHelpFormatter
    )
    add_address(parser)
    parser.add_argument(
        "--workers", type=whole(1, MOST_WORKERS), metavar="N", help="processes that serve, instead of WORKERS"
    )
    finish(parser, serve, json="changes nothing here: the access log is JSON, one line a request, anyway")
    return parser


def add_address(parser: Parser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", help="the address to listen on, instead of HOST")
    parser.add_argument("--port", type=whole(0, 65535), metavar="N", help="the port, instead of PORT; 0: any free one")


def variables() -> str:
    """The environment's variables with their meanings, for the help."""
    return "\n".join(["environment:", *(f"  {each.name:<26} {each.meaning}" for each in VARIABLES)])


def serve(arguments: Namespace) -> int:
    from .session import exists, settings_of, tell_of_new

    settings = at_address(settings_of(arguments), arguments)
    found = exists(settings.database)
    # Tried here first, where a failure is one sentence: workers that cannot start would be started for ever.
    asyncio.run(_try_to_open(settings))
    tell_of_new(found, settings, arguments)
    return start(settings, workers=arguments.workers or settings.workers)


def at_address(settings: Settings, arguments: Namespace) -> Settings:
    """The settings with the host and port that are asked for, which were free a moment ago. Raises `Failure`."""
    host: str = settings.host if arguments.host is None else arguments.host
    port: int = settings.port if arguments.port is None else arguments.port
    return replace(settings, host=host, port=_free_port(host, port))


def start(settings: Settings, *, workers: int) -> int:
    """Serve until a signal ends it."""
    # Only now: no other command waits for the server's imports.
    from ..server import run_server

    _tell_of_others(settings)
    # The server raises the signal once more after its orderly end, which is a success unless it says otherwise.
    signal.signal(signal.SIGTERM, _leave)
    return run_server(settings, workers=workers)


def _tell_of_others(settings: Settings) -> None:
    """Two servers on one folder are right as far as money goes, but mostly one of them has been forgotten."""
    from ..ledger.journal import JournalError, live_holders
    from ..ledger.opening import journal_folder

    with suppress(JournalError):  # the server itself says what is wrong with the folder
        if live_holders(journal_folder(settings.data_dir)):
            print(
                f"tollway: warning: another server runs on DATA_DIR {settings.data_dir}: "
                "both serve its users, and no balance is overdrawn",
                file=sys.stderr,
                flush=True,
            )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


async def _try_to_open(settings: Settings) -> None:
    from ..data_dir import open_stores

    async with open_stores(settings):
        pass


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises `Failure` where nobody can listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no address"
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        other = f"; try PORT={port + 1}" if taken and port < 65535 else ""
        raise Failure(f"HOST {host} and PORT {port} cannot be listened on: {reason}{other}") from None
