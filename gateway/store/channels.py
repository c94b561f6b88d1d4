"""
The table `channels` and, always in the same transaction, the `abilities` that follow from it.

Keys are one encrypted text a channel, bound to the channel's id: a ciphertext copied into another row does not open.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import delete as delete_from
from sqlalchemy import insert, select
from sqlalchemy import update as update_rows

from ...config.channel import Channel, ChannelStatus, ChannelType
from ...config.secret import Secret
from ..secrets_at_rest import CannotDecrypt, Vault
from . import changes, json_text, secret_mark
from .errors import Unreadable
from .records import ChannelState
from .schema import abilities, channels
from .store import Row, Session, Transaction

# Columns that hold what the field of their name holds.
PLAIN = (
    "name",
    "base_url",
    "priority",
    "weight",
    "key_mode",
    "disconnect",
    "auto_ban",
    "api_version",
    "organization",
    "test_model",
    "proxy",
    "tag",
)


async def create(session: Session, vault: Vault, channel: Channel, *, now_ms: int) -> Channel:
    """
    Store a new channel and return it with its id; the id it came with is ignored.

    Raises `CannotDecrypt` where the database has another secret by now, so that its readers could not open it.
    """

    async def work(transaction: Transaction) -> Channel:
        # The id is a part of what is encrypted, so the row comes first.
        values = _values(channel) | {"keys_encrypted": "", "created_at": now_ms}
        values["disabled_keys"] = json_text.dump(dict.fromkeys(sorted(channel.disabled_keys), ""))
        created = replace(channel, id=await transaction.insert(insert(channels).values(**values)))
        encrypted = _encrypted(vault, created)
        await transaction.change(
            update_rows(channels).where(channels.c.id == created.id).values(keys_encrypted=encrypted)
        )
        await _write_abilities(transaction, created)
        await changes.note(transaction, "channel", created.id, now_ms=now_ms)
        mark = await secret_mark.read(transaction)
        if mark is not None and not vault.knows(mark):
            raise CannotDecrypt("it was changed meanwhile (tollway db rotate-secret)")
        return created

    return await session.run(work)


async def update(
    session: Session, vault: Vault, channel_id: int, edit: Callable[[Channel], Channel], *, now_ms: int
) -> Channel | None:
    """
    Replace a channel by `edit` of what it is now, so that no edit undoes another. None if there is no such channel.

    `edit` is called inside the transaction: it must be quick and must not wait. Raises `CannotDecrypt`.
    """

    async def work(transaction: Transaction) -> Channel | None:
        row = await transaction.one(select(channels).where(channels.c.id == channel_id).with_for_update())
        if row is None:
            return None
        before = _channel(vault, row)
        after = replace(edit(before), id=channel_id)
        values = _values(after)
        reasons = json_text.load_object(row["disabled_keys"])
        values["disabled_keys"] = json_text.dump({i: reasons.get(str(i), "") for i in sorted(after.disabled_keys)})
        if after.keys != before.keys or not vault.is_current(row["keys_encrypted"]):
            values["keys_encrypted"] = _encrypted(vault, after)
        if after.status != before.status:
            values |= {"status_reason": "", "status_at": now_ms}
        await _save(transaction, channel_id, values, now_ms)
        await _write_abilities(transaction, after)
        return after

    return await session.run(work)


async def delete(session: Session, channel_id: int, *, now_ms: int) -> bool:
    """Remove a channel and its abilities; its log rows stay. False if there is no such channel."""

    async def work(transaction: Transaction) -> bool:
        await transaction.change(delete_from(abilities).where(abilities.c.channel_id == channel_id))
        if not await transaction.change(delete_from(channels).where(channels.c.id == channel_id)):
            return False
        await changes.note(transaction, "channel", channel_id, now_ms=now_ms)
        return True

    return await session.run(work)


async def get(session: Session, vault: Vault, channel_id: int) -> Channel | None:
    """One channel with its keys. Raises `CannotDecrypt`, `Unreadable`."""
    row = await session.one(select(channels).where(channels.c.id == channel_id))
    return None if row is None else _channel(vault, row)


async def list_all(
    session: Session, vault: Vault, *, on_locked: Callable[[int, CannotDecrypt | Unreadable], None] | None = None
) -> tuple[Channel, ...]:
    """
    Every channel with its keys, by id.

    `on_locked` is told of a channel whose keys do not open, or that a newer version wrote, and the channel is left out;
    without it the failure is raised, so that one row need not stop the others.
    """
    found: list[Channel] = []
    for row in await session.all(select(channels).order_by(channels.c.id)):
        try:
            found.append(_channel(vault, row))
        except (CannotDecrypt, Unreadable) as exc:
            if on_locked is None:
                raise
            on_locked(row["id"], exc)
    return tuple(found)


async def count_former(session: Session, vault: Vault) -> int:
    """How many are encrypted under a former secret. Raises `CannotDecrypt` where one of them does not open."""
    return len(await _under_former(session, vault))


async def encrypt_again(transaction: Transaction, vault: Vault) -> int:
    """
    Encrypt those under the current secret that are under a former one; how many.

    The caller notes the change. Raises `CannotDecrypt` as `count_former` does.
    """
    found = await _under_former(transaction, vault)
    for channel_id, text in found.items():
        encrypted = vault.encrypt(text, _aad(channel_id))
        await transaction.change(
            update_rows(channels).where(channels.c.id == channel_id).values(keys_encrypted=encrypted)
        )
    return len(found)


async def _under_former(session: Session, vault: Vault) -> dict[int, str]:
    """What is encrypted, by the channel's id."""
    rows = await session.all(select(channels.c.id, channels.c.keys_encrypted).order_by(channels.c.id).with_for_update())
    return {
        row["id"]: vault.decrypt(row["keys_encrypted"], _aad(row["id"]))
        for row in rows
        if not vault.is_current(row["keys_encrypted"])
    }


async def states(session: Session, ids: Iterable[int] | None = None) -> dict[int, ChannelState]:
    """What was seen of channels (all, or these), by id: reasons, tests, use. No key is decrypted."""
    columns = [channels.c[name] for name in ChannelState.__slots__]
    query = select(*columns).order_by(channels.c.id)
    if ids is not None:
        query = query.where(channels.c.id.in_(list(ids)))
    return {row["id"]: _state(row) for row in await session.all(query)}


async def set_status(
    session: Session, channel_id: int, status: ChannelStatus, *, reason: str = "", now_ms: int
) -> bool:
    """
    Switch a channel. True only for the call that changed the status: of several that saw the same failure, one
    tells the operator.
    """

    async def work(transaction: Transaction) -> bool:
        found = channels.c.id == channel_id, channels.c.status != int(status)
        values = {"status": int(status), "status_reason": reason, "status_at": now_ms}
        if not await transaction.change(update_rows(channels).where(*found).values(**values)):
            return False
        await _enable_abilities(transaction, channel_id, status)
        await changes.note(transaction, "channel", channel_id, now_ms=now_ms)
        return True

    return await session.run(work)


async def disable_key(
    session: Session, vault: Vault, channel_id: int, index: int, *, reason: str, now_ms: int, key: Secret | None = None
) -> Channel | None:
    """
    Take one key out of use, with the reason. The channel as it is then; None if it has no such key in use, or has
    another than `key` in its place.

    With its last key an enabled channel becomes AUTO_DISABLED.
    """

    async def work(transaction: Transaction) -> Channel | None:
        row = await transaction.one(select(channels).where(channels.c.id == channel_id).with_for_update())
        before = None if row is None else _channel(vault, row)
        if row is None or before is None or index in before.disabled_keys or not 0 <= index < len(before.keys):
            return None
        if key is not None and before.keys[index] != key:
            return None
        after = replace(before, disabled_keys=before.disabled_keys | {index})
        reasons = json_text.load_object(row["disabled_keys"]) | {str(index): reason}
        values: dict[str, Any] = {"disabled_keys": json_text.dump(reasons)}
        if len(after.disabled_keys) == len(after.keys) and after.status == ChannelStatus.ENABLED:
            after = replace(after, status=ChannelStatus.AUTO_DISABLED)
            values |= {"status": int(after.status), "status_reason": reason, "status_at": now_ms}
            await _enable_abilities(transaction, channel_id, after.status)
        await _save(transaction, channel_id, values, now_ms)
        return after

    return await session.run(work)


async def record_test(session: Session, channel_id: int, *, response_ms: int | None, now_ms: int) -> bool:
    """Note a test and how long the answer took, None for a failure. False if there is no such channel."""
    values = {"tested_at": now_ms, "response_ms": response_ms}
    return await session.run(lambda transaction: _save(transaction, channel_id, values, now_ms))


async def _save(transaction: Transaction, channel_id: int, values: Mapping[str, Any], now_ms: int) -> bool:
    if not await transaction.change(update_rows(channels).where(channels.c.id == channel_id).values(**values)):
        return False
    await changes.note(transaction, "channel", channel_id, now_ms=now_ms)
    return True


async def is_served(session: Session, group: str) -> bool:
    """Whether any channel, enabled or not, serves this group; also while there are no channels at all."""
    its = select(abilities.c.channel_id).where(abilities.c.group == group).limit(1)
    return await session.one(its) is not None or await session.one(select(abilities.c.channel_id).limit(1)) is None


async def listed(session: Session) -> frozenset[str]:
    """The models that any channel, enabled or not, lists for any group."""
    return frozenset(row["model"] for row in await session.all(select(abilities.c.model).distinct()))


async def _write_abilities(transaction: Transaction, channel: Channel) -> None:
    await transaction.change(delete_from(abilities).where(abilities.c.channel_id == channel.id))
    rest = (channel.id, channel.status == ChannelStatus.ENABLED, channel.priority, channel.weight)
    groups, models = dict.fromkeys(channel.groups), dict.fromkeys(channel.models)
    await transaction.bulk(
        abilities,
        ("group", "model", "channel_id", "enabled", "priority", "weight"),
        [(group, model, *rest) for group in groups for model in models],
    )


async def _enable_abilities(transaction: Transaction, channel_id: int, status: ChannelStatus) -> None:
    enabled = status == ChannelStatus.ENABLED
    await transaction.change(update_rows(abilities).where(abilities.c.channel_id == channel_id).values(enabled=enabled))


def _aad(channel_id: int) -> str:
    return f"channel:{channel_id}"


def _encrypted(vault: Vault, channel: Channel) -> str:
    return vault.encrypt(json_text.dump([key.reveal() for key in channel.keys]), _aad(channel.id))


def _values(channel: Channel) -> dict[str, Any]:
    return {name: getattr(channel, name) for name in PLAIN} | {
        "type": int(channel.type),
        "status": int(channel.status),
        "models": json_text.dump(channel.models),
        "groups": json_text.dump(channel.groups),
        "model_mapping": json_text.dump(channel.model_mapping),
        "status_code_mapping": json_text.dump(channel.status_code_mapping),
        "header_override": json_text.dump(channel.header_override),
        "param_override": json_text.dump(channel.param_override),
        "prompt_cache_ratio": "" if channel.prompt_cache_ratio is None else f"{channel.prompt_cache_ratio:f}",
    }


def _channel(vault: Vault, row: Row) -> Channel:
    channel_id: int = row["id"]
    keys: list[str] = orjson.loads(vault.decrypt(row["keys_encrypted"], _aad(channel_id)))
    status_codes = json_text.load_object(row["status_code_mapping"])
    try:
        kind, status = ChannelType(row["type"]), ChannelStatus(row["status"])
    except ValueError as error:
        raise Unreadable(f"this version does not know what the channel says: {error}") from None
    return Channel(
        **{name: row[name] for name in PLAIN},
        id=channel_id,
        type=kind,
        status=status,
        models=tuple(orjson.loads(row["models"])),
        groups=tuple(orjson.loads(row["groups"])),
        keys=tuple(map(Secret, keys)),
        disabled_keys=frozenset(map(int, json_text.load_object(row["disabled_keys"]))),
        model_mapping=json_text.load_object(row["model_mapping"]),
        status_code_mapping={int(code): answer for code, answer in status_codes.items()},
        header_override=json_text.load_object(row["header_override"]),
        param_override=json_text.load_object(row["param_override"]),
        prompt_cache_ratio=Decimal(row["prompt_cache_ratio"]) if row["prompt_cache_ratio"] else None,
    )


def _state(row: Row) -> ChannelState:
    values = dict(row)
    reasons = json_text.load_object(row["disabled_keys"])
    values["disabled_keys"] = {int(index): reason for index, reason in reasons.items()}
    return ChannelState(**values)
