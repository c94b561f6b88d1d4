"""`tollway user`: who may use the gateway, and what each has to spend."""

from argparse import ArgumentParser, Namespace
from typing import Any

from ..secrets_at_rest import hash_password
from ..store import Conflict, users
from ..store.records import Role, UserRow, UserStatus
from .arguments import MOST_QUOTA, Parser, command, group, name, quota, secret_from_stdin, whole
from .failures import Failure, Usage
from .output import dollars, short, table, tell
from .output import iso as iso_time
from .session import now_ms, opened_store, user_named

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 512
ROLES = {"root": Role.ROOT, "admin": Role.ADMIN, "user": Role.USER}


def parser() -> Parser:
    parser, commands = group("tollway user", "Users: who owns keys, and what each has to spend.")
    new = command(commands, "create", create, "add a user")
    _add_username(new)
    new.add_argument("--role", choices=ROLES, default="user", help="what the user may do. Default: user")
    _add_password(new)
    new.add_argument("--quota", type=quota, default=0, metavar="N", help="the balance; 500000 is a dollar. Default: 0")
    new.add_argument("--group", type=name, default="default", help="decides channels and price ratio. Default: default")
    command(commands, "list", list_users, "list all users")
    top_up = command(commands, "quota", add_quota, "add to a user's balance, or take from it")
    _add_username(top_up)
    top_up.add_argument(
        "--add", type=whole(-MOST_QUOTA, MOST_QUOTA), required=True, metavar="N", help="500000 is a dollar; may be < 0"
    )
    password = command(commands, "password", set_password, "set a user's password")
    _add_username(password)
    _add_password(password, required=True)
    _add_username(command(commands, "disable", disable, "refuse all keys of a user"))
    _add_username(command(commands, "enable", enable, "accept the keys of a user again"))
    return parser


def _add_username(parser: ArgumentParser) -> None:
    parser.add_argument("--username", type=name, required=True, metavar="NAME", help="the user's name")


def _add_password(parser: ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        required=required,
        help=f"read the password, {SHORTEST_PASSWORD} characters or more, from standard input",
    )


def _password_hash() -> str:
    password = secret_from_stdin("Password")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Usage(f"the password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    if len(password.splitlines()) > 1:
        raise Usage("the password must be one line")
    return hash_password(password)


async def create(arguments: Namespace) -> int:
    # Without a password the user has keys, but nobody can sign in.
    password_hash = _password_hash() if arguments.password_stdin else ""
    async with opened_store(arguments, create=True) as store:
        try:
            user_id = await users.create(
                store,
                username=arguments.username,
                password_hash=password_hash,
                role=ROLES[arguments.role],
                group=arguments.group,
                quota=arguments.quota,
                now_ms=now_ms(),
            )
        except Conflict:
            raise Failure(f"the username {arguments.username!r} is taken") from None
    return tell(arguments, {"id": user_id}, f"User {arguments.username} has the id {user_id}.")


async def list_users(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        rows = await users.list_all(store)
    headings = ("id", "username", "role", "status", "group", "balance", "used", "requests", "created")
    text = table(headings, map(_line, rows), empty="There are no users.")
    return tell(arguments, list(map(_document, rows)), text)


async def add_quota(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        user = await user_named(store, arguments.username)
        if abs(user.quota + arguments.add) > MOST_QUOTA:
            raise Usage(f"argument --add: the balance would lie beyond {MOST_QUOTA}")
        balance = await users.add_quota(store, user.id, arguments.add, now_ms=now_ms())
    if balance is None:
        raise Failure(f"the user {arguments.username!r} does not exist any more")
    text = f"{arguments.username} has {dollars(balance)} left."
    return tell(arguments, {"id": user.id, "quota": balance}, text)


async def set_password(arguments: Namespace) -> int:
    password_hash = _password_hash()
    async with opened_store(arguments) as store:
        user = await user_named(store, arguments.username)
        await users.set_password_hash(store, user.id, password_hash, now_ms=now_ms())
    return tell(arguments, {"id": user.id}, f"{arguments.username} has a new password.")


async def disable(arguments: Namespace) -> int:
    return await _switch(arguments, UserStatus.DISABLED)


async def enable(arguments: Namespace) -> int:
    return await _switch(arguments, UserStatus.ENABLED)


async def _switch(arguments: Namespace, status: UserStatus) -> int:
    async with opened_store(arguments) as store:
        user = await user_named(store, arguments.username)
        await users.set_status(store, user.id, status, now_ms=now_ms())
    word = status.name.lower()
    return tell(arguments, {"id": user.id, "status": word}, f"{arguments.username} is {word}.")


def _document(user: UserRow) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "display_name": user.display_name,
        "email": user.email,
        "role": user.role.name.lower(),
        "status": user.status.name.lower(),
        "group": user.group,
        "quota": user.quota,
        "used_quota": user.used_quota,
        "request_count": user.request_count,
        "created_at": iso_time(user.created_at),
    }


def _line(user: UserRow) -> tuple[object, ...]:
    return (
        user.id,
        user.username,
        user.role.name.lower(),
        user.status.name.lower(),
        user.group,
        dollars(user.quota),
        dollars(user.used_quota),
        user.request_count,
        short(user.created_at),
    )
