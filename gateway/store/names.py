"""Rows by what an operator types: a name, which need not be unique, or an id."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select

from .schema import channels, tokens, users
from .store import Session

NamedKind = Literal["user", "token", "channel"]

COLUMNS = {
    "user": (users.c.id, users.c.username, users.c.deleted_at),
    "token": (tokens.c.id, tokens.c.name, tokens.c.deleted_at),
    "channel": (channels.c.id, channels.c.name, None),
}
LONGEST_ID = len(str(2**63))


def may_be_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < LONGEST_ID


async def meant_by(session: Session, kind: NamedKind, text: str) -> tuple[int, ...]:
    """The ids of the rows, not deleted, whose name this is or whose id it is, in order. No key is decrypted."""
    row_id, name, deleted_at = COLUMNS[kind]
    meant = name == text
    if may_be_id(text):
        meant |= row_id == int(text)
    query = select(row_id).where(meant).order_by(row_id)
    if deleted_at is not None:
        query = query.where(deleted_at.is_(None))
    return tuple(row["id"] for row in await session.all(query))


async def told_apart(session: Session, kind: NamedKind, ids: Sequence[int]) -> str:
    """Rows of one name as an operator can tell them apart: keys by their owners, such as "1 (alice), 2 (bob)"."""
    if kind != "token":
        return ", ".join(map(str, ids))
    owned = select(tokens.c.id, users.c.username).join_from(tokens, users, tokens.c.user_id == users.c.id)
    rows = await session.all(owned.where(tokens.c.id.in_(ids)).order_by(tokens.c.id))
    return ", ".join(f"{row['id']} ({row['username']})" for row in rows)
