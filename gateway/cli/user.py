"""`tollway user`: who may use the gateway, and what each has to spend."""

from argparse import ArgumentParser, Namespace
from typing import Any

from ...config.amounts import dollars
from ...config.budget import runs_out
from ..secrets_at_rest import hash_password
from ..store import Conflict, Store, channels, users
from ..store.records import Role, UserRow, UserStatus
from ..store.spending import spent_lately
from .arguments import MOST_QUOTA, QUOTA, Parser, command, group, name, quota, secret_from_stdin, username, whole
from .failures import Failure, Usage
from .moments import now_ms
from .output import iso as iso_time
from .output import short, table, tell, tell_with_warnings
from .session import opened_logs, opened_store
from .which import add_which, unknown, user_of

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 512
ROLES = {"root": Role.ROOT, "admin": Role.ADMIN, "user": Role.USER}


def parser() -> Parser:
    parser, commands = group("tollway user", "Users: who owns keys, and what each has to spend.")
    new = command(commands, "create", create, "add a user")
    new.add_argument(
        "--username", type=username, required=True, metavar="NAME", help="1 to 64 letters, digits and . - _ @"
    )
    new.add_argument("--role", choices=ROLES, default="user", help="what the user may do. Default: user")
    _add_password(new)
    new.add_argument("--quota", type=quota, default=0, metavar="N", help="the balance; 500000 is a dollar. Default: 0")
    new.add_argument("--group", type=name, default="default", help="decides channels and price ratio. Default: default")
    command(commands, "list", list_users, "list all users")
    changing = command(commands, "update", update, "change what the flags name, and nothing else")
    add_which(changing, "user")
    changing.add_argument("--group", type=name, help="decides channels and price ratio")
    changing.add_argument("--role", choices=ROLES, help="what the user may do")
    _add_password(changing)
    top_up = command(commands, "quota", add_quota, "add to a user's balance, or take from it")
    add_which(top_up, "user")
    top_up.add_argument(
        "--add",
        type=whole(-MOST_QUOTA, MOST_QUOTA, QUOTA),
        required=True,
        metavar="N",
        help="500000 is a dollar; < 0 takes",
    )
    password = command(commands, "password", set_password, "set a user's password")
    add_which(password, "user")
    _add_password(password, required=True)
    add_which(command(commands, "disable", disable, "refuse all keys of a user"), "user")
    add_which(command(commands, "enable", enable, "accept the keys of a user again"), "user")
    deleting = command(commands, "delete", delete, "remove a user and refuse all of his keys; the name stays taken")
    add_which(deleting, "user")
    return parser


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
            by = "" if await users.by_name(store, arguments.username) else " by a user who was deleted"
            raise Failure(f"the username {arguments.username!r} is taken{by}") from None
        warnings = await _unserved(store, arguments.group)
    text = f"User {arguments.username} has the id {user_id} and {dollars(arguments.quota)} to spend."
    return tell_with_warnings(arguments, {"id": user_id}, warnings, text)


async def _unserved(store: Store, group: str) -> list[str]:
    return [] if await channels.is_served(store, group) else [f"no channel serves the group {group!r}"]


async def list_users(arguments: Namespace) -> int:
    now, lately = now_ms(), dict[int, int]()
    async with opened_store(arguments) as store:
        rows = await users.list_all(store)
        if arguments.json:
            async with opened_logs(arguments, store) as hours:
                lately = await spent_lately(hours, "user_id", now)
    headings = ("id", "username", "role", "status", "group", "balance", "used", "requests", "created")
    text = table(headings, map(_line, rows), empty="There are no users.")
    return tell(arguments, [_document(row, lately.get(row.id, 0), now) for row in rows], text)


async def add_quota(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        user = await user_of(store, arguments)
        if abs(user.quota + arguments.add) > MOST_QUOTA:
            raise Usage(f"argument --add: the balance would lie beyond {MOST_QUOTA}")
        balance = await users.add_quota(store, user.id, arguments.add, now_ms=now_ms())
    if balance is None:
        raise unknown("user", user.username)
    # Not refused: who was paid back what is spent already does owe it, and a charge may do the same.
    owes = f"{user.username} owes {dollars(-balance)}: what costs anything is refused until more than that is added"
    text = f"{user.username} has {dollars(balance)} left."
    return tell_with_warnings(arguments, {"id": user.id, "quota": balance}, [owes] if balance < 0 else [], text)


async def set_password(arguments: Namespace) -> int:
    password_hash = _password_hash()
    async with opened_store(arguments) as store:
        user = await user_of(store, arguments)
        await users.set_password_hash(store, user.id, password_hash, now_ms=now_ms())
    return tell(arguments, {"id": user.id}, f"{user.username} has a new password.")


async def update(arguments: Namespace) -> int:
    if not (arguments.group or arguments.role or arguments.password_stdin):
        raise Usage("nothing to change: say what, such as --group")
    password_hash = _password_hash() if arguments.password_stdin else None
    role = ROLES[arguments.role] if arguments.role else None
    async with opened_store(arguments) as store:
        user = await user_of(store, arguments)
        await users.update_user(
            store, user.id, group=arguments.group, role=role, password_hash=password_hash, now_ms=now_ms()
        )
        warnings = await _unserved(store, arguments.group) if arguments.group else []
    return tell_with_warnings(arguments, {"id": user.id}, warnings, f"User {user.username} is changed.")


async def delete(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        user = await user_of(store, arguments)
        await users.delete(store, user.id, now_ms=now_ms())
    return tell(arguments, {"id": user.id, "status": "deleted"}, f"User {user.username} is deleted.")


async def disable(arguments: Namespace) -> int:
    return await _switch(arguments, UserStatus.DISABLED)


async def enable(arguments: Namespace) -> int:
    return await _switch(arguments, UserStatus.ENABLED)


async def _switch(arguments: Namespace, status: UserStatus) -> int:
    async with opened_store(arguments) as store:
        user = await user_of(store, arguments)
        await users.set_status(store, user.id, status, now_ms=now_ms())
    word = status.name.lower()
    return tell(arguments, {"id": user.id, "status": word}, f"{user.username} is {word}.")


def _document(user: UserRow, lately: int, now: int) -> dict[str, Any]:
    day = runs_out(user.quota, lately, now)
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
        "runs_out_on": day and day.isoformat(),
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
