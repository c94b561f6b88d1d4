"""What the journal says of a request: that quota is held for it, and what it was charged."""

import msgspec
from msgspec import Struct

from ...middleware.state import Charge, Principal
from ..store.records import ChargeRecord


class OpenRecord(Struct, frozen=True, array_like=True):
    """A request that quota is held for. `created_at`: when it began, in milliseconds. New fields go to the end."""

    created_at: int
    user_id: int
    quota: int
    username: str = ""
    token_id: int = 0
    token_name: str = ""
    unlimited: bool = False
    group: str = ""
    request_id: str = ""
    budgets: tuple[int, ...] = ()


_open_decoder = msgspec.json.Decoder(OpenRecord)
_charge_decoder = msgspec.json.Decoder(ChargeRecord)

encode = msgspec.json.Encoder().encode
"""A record as a JSON array."""


def read_open(payload: bytes) -> OpenRecord:
    """Raises `msgspec.DecodeError` for what is no such record."""
    return _open_decoder.decode(payload)


def read_charge(payload: bytes) -> ChargeRecord:
    """Raises `msgspec.DecodeError` for what is no such record."""
    return _charge_decoder.decode(payload)


def opened(principal: Principal, request_id: str, quota: int, now_ms: int, budgets: tuple[int, ...] = ()) -> OpenRecord:
    """The record of a hold. `budgets`: the periods of budgets that pay."""
    return OpenRecord(
        now_ms,
        principal.user_id,
        quota,
        principal.username,
        principal.token_id,
        principal.token_name,
        principal.unlimited,
        principal.group,
        request_id,
        budgets,
    )


def interrupted(held: OpenRecord, *, charged: bool) -> ChargeRecord:
    """The charge for a request that a crash ended: what was held for it, or nothing."""
    return ChargeRecord(
        created_at=held.created_at,
        user_id=held.user_id,
        quota=held.quota if charged else 0,
        username=held.username,
        token_id=held.token_id,
        token_name=held.token_name,
        unlimited=held.unlimited,
        group=held.group,
        request_id=held.request_id,
        status=0,
        outcome="interrupted",
        estimated=charged,
        budgets=held.budgets,
    )


def record_of(charge: Charge, budgets: tuple[int, ...] = ()) -> ChargeRecord:
    """The record of a charge. `budgets`: the periods of budgets that pay."""
    principal, attempt, usage, tariff = charge.principal, charge.attempt, charge.usage, charge.tariff
    channel = attempt.channel if attempt is not None else None
    return ChargeRecord(
        created_at=int((charge.started_at + charge.duration) * 1000),
        user_id=principal.user_id if principal else 0,
        quota=charge.quota,
        username=principal.username if principal else "",
        token_id=principal.token_id if principal else 0,
        token_name=principal.token_name if principal else "",
        unlimited=principal.unlimited if principal else False,
        channel_id=channel.id if channel else 0,
        channel_name=channel.name if channel else "",
        model=charge.model,
        upstream_model=charge.upstream_model,
        operation=charge.operation,
        group=principal.group if principal else "",
        request_id=charge.request_id,
        status=charge.status,
        is_stream=charge.stream,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        price_version=tariff.price.version if tariff else "",
        breakdown=tariff.bill(usage) if tariff else None,
        outcome=charge.ending,
        estimated=usage.estimated,
        attempts=attempt.number if attempt else 1,
        duration_ms=int(charge.duration * 1000),
        first_byte_ms=None if charge.first_byte is None else int(charge.first_byte * 1000),
        ip=charge.address,
        other={"suspicious": True} if usage.suspicious else None,
        budgets=budgets,
    )
