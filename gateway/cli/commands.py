"""The commands, the manual page over them, and the one place where a failure becomes a sentence and a status."""

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from .arguments import Parser, did_you_mean
from .failures import Failure, Usage, explained


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a group of them: the module of this package whose `parser()` knows its arguments."""

    name: str
    summary: str
    module: str

    def parser(self) -> Parser:
        return import_module(f".{self.module}", __package__).parser()


COMMANDS = (
    Command("serve", "serve the relay until SIGTERM", "serve"),
    Command("demo", "serve with a user, a key and a channel that needs no network", "demo"),
    Command("user", "create, list, change and delete users; top up their balance", "user"),
    Command("token", "create, list, change and delete the keys that callers hold", "token"),
    Command("channel", "create, list, test, change and delete upstream accounts", "channel"),
    Command("explain", "say where a request would go, why not elsewhere, and what it may cost", "explain"),
    Command("logs", "show what was served, to whom, and what it cost", "logs"),
    Command("option", "list, set and unset the options that take effect while serving", "option"),
    Command("price", "show, set, import and export what models cost; correct past charges to it", "price"),
    Command("group", "list, set and delete user groups and their price ratios", "group"),
    Command("budget", "list, set and delete what may be spent in a day, a week or a month", "budget"),
    Command("audit", "prove that all grants, balances and charges add up", "audit"),
    Command("db", "show the database's schema and bring it up to date; change CRYPTO_SECRET", "db"),
)

MANUAL = """\
NAME
    tollway - a gateway for AI models: one base URL and one key, many upstreams, every request metered

SYNOPSIS
    tollway COMMAND [ARGUMENT ...] [--json] [--data-dir DIR]
    tollway COMMAND --help
    tollway --version | -V

    --json and --data-dir may also stand before the command. Where a command is about one user, token or channel,
    its name or its id will do: tollway token disable laptop.

COMMANDS
{commands}

    Every command works beside a server that runs on the same data directory; the server takes changes over within
    a second. With --json a command prints exactly one JSON document (logs: one a line). Passwords and, if you like,
    upstream keys are read from standard input, because arguments can be seen by others on the machine.

ENVIRONMENT
    DATA_DIR        where everything is kept; --data-dir goes before it. Default: data
    SQL_DSN         the database, if not DATA_DIR/tollway.db: postgresql://user:password@host/name, mysql://...
    CRYPTO_SECRET   encrypts upstream keys and hashes callers' keys. Default: made at first use, kept in DATA_DIR;
                    to change it: tollway db rotate-secret --help
    HOST, PORT      the address to listen on. Default: 127.0.0.1 and 3000
    `tollway serve --help` lists all of them.

FILES
    DATA_DIR/tollway.db       the database, with tollway.db-wal and tollway.db-shm beside it
    DATA_DIR/crypto_secret    the secret; without it the keys in the database are lost, so back up both
                              (crypto_secret_former, while it is being changed: the one before)
    DATA_DIR/journal/         charges that the database does not have yet; the next start writes those of a process that
                              ended without doing so

EXAMPLES
    See it work, with nothing to set up:
        tollway demo
    A gateway of your own:
        printf %s "$PASSWORD" | tollway user create --username root --role root --password-stdin --quota 50000000
        printf %s "$OPENAI_KEY" | tollway channel create --name openai --type openai --key-stdin --models gpt-4o-mini
        tollway token create --user root --name laptop
        tollway serve
    Ask why a request goes where it goes:
        tollway explain --user root --model gpt-4o-mini
    What alice spent in the last hour:
        tollway logs --user alice --since 1h
    At most ten dollars a day for alice, and a warning at 90 %:
        tollway budget set --user alice --period daily --amount 5000000 --soft-percent 90
    A price was wrong for three days; correct it, see what that comes to, and correct what was charged:
        tollway price set my-model --input 0.15 --output 0.60
        tollway price reprice --model my-model --since 3d
        tollway price reprice --model my-model --since 3d --yes

EXIT STATUS
    0   done
    1   it could not be done; a sentence on standard error says why
    2   the command or a setting cannot be right; the sentence names it
    130 interrupted
"""


def manual() -> str:
    """The page that `tollway --help` prints."""
    return MANUAL.format(commands="\n".join(f"    {command.name:<9} {command.summary}" for command in COMMANDS))


def run(argv: Sequence[str]) -> int:
    """One command, from its arguments to its exit status."""
    common, argv = _common(argv)
    first, rest = (argv[0], [*common, *argv[1:]]) if argv else ("", [])
    if first == "help":
        first, rest = (argv[1], ["--help"]) if argv[1:] else ("--help", [])
    if first in ("-h", "--help"):
        return _print(manual())
    if first in ("-V", "--version", "version"):
        from ..version import version

        return _print(f"tollway {version()}\n")
    command = next((each for each in COMMANDS if each.name == first), None)
    if command is None:
        known = ", ".join(each.name for each in COMMANDS)
        problem = f"{first!r} is no command" if first else "a command is missing"
        near = did_you_mean(first, (each.name for each in COMMANDS))
        return _refuse("tollway", Usage(f"{problem}: it is one of {known}; see tollway --help{near}"))
    return _perform(command, rest)


def _common(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of every command that stand before the command, and what follows them."""
    end = 0
    while argv[end:]:
        if argv[end] == "--data-dir":
            end += 2
        elif argv[end] == "--json" or argv[end].startswith("--data-dir="):
            end += 1
        else:
            break
    return list(argv[:end]), list(argv[end:])


def _perform(command: Command, argv: list[str]) -> int:
    try:
        arguments = command.parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except SystemExit as ended:  # argparse, after it has printed a command's help
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _drop_stdout()
            return _refuse(f"tollway {command.name}", Failure("there is no space left to write to"))
        failure = explained(error)
        if failure is None:
            raise
        return _refuse(f"tollway {command.name}", failure)


def _refuse(who: str, failure: Failure) -> int:
    sentence = "".join(character if character.isprintable() else " " for character in str(failure))
    print(f"{who}: {sentence}", file=sys.stderr)
    return failure.status


def _print(text: str) -> int:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        _drop_stdout()
    return 0


def _drop_stdout() -> None:
    """The reader has gone (`tollway logs | head`), or the disk is full: what is left must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
