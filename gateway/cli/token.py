"""`tollway token`: the keys that callers hold."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import Any, cast

from ...adapters.requests.model_suffix import parse_model
from ...config.amounts import dollars
from ...config.groups import GroupRatios
from ..store import Store, channels, options, tokens, users
from ..store.records import TokenRow, TokenStatus
from .arguments import Parser, command, group, limit, name, names, networks, or_empty, quota
from .failures import Failure, Usage
from .moments import future, now_ms
from .output import iso, short, table, tell, tell_with_warnings
from .session import opened_data_dir, opened_store
from .which import add_which, id_of, unknown, user_behind

NOTHING = ""
"""What an empty value leaves behind: a field that was named, and has no restriction."""


def parser() -> Parser:
    parser, commands = group("tollway token", "Tokens: the keys that callers hold, each with limits of its own.")
    making = command(commands, "create", create, "make a key, and show it this once")
    making.add_argument("--user", type=name, required=True, metavar="USER", help="who owns it and pays: the name or id")
    _add_flags(making, create=True)
    listing = command(commands, "list", list_tokens, "list keys by their first and last characters")
    listing.add_argument("--user", type=name, metavar="USER", help="only those of this user: the name or id")
    changing = command(
        commands, "update", update, "change what the flags name, and nothing else; an empty value takes a limit away"
    )
    add_which(changing, "token")
    _add_flags(changing, create=False)
    for action, work, summary in (
        ("disable", disable, "refuse a key"),
        ("enable", enable, "accept a key again"),
        ("delete", delete, "remove a key for good; its log rows stay"),
    ):
        add_which(command(commands, action, work, summary), "token")
    return parser


def _add_flags(parser: ArgumentParser, *, create: bool) -> None:
    """The flags that describe a key; an absent one is None, for to create one and to change one differ in that."""
    add: Callable[..., Any] = parser.add_argument
    add("--name", type=name, required=create, help="what the key is for")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--quota", type=quota, metavar="N", help="what the key may spend yet; 500000 is a dollar")
    budget.add_argument(
        "--unlimited",
        action="store_true",
        help="only the user's balance limits the key" + (". This is the default" if create else ""),
    )

    def optional(flag: str, parse: Callable[[str], Any], metavar: str, meaning: str, unrestricted: str) -> None:
        if create:
            add(flag, type=parse, metavar=metavar, help=f"{meaning}. Default: {unrestricted}")
        else:
            add(flag, type=or_empty(parse, NOTHING), metavar=metavar, help=f'{meaning}; "" for {unrestricted}')

    optional("--models", names, "A,B", "the only models it may use", "all")
    optional("--allow-ips", networks, "A,B", "the only addresses or networks it comes from", "all")
    optional("--group", name, "GROUP", "routes and prices it so", "the user's")
    optional("--expires", future, "TIME", "ISO 8601, UTC unless it says, or 12h, 30d from now", "never")
    default = "Default: 0, as the options say" if create else "0: as the options say"
    add("--requests-per-minute", type=limit, metavar="N", help=f"requests it may make in a minute. {default}")
    add("--tokens-per-minute", type=limit, metavar="N", help=f"tokens it may use in a minute. {default}")
    add("--parallel-requests", type=limit, metavar="N", help=f"requests it may have open at once. {default}")


def _check_expiry(expires: int | str | None, now: int) -> None:
    if isinstance(expires, int) and expires <= now:
        raise Usage(f"argument --expires: {iso(expires)} has passed")


async def create(arguments: Namespace) -> int:
    now = now_ms()
    _check_expiry(arguments.expires, now)
    async with opened_data_dir(arguments) as opened:
        store, vault = opened.store, opened.vault
        user = await user_behind(store, "--user", arguments.user)
        if arguments.group and arguments.group != user.group:
            await _check_group(store, arguments.group, user.group)
        namesakes = [str(other.id) for other in await tokens.of_user(store, user.id) if other.name == arguments.name]
        warnings = [f"{user.username} has another key of this name: {', '.join(namesakes)}"] if namesakes else []
        warnings += await _unlisted(store, arguments.models)
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
            requests_per_minute=arguments.requests_per_minute or 0,
            tokens_per_minute=arguments.tokens_per_minute or 0,
            parallel_requests=arguments.parallel_requests or 0,
            now_ms=now,
        )
    text = f"Token {token_id} of {user.username}. The key is shown this once:\n{key.reveal()}"
    return tell_with_warnings(arguments, {"id": token_id, "key": key.reveal()}, warnings, text)


async def _unlisted(store: Store, models: Iterable[str] | None) -> list[str]:
    """The models that a key is for and that nobody serves: misspelt, it may be. None while there are no channels."""
    known = await channels.listed(store) if models else frozenset[str]()
    missing = [model for model in models or () if known.isdisjoint((model, parse_model(model).base))]
    return [f"no channel lists {', '.join(missing)}"] if known and missing else []


async def _check_group(store: Store, wanted: str, user_group: str) -> None:
    ratios = GroupRatios.from_options(await options.list_all(store))
    if wanted not in ratios.usable(user_group):
        raise Failure(f"the group {wanted!r} is not open to users of the group {user_group!r}")


async def list_tokens(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        if arguments.user is None:
            owners = {user.id: user.username for user in await users.list_all(store)}
            rows = tuple(row for row in await tokens.all_kept(store) if row.user_id in owners)
        else:
            user = await user_behind(store, "--user", arguments.user)
            owners = {user.id: user.username}
            rows = tuple(reversed(await tokens.of_user(store, user.id)))
    headings = ("id", "user", "name", "key", "status", "left", "used", "group", "expires", "last used")
    text = table(headings, (_line(row, owners) for row in rows), empty="There are no tokens.")
    return tell(arguments, [_document(row, owners) for row in rows], text)


async def update(arguments: Namespace) -> int:
    now = now_ms()
    given = _changes(arguments)
    _check_expiry(arguments.expires, now)
    async with opened_store(arguments) as store:
        token_id = await id_of(store, "token", arguments)
        token = next(iter(await tokens.by_ids(store, [token_id])), None)
        owner = None if token is None else await users.by_id(store, token.user_id)
        if token is None or owner is None:
            raise unknown("token", token_id)
        if (wanted := given.get("group", "")) and wanted != owner.group:
            await _check_group(store, wanted, owner.group)
        # What was refused for the old limit is not refused under the new one.
        lifted = {TokenStatus.EXHAUSTED: "unlimited" in given, TokenStatus.EXPIRED: "expires_at" in given}
        if lifted.get(token.status):
            given["status"] = TokenStatus.ENABLED
        if not await tokens.update_token(store, token_id, given, now_ms=now):
            raise unknown("token", token_id)
        warnings = await _unlisted(store, given.get("models"))
    text = f"Token {token_id} ({given.get('name', token.name)}) is changed."
    return tell_with_warnings(arguments, {"id": token_id}, warnings, text)


def _changes(arguments: Namespace) -> tokens.TokenChanges:
    """What the flags name. Raises `Usage` if they name nothing."""
    fields = ("name", "models", "allow_ips", "group", "requests_per_minute", "tokens_per_minute", "parallel_requests")
    flags = {field: getattr(arguments, field) for field in fields} | {"expires_at": arguments.expires}
    given: dict[str, Any] = {field: value for field, value in flags.items() if value is not None}
    for field, value in given.items():
        if value == NOTHING:
            given[field] = "" if field == "group" else None
    if arguments.unlimited:
        given["unlimited"] = True
    elif arguments.quota is not None:
        given |= {"unlimited": False, "remain_quota": arguments.quota}
    if not given:
        raise Usage("nothing to change: say what, such as --quota")
    return cast("tokens.TokenChanges", given)


async def disable(arguments: Namespace) -> int:
    return await _switch(arguments, TokenStatus.DISABLED)


async def enable(arguments: Namespace) -> int:
    return await _switch(arguments, TokenStatus.ENABLED)


async def _switch(arguments: Namespace, status: TokenStatus) -> int:
    async with opened_store(arguments) as store:
        token_id = await id_of(store, "token", arguments)
        if not await tokens.set_status(store, token_id, status, now_ms=now_ms()):
            raise unknown("token", token_id)
    word = status.name.lower()
    return tell(arguments, {"id": token_id, "status": word}, f"Token {token_id} is {word}.")


async def delete(arguments: Namespace) -> int:
    async with opened_store(arguments) as store:
        token_id = await id_of(store, "token", arguments)
        if not await tokens.delete(store, token_id, now_ms=now_ms()):
            raise unknown("token", token_id)
    return tell(arguments, {"id": token_id, "status": "deleted"}, f"Token {token_id} is deleted.")


def _document(token: TokenRow, owners: dict[int, str]) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": owners[token.user_id],
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
        owners[token.user_id],
        token.name,
        token.key_prefix,
        token.status.name.lower(),
        "unlimited" if token.unlimited else dollars(token.remain_quota),
        dollars(token.used_quota),
        token.group,
        short(token.expires_at),
        short(token.accessed_at),
    )
