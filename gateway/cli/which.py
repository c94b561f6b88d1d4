"""Which user, token or channel a command is about: its name or its id behind the command, or a flag that says which."""

from argparse import ArgumentParser, Namespace
from typing import Any

from ..store import Store, users
from ..store.names import NamedKind, may_be_id, meant_by, told_apart
from ..store.records import UserRow
from .arguments import name, number
from .failures import Failure
from .session import user_named


def add_which(parser: ArgumentParser, kind: NamedKind) -> Any:
    """Add the argument and the flag that may stand for it; the group of which a call has exactly one."""
    either = parser.add_mutually_exclusive_group(required=True)
    typed = either.add_argument("which", nargs="?", metavar=kind.upper(), help=f"the {kind}'s name or id")
    # With "?" argparse would take it for absent as soon as a flag stands before it; the group requires it already.
    typed.nargs = None
    if kind == "user":
        either.add_argument("--username", type=name, metavar="NAME", help="in place of USER: the user's name")
    else:
        either.add_argument(
            "--id", type=number, metavar="N", help=f"in place of {kind.upper()}: the id, as `list` shows it"
        )
    return either


async def id_of(store: Store, kind: NamedKind, arguments: Namespace) -> int:
    """The id that is meant; one given as `--id` need not exist. Raises `Failure` for no row, and for several."""
    typed: str | None = arguments.which
    if typed is None:
        return arguments.id
    match await meant_by(store, kind, typed):
        case (row_id,):
            return row_id
        case ():
            raise unknown(kind, typed)
        case found:
            # A name may look like another's id, so the flag, which takes only one of the two, is what always tells.
            such_as = f"--username {typed}" if kind == "user" else " or ".join(f"--id {each}" for each in found)
            any_of = await told_apart(store, kind, found)
            raise Failure(f"{typed!r} may be any of the {kind}s {any_of}: in its place say {such_as}")


async def id_behind(store: Store, kind: NamedKind, flag: str, typed: str, *, or_gone: bool = False) -> int:
    """
    The id that is meant by a flag's name or id. Raises `Failure` for no row, and for several.

    `or_gone`: the id of a row that is no longer there will do too, for log rows outlive what they name.
    """
    match await meant_by(store, kind, typed):
        case (row_id,):
            return row_id
        case () if or_gone and may_be_id(typed):
            return int(typed)
        case ():
            raise Failure(f"argument {flag}: {unknown(kind, typed)}")
        case found:
            any_of = await told_apart(store, kind, found)
            raise Failure(f"argument {flag}: {typed!r} may be any of {any_of}: give the id")


async def user_of(store: Store, arguments: Namespace) -> UserRow:
    """The user who is meant. Raises `Failure`."""
    if arguments.which is None:
        return await user_named(store, arguments.username)
    user_id = await id_of(store, "user", arguments)
    user = await users.by_id(store, user_id)
    if user is None:
        raise unknown("user", arguments.which)
    return user


async def user_behind(store: Store, flag: str, typed: str) -> UserRow:
    """
    The user who is meant by a flag's name or id. Raises `Failure`.

    Of two the one of that name: the other has a name of its own to be called by.
    """
    user = await users.by_name(store, typed)
    if user is None:
        user = await users.by_id(store, await id_behind(store, "user", flag, typed))
    if user is None:
        raise unknown("user", typed)
    return user


def unknown(kind: NamedKind, which: int | str) -> Failure:
    shown = which if str(which).isdecimal() else repr(which)
    return Failure(f"the {kind} {shown} does not exist")
