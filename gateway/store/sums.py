"""What a batch of charges adds up to: pure, so that every engine is told the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .records import ChargeRecord, LogType

HOUR_MS = 3_600_000

HourKey = tuple[int, int, int, int, str]
"""Hour (its first millisecond), user, token, channel, model."""


@dataclass(slots=True)
class Sums:
    """
    By id. `users`: [quota, requests]. `tokens`: [quota, of it charged while unlimited]. `channels`: quota.
    `budgets`, by period, `user_leases` and `token_leases`: quota that comes out of a lease. `hours`: [requests, quota,
    input, output and cached tokens].
    """

    users: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    tokens: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    channels: dict[int, int] = field(default_factory=dict[int, int])
    budgets: dict[int, int] = field(default_factory=dict[int, int])
    user_leases: dict[int, int] = field(default_factory=dict[int, int])
    token_leases: dict[int, int] = field(default_factory=dict[int, int])
    hours: dict[HourKey, list[int]] = field(default_factory=dict[HourKey, list[int]])


def sums_of(records: Iterable[ChargeRecord]) -> Sums:
    """Subjects numbered 0 are nobody: they are in the hourly sums only. A correction is no request."""
    sums = Sums()
    users, tokens, channels, hours = sums.users, sums.tokens, sums.channels, sums.hours
    for record in records:
        quota, user, token, channel = record.quota, record.user_id, record.token_id, record.channel_id
        requests = 0 if record.type == LogType.CORRECTION else 1
        if user:
            row = users.setdefault(user, [0, 0])
            row[0] += quota
            row[1] += requests
        if token:
            row = tokens.setdefault(token, [0, 0])
            row[0] += quota
            if record.unlimited:
                row[1] += quota
        if channel and quota:
            channels[channel] = channels.get(channel, 0) + quota
        for period in record.budgets if quota else ():
            sums.budgets[period] = sums.budgets.get(period, 0) + quota
        created = record.created_at
        row = hours.setdefault((created - created % HOUR_MS, user, token, channel, record.model), [0, 0, 0, 0, 0])
        row[0] += requests
        row[1] += quota
        row[2] += record.input_tokens
        row[3] += record.output_tokens
        row[4] += record.cached_tokens
    sums.user_leases = {id: quota for id, (quota, _) in users.items() if quota}
    sums.token_leases = {id: quota - free for id, (quota, free) in tokens.items() if quota != free}
    return sums
