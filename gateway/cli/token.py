"""`tollway token`: the keys that callers hold."""

from argparse import ArgumentParser, Namespace
from typing import Any

from ...config.groups import GroupRatios
from ..store import Store, channels, options, tokens, users
from ..store.records import TokenRow, TokenStatus
from .arguments import Parser, command, group, limit, moment, name, names, networks, number, quota
from .failures import Failure, Usage
from .output import dollars, iso, short, table, tell
from .session import now_ms, opened_data_dir, opened_store, user_named


def parser() -> Parser:
    parser, commands = group("tollway token", "Tokens: the keys that callers hold, each with limits of its own.")
    _add_create(command(commands, "create", create, "make a key, and show it this once"))
    listing = command(commands, "list", list_tokens, "list keys by their first and last characters")
    listing.add_argument("--user", type=name, metavar="NAME", help="only those of this user")
    for action, work, summary in (
        ("disable", disable, "refuse a key"),
        ("enable", enable, "accept a key again"),
        ("delete", delete, "remove a key for good; its log rows stay"),
    ):
        _add_id(command(commands, action, work, summary))
    return parser


def _add_id(parser: ArgumentParser) -> None:
    parser.add_argument("--id", type=number, required=True, metavar="N", help="the token's id, as `list` shows it")


def _add_create(parser: ArgumentParser) -> None:
    parser.add_argument("--user", type=name, required=True, metavar="NAME", help="who owns the key and pays for it")
    parser.add_argument("--name", type=name, required=True, help="what the key is for")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--quota", type=quota, metavar="N", help="what the key may spend; 500000 is a dollar")
    budget.add_argument(
        "--unlimited", action="store_true", help="only the user's balance limits the key. This is the default"
    )
    parser.add_argument("--models", type=names, metavar="A,B", help="the only models it may use. Default: all")
    parser.add_argument(
        "--allow-ips", type=networks, metavar="A,B", help="the only addresses or networks it comes from. Default: all"
    )
    parser.add_argument("--group", type=name, help="routes and prices it so. Default: the user's")
    parser.add_argument("--expires", type=moment, metavar="TIME", help="ISO 8601, UTC unless it says. Default: never")
    parser.add_argument(
        "--requests-per-minute", type=limit, default=0, metavar="N", help="Default: 0, as the options say"
    )
    parser.add_argument(
        "--tokens-per-minute", type=limit, default=0, metavar="N", help="Default: 0, as the options say"
    )
    parser.add_argument(
        "--parallel-requests", type=limit, default=0, metavar="N", help="Default: 0, as the options say"
    )


async def create(arguments: Namespace) -> int:
    now = now_ms()
    if arguments.expires is not None and arguments.expires <= now:
        raise Usage(f"argument --expires: {iso(arguments.expires)} has passed")
    async with opened_data_dir(arguments) as opened:
        store, vault = opened.store, opened.vault
        # A key made under another secret than the server's would never work; a channel that does not open tells.
        await channels.list_all(store, vault)
        user = await user_named(store, arguments.user)
        if arguments.group and arguments.group != user.group:
            await _check_group(store, arguments.group, user.group)
        token_id, key = await tokens.create(
            store,
            vault,
            user_id=user.id,
            name=arguments.name,
            unlimited=arguments.quota is None,
            remain_quota=arguments.quota or 0,
            models=arguments.models,
            allow_ips=arguments.allow_ips,
            group=arguments.group or "",
            expires_at=arguments.expires,
            requests_per_minute=arguments.requests_per_minute,
            tokens_per_minute=arguments.tokens_per_minute,
            parallel_requests=arguments.parallel_requests,
            now_ms=now,
        )
    text = f"Token {token_id} of {user.username}. The key is shown this once:\n{key.reveal()}"
    return tell(arguments, {"id": token_id, "key": key.reveal()}, text)


async def _check_group(store: Store, wanted: str, user_group: str) -> None:
    ratios = GroupRatios.from_options(await options.list_all(store))
    if wanted not in ratios.usable(user_group):
        raise Failure(f"the group {wanted!r} is not open to users of the group {user_group!r}")


async def list_tokens(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        if arguments.user is None:
            owners = {user.id: user.username for user in await users.list_all(store)}
            rows = await tokens.all_kept(store)
        else:
            user = await user_named(store, arguments.user)
            owners = {user.id: user.username}
            rows = tuple(reversed(await tokens.of_user(store, user.id)))
    headings = ("id", "user", "name", "key", "status", "left", "used", "group", "expires", "last used")
    text = table(headings, (_line(row, owners) for row in rows), empty="There are no tokens.")
    return tell(arguments, [_document(row, owners) for row in rows], text)


async def disable(arguments: Namespace) -> int:
    return await _switch(arguments, TokenStatus.DISABLED)


async def enable(arguments: Namespace) -> int:
    return await _switch(arguments, TokenStatus.ENABLED)


async def _switch(arguments: Namespace, status: TokenStatus) -> int:
    async with opened_store(arguments) as store:
        if not await tokens.set_status(store, arguments.id, status, now_ms=now_ms()):
            raise _unknown(arguments.id)
    word = status.name.lower()
    return tell(arguments, {"id": arguments.id, "status": word}, f"Token {arguments.id} is {word}.")


async def delete(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        if not await tokens.delete(store, arguments.id, now_ms=now_ms()):
            raise _unknown(arguments.id)
    return tell(arguments, {"id": arguments.id, "status": "deleted"}, f"Token {arguments.id} is deleted.")


def _unknown(token_id: int) -> Failure:
    return Failure(f"the token {token_id} does not exist")


def _document(token: TokenRow, owners: dict[int, str]) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": owners.get(token.user_id, ""),
        "name": token.name,
        "key": token.key_prefix,
        "status": token.status.name.lower(),
        "unlimited": token.unlimited,
        "remain_quota": token.remain_quota,
        "used_quota": token.used_quota,
        "models": token.models,
        "allow_ips": token.allow_ips,
        "group": token.group,
        "expires_at": iso(token.expires_at),
        "requests_per_minute": token.requests_per_minute,
        "tokens_per_minute": token.tokens_per_minute,
        "parallel_requests": token.parallel_requests,
        "created_at": iso(token.created_at),
        "accessed_at": iso(token.accessed_at),
    }


def _line(token: TokenRow, owners: dict[int, str]) -> tuple[object, ...]:
    return (
        token.id,
        owners.get(token.user_id, ""),
        token.name,
        token.key_prefix,
        token.status.name.lower(),
        "unlimited" if token.unlimited else dollars(token.remain_quota),
        dollars(token.used_quota),
        token.group,
        short(token.expires_at),
        short(token.accessed_at),
    )
