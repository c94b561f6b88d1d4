"""`tollway serve`: the relay in the foreground."""

import asyncio
import signal
import socket
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from ...config.settings import VARIABLES, Settings
from .arguments import Parser, finish, whole
from .failures import Failure

MOST_WORKERS = 256

DESCRIPTION = """\
Serve the relay until SIGTERM. Open requests are then finished, and every charge is written down: those that the
database does not take into DATA_DIR/unwritten-charges-<time>.jsonl, and the exit status is then 1.

Several workers share the data directory and the port. Each has its own connections, rate limits and view of health.
"""


def parser() -> Parser:
    parser = Parser(
        "tollway serve", description=DESCRIPTION, epilog=variables(), formatter_class=RawDescriptionHelpFormatter
    )
    add_address(parser)
    parser.add_argument(
        "--workers", type=whole(1, MOST_WORKERS), default=1, metavar="N", help="processes that serve. Default: 1"
    )
    finish(parser, serve)
    return parser


def add_address(parser: Parser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", help="the address to listen on, instead of HOST")
    parser.add_argument("--port", type=whole(0, 65535), metavar="N", help="the port, instead of PORT; 0: any free one")


def variables() -> str:
    """The environment's variables with their meanings, for the help."""
    return "\n".join(["environment:", *(f"  {each.name:<26} {each.meaning}" for each in VARIABLES)])


def serve(arguments: Namespace) -> int:
    from .session import settings_of

    settings = at_address(settings_of(arguments), arguments)
    # Tried here first, where a failure is one sentence: workers that cannot start would be started for ever.
    asyncio.run(_try_to_open(settings))
    return start(settings, workers=arguments.workers)


def at_address(settings: Settings, arguments: Namespace) -> Settings:
    """The settings with the host and port that are asked for, which were free a moment ago. Raises `Failure`."""
    host: str = settings.host if arguments.host is None else arguments.host
    port: int = settings.port if arguments.port is None else arguments.port
    return replace(settings, host=host, port=_free_port(host, port))


def start(settings: Settings, *, workers: int) -> int:
    """Serve until a signal ends it."""
    # Only now: no other command waits for the server's imports.
    from ..server import run_server

    # The server raises the signal once more after its orderly end, which is a success unless it says otherwise.
    signal.signal(signal.SIGTERM, _leave)
    return run_server(settings, workers=workers)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


async def _try_to_open(settings: Settings) -> None:
    from ..data_dir import open_data_dir

    opened = await open_data_dir(settings)
    await opened.store.close()


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
        raise Failure(f"HOST {host} and PORT {port} cannot be listened on: {reason}") from None
