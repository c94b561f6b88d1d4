"""From a charge to the row that is written of it."""

from ...middleware.state import Charge
from ..store.records import NOTHING, ChargeRecord


def record_of(charge_id: str, charge: Charge) -> ChargeRecord:
    """`charge_id` is unique for ever: a second record with it charges nothing."""
    principal, attempt, usage, tariff = charge.principal, charge.attempt, charge.usage, charge.tariff
    channel = attempt.channel if attempt is not None else None
    return ChargeRecord(
        charge_id=charge_id,
        created_at=int((charge.started_at + charge.duration) * 1000),
        user_id=principal.user_id if principal else 0,
        username=principal.username if principal else "",
        token_id=principal.token_id if principal else 0,
        token_name=principal.token_name if principal else "",
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
        quota=charge.quota,
        price_version=tariff.price.version if tariff else "",
        breakdown=tariff.bill(usage) if tariff else NOTHING,
        outcome=charge.ending,
        estimated=usage.estimated,
        attempts=attempt.number if attempt else 1,
        duration_ms=int(charge.duration * 1000),
        first_byte_ms=None if charge.first_byte is None else int(charge.first_byte * 1000),
        ip=charge.address,
    )
