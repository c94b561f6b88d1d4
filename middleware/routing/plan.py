"""
The plan: every way to serve a call, best first. A pure function of (channels, health, call, seed), with an explanation.

Eligible: enabled, serves the model to the group, supports the operation, has a key that works, breaker not open.
Order: priority tiers, highest first; inside a tier a weighted draw without replacement; the conversation's last place
goes to the front of its tier.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from ...adapters.providers.registry import PROVIDERS
from ...config.channel import Channel, ChannelStatus, MappingCycle, mapped_model
from ..state import Candidate
from .health import Health

BREAKER_OPEN = "breaker open"
"""The reason of an `Exclusion` that goes by itself."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A channel (or one of its keys) that serves the model but is not in the plan, and why."""

    channel: Channel
    reason: str
    key_index: int | None = None
    retry_in: float = 0.0
    """Seconds until the reason may be gone, where that is known."""


@dataclass(frozen=True, slots=True)
class ChannelIndex:
    """All channels, by (group, model). Built once per change, read by every request."""

    channels: tuple[Channel, ...] = ()
    _by_model: Mapping[tuple[str, str], tuple[Channel, ...]] = field(
        default_factory=dict[tuple[str, str], tuple[Channel, ...]]
    )

    @classmethod
    def of(cls, channels: Iterable[Channel]) -> "ChannelIndex":
        all_channels = tuple(channels)
        by_model: dict[tuple[str, str], list[Channel]] = {}
        for channel in all_channels:
            for group in channel.groups:
                for model in channel.models:
                    by_model.setdefault((group, model), []).append(channel)
        ranked = {key: tuple(sorted(found, key=lambda each: -each.priority)) for key, found in by_model.items()}
        return cls(all_channels, ranked)

    def serving(self, group: str, model: str) -> tuple[Channel, ...]:
        """The channels that list the model for the group, whatever their state, by falling priority."""
        return self._by_model.get((group, model), ())

    def models_of(self, group: str) -> list[str]:
        """The models that some enabled channel serves to the group, sorted."""
        return sorted(
            {
                model
                for (served_group, model), channels in self._by_model.items()
                if served_group == group and any(channel.status is ChannelStatus.ENABLED for channel in channels)
            }
        )


def make_plan(
    channels: tuple[Channel, ...],
    *,
    model: str,
    operation: str,
    health: Health,
    now: float,
    random: Random,
    turn: int = 0,
    preferred: tuple[int, int] | None = None,
) -> tuple[tuple[Candidate, ...], tuple[Exclusion, ...]]:
    """
    The plan and what was left out of it.

    `channels` serve the model to the group, by falling priority. `turn` counts requests, for keys that take turns.
    `preferred` is the (channel id, key index) where the conversation was served last.
    """
    exclusions: list[Exclusion] = []
    plan: list[Candidate] = []
    tier: list[tuple[Channel, list[int]]] = []
    for channel in channels:
        reason = unfit(channel, model, operation)
        if reason:
            exclusions.append(Exclusion(channel, reason))
            continue
        keys = _usable_keys(channel, model, health, now, exclusions)
        if not keys:
            continue
        if tier and tier[0][0].priority != channel.priority:
            plan += _ordered(tier, random, turn, preferred)
            tier = []
        tier.append((channel, keys))
    plan += _ordered(tier, random, turn, preferred)
    return tuple(plan), tuple(exclusions)


def unfit(channel: Channel, model: str, operation: str) -> str:
    """Why a channel cannot serve the operation at all; "" if it can."""
    if channel.status is not ChannelStatus.ENABLED:
        return "disabled automatically" if channel.status is ChannelStatus.AUTO_DISABLED else "disabled"
    provider = PROVIDERS[channel.type]
    if operation not in provider.operations:
        return f"{provider.name} does not serve {operation}"
    if not channel.base_url and not provider.base_url:
        return "it has no base URL"
    if not channel.keys and provider.key_needed:
        return "it has no key"
    if channel.model_mapping:
        try:
            mapped_model(channel.model_mapping, model)
        except MappingCycle as cycle:
            return str(cycle)
    return ""


def _usable_keys(channel: Channel, model: str, health: Health, now: float, exclusions: list[Exclusion]) -> list[int]:
    if len(channel.keys) <= 1 and not channel.disabled_keys:
        candidate = Candidate(channel, 0)
        if health.usable(candidate, model, now):
            return [0]
        exclusions.append(Exclusion(channel, BREAKER_OPEN, 0, health.retry_in(candidate, model, now)))
        return []
    keys: list[int] = []
    for index in range(len(channel.keys)):
        if index in channel.disabled_keys:
            exclusions.append(Exclusion(channel, "key disabled", index))
        elif health.usable(candidate := Candidate(channel, index), model, now):
            keys.append(index)
        else:
            exclusions.append(Exclusion(channel, BREAKER_OPEN, index, health.retry_in(candidate, model, now)))
    return keys


def _ordered(
    tier: list[tuple[Channel, list[int]]], random: Random, turn: int, preferred: tuple[int, int] | None
) -> list[Candidate]:
    """One tier in the order it is tried. The keys of a channel stay together."""
    if len(tier) > 1:
        tier = sorted(tier, key=lambda each: draw(each[0].weight, random), reverse=True)
    candidates: list[Candidate] = []
    for channel, keys in tier:
        if len(keys) > 1:
            keys = _turned(keys, turn) if channel.key_mode == "polling" else random.sample(keys, len(keys))
        candidates += [Candidate(channel, index) for index in keys]
    if preferred is not None:
        # A stable sort: the place itself first, then the channel's other keys, then the tier as drawn.
        candidates.sort(
            key=lambda each: (
                (each.channel.id != preferred[0], each.key_index != preferred[1])
                if each.channel.id == preferred[0]
                else (True, False)
            )
        )
    return candidates


def draw(weight: int, random: Random) -> tuple[bool, float]:
    """
    A sort key that, taken largest first, gives a weighted draw without replacement: u^(1/w).

    Weight 0 comes after every positive weight. Source: Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir" (2006).
    """
    return (weight > 0, random.random() ** (1 / weight) if weight > 0 else random.random())


def _turned(keys: list[int], turn: int) -> list[int]:
    start = turn % len(keys)
    return keys[start:] + keys[:start]
