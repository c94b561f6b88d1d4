"""What the repositories give and take: one frozen dataclass a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from msgspec import Struct

NOTHING: Mapping[str, Any] = MappingProxyType({})


# What a newer version wrote, while both serve, is no reason to read nothing: a status that is not known lets nobody in,
# and a role that is not known is one without rights.


class Role(IntEnum):
    USER = 1
    ADMIN = 10
    ROOT = 100

    @classmethod
    def _missing_(cls, value: object) -> "Role":
        return cls.USER


class UserStatus(IntEnum):
    ENABLED = 1
    DISABLED = 2

    @classmethod
    def _missing_(cls, value: object) -> "UserStatus":
        return cls.DISABLED


class TokenStatus(IntEnum):
    ENABLED = 1
    DISABLED = 2
    EXPIRED = 3
    EXHAUSTED = 4

    @classmethod
    def _missing_(cls, value: object) -> "TokenStatus":
        return cls.DISABLED


class LogType(IntEnum):
    """New API's numbers; `CORRECTION` is none of theirs."""

    TOP_UP = 1
    CONSUME = 2
    MANAGE = 3
    SYSTEM = 4
    ERROR = 5
    REFUND = 6
    LOGIN = 7
    CORRECTION = 100


CHARGING = (int(LogType.CONSUME), int(LogType.CORRECTION))
"""Types of rows that charge somebody: what the hourly sums are made of."""


@dataclass(frozen=True, slots=True)
class UserRow:
    """`quota`: what is left to spend. `used_quota`: what was charged. `deleted_at`: None while the user exists."""

    id: int
    username: str
    display_name: str
    email: str
    role: Role
    status: UserStatus
    password_hash: str = field(repr=False)
    group: str
    quota: int
    used_quota: int
    request_count: int
    created_at: int
    deleted_at: int | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """
    `key_hash`: 64 hex digits of `Vault.token_hash`. `key_prefix`: for display, "sk-AbCd...wxyz". `models`,
    `allow_ips`: None allows all. `group`: "" is the user's. `expires_at`: None is never. A limit of 0 is none of the
    token's own. An `unlimited` token counts what it used and leaves `remain_quota` alone; `free_quota` is the part of
    `used_quota` that was charged so.
    """

    id: int
    user_id: int
    name: str
    key_hash: str = field(repr=False)
    key_prefix: str
    status: TokenStatus
    unlimited: bool
    remain_quota: int
    used_quota: int
    free_quota: int
    models: tuple[str, ...] | None
    allow_ips: tuple[str, ...] | None
    group: str
    expires_at: int | None
    requests_per_minute: int
    tokens_per_minute: int
    parallel_requests: int
    created_at: int
    accessed_at: int | None
    deleted_at: int | None


@dataclass(frozen=True, slots=True)
class ChannelState:
    """
    What a channel's row knows beside its configuration. `disabled_keys`: index of the key -> reason.
    `response_ms`: of the last test; None before the first, or when it failed.
    """

    id: int
    status_reason: str
    status_at: int | None
    disabled_keys: Mapping[int, str]
    tested_at: int | None
    response_ms: int | None
    used_quota: int
    created_at: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A user group and the factor on every price its members pay."""

    name: str
    ratio: Decimal
    description: str


@dataclass(frozen=True, slots=True)
class PriceRow:
    """An operator's own price of a model, as rows of a price file: `config.price_book` reads them."""

    model: str
    price: str
    updated_at: int


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change list. `ref`: the id of the row; 0 for tables whose key is a name."""

    id: int
    kind: str
    ref: int
    created_at: int


class ChargeRecord(Struct, frozen=True, array_like=True):
    """
    One settled request, as it stands in the journal: a row of `logs` to be, and what to take from whom.

    `quota`: the charge, 500,000 to the dollar; below 0 it gives back. `token_id`, `channel_id`: 0 for none.
    `unlimited`: the token only counts what it uses. `status`: HTTP status the client saw. `outcome`: "completed",
    "failed", "cancelled", "truncated", "interrupted". `attempts`: upstream calls made. `first_byte_ms`: None when no
    byte came. `type`: `CONSUME`, or `CORRECTION` for what an earlier charge costs in addition. `budgets`: the periods
    of budgets that pay, those in which the request was admitted.

    Written as an array: new fields go to the end and have a default, so that older journals can be read.
    """

    created_at: int
    user_id: int
    quota: int
    username: str = ""
    token_id: int = 0
    token_name: str = ""
    unlimited: bool = False
    channel_id: int = 0
    channel_name: str = ""
    model: str = ""
    upstream_model: str = ""
    operation: str = ""
    group: str = ""
    request_id: str = ""
    status: int = 200
    is_stream: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    price_version: str = ""
    breakdown: dict[str, Any] | None = None
    outcome: str = "completed"
    estimated: bool = False
    attempts: int = 1
    duration_ms: int = 0
    first_byte_ms: int | None = None
    ip: str = ""
    other: dict[str, Any] | None = None
    type: int = LogType.CONSUME
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LogRow:
    """A stored row of `logs`. `charge_id` is None for rows that charge nobody, such as a manager's action."""

    id: int
    charge_id: str | None
    created_at: int
    type: int
    user_id: int
    username: str
    token_id: int
    token_name: str
    channel_id: int
    channel_name: str
    model: str
    upstream_model: str
    operation: str
    group: str
    request_id: str
    status: int
    is_stream: bool
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    quota: int
    price_version: str
    breakdown: Mapping[str, Any]
    outcome: str
    estimated: bool
    attempts: int
    duration_ms: int
    first_byte_ms: int | None
    ip: str
    other: Mapping[str, Any]
