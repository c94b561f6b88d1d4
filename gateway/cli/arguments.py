"""What the commands' arguments have in common: a parser that refuses in one sentence, the shared flags, the values."""

import ipaddress
import re
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Coroutine, Iterable
from decimal import Decimal
from typing import Any, NoReturn, Protocol, cast

from .failures import Usage

MOST_QUOTA = 10**15
"""Two billion dollars: sums of a few thousand of them still fit into the database's 64 bits."""
LONGEST_NAME = 64
USERNAME = re.compile(r"[\w.@-]+")
INVALID_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<choices>.*)\)")
UNKNOWN_FLAG = re.compile(r"unrecognized arguments: (?P<given>--[\w-]+)")

JSON_MEANING = "print one JSON document instead of text"
DATA_DIR_MEANING = "the data directory, instead of DATA_DIR"

Work = Callable[[Namespace], Coroutine[Any, Any, int]]
"""What a command does: from its arguments to its exit status."""


class Commands(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str, description: str) -> ArgumentParser: ...


class Parser(ArgumentParser):
    """Raises `Usage` where argparse prints its usage and leaves. No flag may be abbreviated: another may come."""

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)

    def parse_known_args(self, *given: Any, **named: Any) -> tuple[Any, list[str]]:
        # argparse would hand them up to the group's parser, which knows no flag that could have been meant.
        known, unknown = super().parse_known_args(*given, **named)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: ACTION"):
            message = f"an ACTION is missing; see {self.prog} --help"
        if invalid := INVALID_CHOICE.search(message):
            message += did_you_mean(invalid["given"], re.findall(r"[\w-]+", invalid["choices"]))
        if unknown := UNKNOWN_FLAG.match(message):
            message += did_you_mean(unknown["given"], self._option_string_actions)
        raise Usage(message)


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """The end of a refusal: the choice that was most likely meant; "" where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(given.lower(), list(choices), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def group(prog: str, description: str) -> tuple[Parser, Commands]:
    """The parser of a group of commands (`tollway user`), and where its commands are added."""
    parser = Parser(prog, description=description)
    add_common(parser)
    return parser, cast("Commands", parser.add_subparsers(dest="action", required=True, metavar="ACTION"))


def command(commands: Commands, name: str, work: Work, summary: str) -> ArgumentParser:
    """One command of a group, with the flags that all have."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}.")
    add_common(parser, default=SUPPRESS)  # what the group has read before its action stays read
    parser.set_defaults(run=on_loop(work))
    return parser


def finish(parser: ArgumentParser, run: Callable[[Namespace], int], **meanings: str) -> ArgumentParser:
    """Add the flags that every command has, with `meanings` as `add_common` takes them, and what runs it."""
    add_common(parser, **meanings)
    parser.set_defaults(run=run)
    return parser


def add_common(
    parser: ArgumentParser, default: str | None = None, *, json: str = JSON_MEANING, data_dir: str = DATA_DIR_MEANING
) -> None:
    """
    The flags that every command has; they may also stand before the command and before its action.

    `json` and `data_dir` are their help, for a command where they mean something else than everywhere.
    """
    parser.add_argument("--json", action="store_true", default=default or False, help=json)
    parser.add_argument("--data-dir", type=folder, default=default, metavar="DIR", help=data_dir)


def on_loop(work: Work) -> Callable[[Namespace], int]:
    """Run the work on an event loop of its own."""

    def run(arguments: Namespace) -> int:
        # Only now: whoever asks for help does not wait for the event loop's modules.
        import asyncio

        return asyncio.run(work(arguments))

    return run


def whole(low: int, high: int, of: str = "") -> Callable[[str], int]:
    """A whole number between two bounds; `of` follows "a whole number" where one that is none is refused."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"must be a whole number{of}, not {text!r}") from None
        if not low <= value <= high:
            raise ArgumentTypeError(f"must lie between {low} and {high}, not {text}")
        return value

    return parse


QUOTA = " of quota (500000 is a dollar)"
quota = whole(0, MOST_QUOTA, QUOTA)
number = whole(1, 2**63 - 1)
limit = whole(0, 2**31 - 1)


def folder(text: str) -> str:
    if not text:
        raise ArgumentTypeError("must name a folder")
    return text


def text(value: str) -> str:
    """Any text that can be stored; bytes that are no UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("must be UTF-8 text") from None
    return value


def name(text: str) -> str:
    """A name of 1 to 64 characters that can be printed and does not begin or end with a blank."""
    if not 1 <= len(text) <= LONGEST_NAME or not text.isprintable() or text != text.strip():
        raise ArgumentTypeError(f"must be a name of 1 to {LONGEST_NAME} printable characters, not {text[:80]!r}")
    return text


def username(text: str) -> str:
    """A name for a new user, such as an address for mail. Users who have another already keep it."""
    if not USERNAME.fullmatch(name(text)):
        raise ArgumentTypeError(f"must be letters, digits and . - _ @ only, not {text!r}")
    return text


def cache_ratio(text: str) -> Decimal:
    """What a cached input token costs, as a share of an input token's price."""
    from ...config.price import read_cache_ratio

    try:
        ratio = read_cache_ratio(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if ratio is None:
        raise ArgumentTypeError("must be a number from 0 to 1")
    return ratio


def or_empty(parse: Callable[[str], Any], nothing: Any) -> Callable[[str], Any]:
    """What `parse` takes, or an empty text, which takes a restriction away and means `nothing`."""

    def parse_or_empty(text: str) -> Any:
        return parse(text) if text else nothing

    return parse_or_empty


def names(value: str) -> tuple[str, ...]:
    """Names between commas or line breaks, each once, in the order given; at least one."""
    parts = (part.strip() for part in text(value).replace("\n", ",").split(","))
    found = tuple(dict.fromkeys(part for part in parts if part))
    if not found:
        raise ArgumentTypeError("must name at least one")
    return found


def networks(text: str) -> tuple[str, ...]:
    """Addresses or networks between commas."""
    found = names(text)
    for each in found:
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError:
            raise ArgumentTypeError(f"must be addresses or networks such as 10.0.0.0/8, not {each!r}") from None
    return found


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    import orjson

    try:
        value: object = orjson.loads(text)
        orjson.dumps(value)  # what is nested too deeply can be read, but not be stored
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise ArgumentTypeError(f"must be a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError("must be a JSON object, such as {}")
    return cast("dict[str, Any]", value)


def switch(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise ArgumentTypeError(f"must be true or false, not {text!r}") from None


def secret_from_stdin(prompt: str) -> str:
    """
    Everything on standard input, without the line break at its end; asked for, without echo, at a terminal.

    Secrets come this way because arguments are seen by every user of the machine.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        # The event loop's handler only asks its task to end, which waits here and would have to be interrupted twice.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if sys.stdin.isatty():
            import getpass

            return getpass.getpass(f"{prompt}: ")
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Usage(f"the {prompt.lower()} on standard input must be UTF-8 text") from None
    finally:
        signal.signal(signal.SIGINT, before)
