"""`tollway option`: what an operator may change while the gateway serves."""

import dataclasses
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

from ...config.groups import GroupError, GroupRatios
from ...config.options import NEW_API_NAMES, OptionError, Options, parse_option
from ..store import Store, options
from .arguments import Parser, command, did_you_mean, group, text
from .failures import Failure, Usage
from .moments import now_ms
from .output import clean, tell
from .session import opened_store

WIDEST = 120
DEEPER = "    "
GROUP_MEANINGS = dict(
    zip(
        GroupRatios().to_options(),
        (
            "JSON: group -> the share of a price paid in it.",
            "JSON: user's group -> group used -> the share paid there instead.",
            "JSON: group -> label; the groups that every user's keys may name.",
            "JSON: user's group -> additions (+:group) and removals (-:group) to those.",
        ),
        strict=True,
    )
)
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Options)}


def parser() -> Parser:
    parser, commands = group("tollway option", "Options: settings that take effect while the gateway serves.")
    listing = command(commands, "list", list_options, "list options with their values, defaults and meanings")
    listing.add_argument("name", nargs="?", metavar="NAME", help="only this one, or with * only those that fit: clamp*")
    setting = command(commands, "set", set_option, "set an option")
    setting.add_argument("name", metavar="NAME", help="the option's name, or New API's name for it")
    setting.add_argument(
        "value",
        type=text,
        nargs="?",
        metavar="VALUE",
        help="a number, true or false, or text; lists have one entry a line. NAME=VALUE will do too",
    )
    unsetting = command(commands, "unset", unset_option, "give an option its default again")
    unsetting.add_argument("name", metavar="NAME", help="the option's name, or New API's name for it")
    return parser


async def list_options(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        stored = await options.list_all(store)
    wanted = NEW_API_NAMES.get(arguments.name, arguments.name) or "*"
    found = [each for each in _documents(stored) if fnmatchcase(each["name"], wanted)]
    if not found:
        raise unknown(wanted)
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return tell(arguments, found, "\n".join(line for each in found for line in _lines(each, width)))


def _lines(option: Mapping[str, Any], width: int) -> Iterator[str]:
    """`name = value`, whether that is the default, and the meaning below it."""
    source = f"set; default: {_text(option['default'])}" if option["set"] else "default"
    line = f"{option['name']} = {_text(option['value'])} ({source})"
    yield from textwrap.wrap(clean(line), width, subsequent_indent=DEEPER)
    yield from textwrap.wrap(clean(option["meaning"]), width, initial_indent=DEEPER, subsequent_indent=DEEPER)


async def set_option(arguments: Namespace) -> int:
    name, value = arguments.name, arguments.value
    if value is None:
        name, equals, value = name.partition("=")
        if not equals:
            raise Usage(f"argument VALUE: is missing; say tollway option set {name} VALUE")
    name = _known(name)
    try:
        if name in GROUP_MEANINGS:
            GroupRatios.from_options({name: value})
        else:
            parse_option(name, value)
    except (OptionError, GroupError) as error:
        raise Usage(f"argument VALUE: {error}") from None
    async with opened_store(arguments, create=True) as store:
        await options.set_many(store, {name: value}, now_ms=now_ms())
        await _unset_aliases(store, name)
    return tell(arguments, {"name": name, "value": value}, f"{name} is set.")


async def unset_option(arguments: Namespace) -> int:
    name = _known(arguments.name)
    async with opened_store(arguments) as store:
        was_set = await options.unset(store, name, now_ms=now_ms())
        was_set = await _unset_aliases(store, name) or was_set
    return tell(arguments, {"name": name, "was_set": was_set}, f"{name} has its default.")


async def _unset_aliases(store: Store, name: str) -> bool:
    """New API's spelling of the option, from an adopted database, would go on saying something else."""
    aliases = [alias for alias, own in NEW_API_NAMES.items() if own == name]
    removed = [await options.unset(store, alias, now_ms=now_ms()) for alias in aliases]
    return any(removed)


def _known(name: str) -> str:
    """Our spelling of an option. Raises `Usage`."""
    own = NEW_API_NAMES.get(name, name)
    if own not in DEFAULTS and own not in GROUP_MEANINGS:
        raise unknown(name)
    return own


def unknown(name: str) -> Usage:
    near = did_you_mean(name, (*DEFAULTS, *GROUP_MEANINGS))
    return Usage(f"argument NAME: {name!r} is no option; see tollway option list{near}")


def _documents(stored: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    own = {NEW_API_NAMES.get(name, name): (name, value) for name, value in stored.items()}
    for field in dataclasses.fields(Options):
        name, stored_text = own.get(field.name, (field.name, None))
        value = field.default if stored_text is None else _parsed(name, stored_text)
        yield _document(field.name, value, field.default, stored_text is not None, field.metadata["meaning"])
    for name, default in GroupRatios().to_options().items():
        yield _document(name, stored.get(name, default), default, name in stored, GROUP_MEANINGS[name])


def _document(name: str, value: Any, default: Any, is_set: bool, meaning: str) -> dict[str, Any]:
    return {"name": name, "value": value, "default": default, "set": is_set, "meaning": meaning}


def _parsed(name: str, stored: str) -> Any:
    try:
        return parse_option(name, stored)
    except OptionError as error:
        raise Failure(f"a stored setting cannot be used: {error}; see tollway option unset") from None


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"{len(cast(tuple[Any, ...], value))} entries"
    return str(value)
