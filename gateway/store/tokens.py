"""The table `tokens`: the keys callers hold. A key itself is nowhere in the database."""

import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from sqlalchemy import insert, select, update

from ...config.secret import Secret
from ..secrets_at_rest import Vault
from . import changes, grants, json_text
from .leases import BalanceKind, Subject, recall, with_leases
from .records import TokenRow, TokenStatus
from .schema import tokens
from .store import Row, Session, Transaction

KEY_CHARACTERS = string.ascii_letters + string.digits
KEY_LENGTH = 48

_whole = with_leases(BalanceKind.TOKEN)


def new_key() -> Secret:
    """`sk-` and 48 random letters and digits: 285 bits."""
    return Secret("sk-" + "".join(secrets.choice(KEY_CHARACTERS) for _ in range(KEY_LENGTH)))


def prefix_of(key: Secret) -> str:
    """What may be shown of a key: its first and last four characters."""
    text = key.reveal().removeprefix("sk-")
    return f"sk-{text[:4]}...{text[-4:]}"


async def create(
    session: Session,
    vault: Vault,
    *,
    user_id: int,
    now_ms: int,
    name: str = "",
    unlimited: bool = False,
    remain_quota: int = 0,
    models: Sequence[str] | None = None,
    allow_ips: Sequence[str] | None = None,
    group: str = "",
    expires_at: int | None = None,
    requests_per_minute: int = 0,
    tokens_per_minute: int = 0,
    parallel_requests: int = 0,
) -> tuple[int, Secret]:
    """Create a token: its id and its key, which cannot be had again. Raises `BrokenReference` on an unknown user."""
    key = new_key()
    values = {
        "user_id": user_id,
        "name": name,
        "key_hash": vault.token_hash(key.reveal()),
        "key_prefix": prefix_of(key),
        "unlimited": unlimited,
        "remain_quota": remain_quota,
        "models": None if models is None else json_text.dump(models),
        "allow_ips": None if allow_ips is None else json_text.dump(allow_ips),
        "group": group,
        "expires_at": expires_at,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "parallel_requests": parallel_requests,
        "created_at": now_ms,
    }

    async def work(transaction: Transaction) -> int:
        token_id = await transaction.insert(insert(tokens).values(**values))
        await grants.note(transaction, token_id=token_id, amount=remain_quota, reason="created", now_ms=now_ms)
        await changes.note(transaction, "token", token_id, now_ms=now_ms)
        return token_id

    return await session.run(work), key


async def all_kept(session: Session) -> tuple[TokenRow, ...]:
    """Every token that was not deleted, whatever its status: a refusal must be able to say why."""
    rows = await session.all(_whole.where(tokens.c.deleted_at.is_(None)).order_by(tokens.c.id))
    return tuple(map(_token, rows))


async def by_ids(session: Session, ids: Iterable[int]) -> tuple[TokenRow, ...]:
    """Those of these tokens that were not deleted, whatever their status, oldest first. At most some thousand ids."""
    found = tokens.c.id.in_(list(ids)), tokens.c.deleted_at.is_(None)
    rows = await session.all(_whole.where(*found).order_by(tokens.c.id))
    return tuple(map(_token, rows))


async def of_user(session: Session, user_id: int) -> tuple[TokenRow, ...]:
    """A user's tokens, newest first."""
    rows = await session.all(
        _whole.where(tokens.c.user_id == user_id, tokens.c.deleted_at.is_(None)).order_by(tokens.c.id.desc())
    )
    return tuple(map(_token, rows))


async def add_quota(session: Session, token_id: int, delta: int, *, now_ms: int) -> int | None:
    """Raise or lower what a token may spend. The new remainder; None if there is no such token."""

    async def work(transaction: Transaction) -> int | None:
        if not await _change(transaction, token_id, now_ms, remain_quota=tokens.c.remain_quota + delta):
            return None
        await grants.note(transaction, token_id=token_id, amount=delta, reason="top-up", now_ms=now_ms)
        if delta < 0:
            await recall(transaction, Subject(BalanceKind.TOKEN, token_id))
        row = await transaction.one(_whole.where(tokens.c.id == token_id))
        return None if row is None else int(row["remain_quota"])

    return await session.run(work)


async def set_status(session: Session, token_id: int, status: TokenStatus, *, now_ms: int) -> bool:
    """False if there is no such token."""
    return await session.run(lambda transaction: _change(transaction, token_id, now_ms, status=int(status)))


class TokenChanges(TypedDict, total=False):
    """What may be changed of a token, as `TokenRow` names it."""

    name: str
    status: TokenStatus
    unlimited: bool
    remain_quota: int
    models: Sequence[str] | None
    allow_ips: Sequence[str] | None
    group: str
    expires_at: int | None
    requests_per_minute: int
    tokens_per_minute: int
    parallel_requests: int


async def update_token(session: Session, token_id: int, given: TokenChanges, *, now_ms: int) -> bool:
    """Change what is given, all or nothing. False if there is no such token."""
    values: dict[str, Any] = dict(given)
    for column in ("models", "allow_ips"):
        if values.get(column) is not None:
            values[column] = json_text.dump(values[column])
    if "status" in values:
        values["status"] = int(values["status"])
    whole: int | None = values.pop("remain_quota", None)

    async def work(transaction: Transaction) -> bool:
        if whole is not None and not await _set_quota(transaction, token_id, whole, now_ms):
            return False
        # An UPDATE needs something to set; the id as it is notes the change.
        return await _change(transaction, token_id, now_ms, **(values or {"id": token_id}))

    return await session.run(work)


async def set_key_hash(session: Session, token_id: int, key_hash: str, *, now_ms: int) -> bool:
    """After a change of `CRYPTO_SECRET`, when a caller has shown the key again. False if there is no such token."""
    return await session.run(lambda transaction: _change(transaction, token_id, now_ms, key_hash=key_hash))


async def delete(session: Session, token_id: int, *, now_ms: int) -> bool:
    """Mark as deleted: the key is refused from now on. False if there is no such token."""
    return await session.run(lambda transaction: _change(transaction, token_id, now_ms, deleted_at=now_ms))


async def _set_quota(transaction: Transaction, token_id: int, whole: int, now_ms: int) -> bool:
    """Give or take what makes the row and its leases add up to `whole`."""
    locked = select(tokens.c.id).where(tokens.c.id == token_id, tokens.c.deleted_at.is_(None)).with_for_update()
    row = await transaction.one(_whole.where(tokens.c.id == token_id)) if await transaction.one(locked) else None
    if row is None:
        return False
    delta = whole - int(row["remain_quota"])
    await transaction.change(
        update(tokens).where(tokens.c.id == token_id).values(remain_quota=tokens.c.remain_quota + delta)
    )
    await grants.note(transaction, token_id=token_id, amount=delta, reason="set", now_ms=now_ms)
    if delta < 0:
        await recall(transaction, Subject(BalanceKind.TOKEN, token_id))
    return True


async def _change(transaction: Transaction, token_id: int, now_ms: int, **values: object) -> bool:
    found = tokens.c.id == token_id, tokens.c.deleted_at.is_(None)
    if not await transaction.change(update(tokens).where(*found).values(**values)):
        return False
    await changes.note(transaction, "token", token_id, now_ms=now_ms)
    return True


def _token(row: Row) -> TokenRow:
    values = dict(row)
    values["remain_quota"] = int(row["remain_quota"])  # a sum of whole numbers is a Decimal on some engines
    values["status"] = TokenStatus(row["status"])
    values["models"] = json_text.load_strings(row["models"])
    values["allow_ips"] = json_text.load_strings(row["allow_ips"])
    return TokenRow(**values)
