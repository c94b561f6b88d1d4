"""
User groups: what share of a price each pays, and which ones a user may ask for.

The options are New API's and keep its shapes, each as JSON text: `GroupRatio` {group: ratio}, `GroupGroupRatio`
{user group: {used group: ratio}}, `UserUsableGroups` {group: label} and
`group_ratio_setting.group_special_usable_group` {user group: {"+:group": label}}. Numbers go in and out with the digits
they have.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import NoReturn, Self, cast

DEFAULT_GROUP = "default"

GROUP_RATIO = "GroupRatio"
GROUP_GROUP_RATIO = "GroupGroupRatio"
USER_USABLE_GROUPS = "UserUsableGroups"
SPECIAL_USABLE_GROUP = "group_ratio_setting.group_special_usable_group"

ADD, REMOVE = "+:", "-:"
ONE = Decimal(1)
MAX_RATIO = 1_000_000
MAX_DIGITS = 28
MOST_PLACES = 1000

Ratios = Mapping[str, Decimal]
Labels = Mapping[str, str]

DEFAULT_RATIOS: Ratios = MappingProxyType({DEFAULT_GROUP: ONE, "vip": ONE, "svip": ONE})
DEFAULT_USABLE: Labels = MappingProxyType({DEFAULT_GROUP: "Default", "vip": "VIP"})
NO_SPECIAL: Mapping[str, Ratios] = MappingProxyType({})
NO_SPECIAL_USABLE: Mapping[str, Labels] = MappingProxyType({})


class GroupError(ValueError):
    """A group option that cannot be used; the message names the option and the place in it."""


@dataclass(frozen=True, slots=True)
class GroupRatios:
    """
    The group options as one snapshot.

    `ratios`: the share of a price paid in a group. `special`: cells [user group][used group] that replace that share.
    `usable_groups`: what every user may ask for, with the label shown for it. `special_usable_groups`: edits to that
    set by user group; keys are "+:group" or "group" to add, "-:group" to remove.

    Raises `GroupError` on a ratio that is negative, not finite, above 10^6 or longer than 28 digits.
    """

    ratios: Ratios = field(default_factory=lambda: DEFAULT_RATIOS, hash=False)
    special: Mapping[str, Ratios] = field(default_factory=lambda: NO_SPECIAL, hash=False)
    usable_groups: Labels = field(default_factory=lambda: DEFAULT_USABLE, hash=False)
    special_usable_groups: Mapping[str, Labels] = field(default_factory=lambda: NO_SPECIAL_USABLE, hash=False)

    def __post_init__(self) -> None:
        _check_ratios(GROUP_RATIO, self.ratios)
        for user_group, row in self.special.items():
            _check_ratios(f"{GROUP_GROUP_RATIO}.{user_group}", row)

    def ratio(self, user_group: str, used_group: str) -> Decimal:
        """What a user of `user_group` pays in `used_group`: the special cell, else that group's ratio, else 1."""
        row = self.special.get(user_group)
        cell = None if row is None else row.get(used_group)
        return self.ratios.get(used_group, ONE) if cell is None else cell

    def usable(self, user_group: str) -> dict[str, str]:
        """The groups this user may ask for, with their labels. The user's own group is always one of them."""
        groups = dict(self.usable_groups)
        for key, label in self.special_usable_groups.get(user_group, {}).items():
            if key.startswith(REMOVE):
                groups.pop(key.removeprefix(REMOVE), None)
            else:
                groups[key.removeprefix(ADD)] = label
        groups.setdefault(user_group, user_group)
        return groups

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """A snapshot from option rows; an option that is absent or empty has its default. Raises `GroupError`."""
        given = {name: _load(name, text) for name in cls().to_options() if (text := options.get(name))}
        default = cls()
        return cls(
            ratios=_ratios(GROUP_RATIO, given[GROUP_RATIO]) if GROUP_RATIO in given else default.ratios,
            special={
                user_group: _ratios(f"{GROUP_GROUP_RATIO}.{user_group}", row)
                for user_group, row in _table(GROUP_GROUP_RATIO, given.get(GROUP_GROUP_RATIO, {})).items()
            },
            usable_groups=(
                _labels(USER_USABLE_GROUPS, given[USER_USABLE_GROUPS])
                if USER_USABLE_GROUPS in given
                else default.usable_groups
            ),
            special_usable_groups={
                user_group: _labels(f"{SPECIAL_USABLE_GROUP}.{user_group}", row)
                for user_group, row in _table(SPECIAL_USABLE_GROUP, given.get(SPECIAL_USABLE_GROUP, {})).items()
            },
        )

    def to_options(self) -> dict[str, str]:
        """The option rows of this snapshot; `from_options` gives the snapshot back."""
        return {
            GROUP_RATIO: dump_exact(self.ratios),
            GROUP_GROUP_RATIO: dump_exact(self.special),
            USER_USABLE_GROUPS: dump_exact(self.usable_groups),
            SPECIAL_USABLE_GROUP: dump_exact(self.special_usable_groups),
        }


def _check_ratios(where: str, ratios: Ratios) -> None:
    for group, ratio in ratios.items():
        if not ratio.is_finite() or not 0 <= ratio <= MAX_RATIO:
            raise GroupError(f"{where}.{group}: a ratio is a number from 0 to {MAX_RATIO}, not {ratio}")
        # 0.0...01 has one digit only, and yet fills memory as a fraction.
        if len(ratio.as_tuple().digits) > MAX_DIGITS or (ratio and ratio.adjusted() < -MAX_DIGITS):
            raise GroupError(f"{where}.{group}: a ratio has at most {MAX_DIGITS} digits, not {ratio}")


def _load(option: str, text: str) -> object:
    def refuse(constant: str) -> NoReturn:
        raise GroupError(f"{option}: {constant} is not a number")

    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse)
    except json.JSONDecodeError as exc:
        raise GroupError(f"{option}: not JSON: {exc}") from exc
    except (RecursionError, InvalidOperation):
        raise GroupError(f"{option}: nested too deeply, or with a number beyond all bounds") from None


def _table(where: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise GroupError(f"{where}: must be an object")
    return cast("dict[str, object]", value)


def _ratios(where: str, value: object) -> dict[str, Decimal]:
    ratios: dict[str, Decimal] = {}
    for group, ratio in _table(where, value).items():
        if not isinstance(ratio, Decimal):
            raise GroupError(f"{where}.{group}: must be a number, not {ratio!r}")
        ratios[group] = ratio
    return ratios


def _labels(where: str, value: object) -> dict[str, str]:
    labels: dict[str, str] = {}
    for group, label in _table(where, value).items():
        if not isinstance(label, str):
            raise GroupError(f"{where}.{group}: must be a label in quotes, not {label!r}")
        labels[group] = label
    return labels


def dump_exact(value: object) -> str:
    """Compact JSON with every digit of a number (the json module writes a Decimal as a float, or not at all)."""
    if isinstance(value, Decimal):
        # Written out, 1e999999999 would fill the memory.
        return f"{value:f}" if abs(value.adjusted()) <= MOST_PLACES else str(value)
    if isinstance(value, date):
        return json.dumps(value.isoformat())
    if isinstance(value, Mapping):
        rows = cast("Mapping[str, object]", value)
        return "{" + ",".join(f"{dump_exact(key)}:{dump_exact(inner)}" for key, inner in rows.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ",".join(dump_exact(inner) for inner in cast("Sequence[object]", value)) + "]"
    return json.dumps(value, ensure_ascii=False)
