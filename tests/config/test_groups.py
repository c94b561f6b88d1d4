"""Group ratios, who may use which group, and New API's option rows."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.config.groups import GroupError, GroupRatios

D = Decimal

GROUPS = GroupRatios(
    ratios={"default": D(1), "vip": D("0.8"), "free": D(0)},
    special={"vip": {"default": D("0.9"), "free": D("0.5")}},
    usable_groups={"default": "Everyone", "vip": "Paying"},
    special_usable_groups={"partner": {"-:default": "", "+:beta": "Early", "extra": "Extra"}, "odd": {"-:odd": ""}},
)


@pytest.mark.parametrize(
    ("user_group", "used_group", "ratio"),
    [
        pytest.param("default", "vip", "0.8", id="the ratio of the group that is used"),
        pytest.param("vip", "vip", "0.8", id="no cell for this pair"),
        pytest.param("vip", "default", "0.9", id="a special cell replaces, it does not multiply"),
        pytest.param("vip", "free", "0.5", id="a special cell replaces a ratio of 0"),
        pytest.param("default", "free", "0", id="a group that pays nothing"),
        pytest.param("default", "unheard-of", "1", id="an unknown group pays the full price"),
    ],
)
def test_ratio(user_group: str, used_group: str, ratio: str) -> None:
    assert GROUPS.ratio(user_group, used_group) == D(ratio)


def test_a_special_cell_of_0_is_a_cell() -> None:
    assert GroupRatios(special={"vip": {"default": D(0)}}).ratio("vip", "default") == 0


@pytest.mark.parametrize(
    ("user_group", "usable"),
    [
        pytest.param("default", {"default": "Everyone", "vip": "Paying"}, id="what everyone may use"),
        pytest.param(
            "staff", {"default": "Everyone", "vip": "Paying", "staff": "staff"}, id="the own group is always usable"
        ),
        pytest.param(
            "partner",
            {"vip": "Paying", "beta": "Early", "extra": "Extra", "partner": "partner"},
            id="edited for one user group: minus removes, plus or nothing adds",
        ),
        pytest.param(
            "odd", {"default": "Everyone", "vip": "Paying", "odd": "odd"}, id="the own group cannot be taken away"
        ),
    ],
)
def test_usable(user_group: str, usable: dict[str, str]) -> None:
    assert GROUPS.usable(user_group) == usable


def test_asking_does_not_change_the_snapshot() -> None:
    GROUPS.usable("default").clear()
    assert GROUPS.usable("default") == {"default": "Everyone", "vip": "Paying"}


# --- option rows

ROWS = {
    "GroupRatio": '{"default":1,"vip":0.80,"svip":0.3333333333333333}',
    "GroupGroupRatio": '{"vip":{"edit_this":0.9}}',
    "UserUsableGroups": '{"default":"默认分组","vip":"vip \\"gold\\""}',
    "group_ratio_setting.group_special_usable_group": '{"vip":{"+:beta":"Beta","-:default":"x"}}',
}


def test_rows_come_out_as_they_went_in() -> None:
    assert GroupRatios.from_options(ROWS).to_options() == ROWS


def test_rows_are_read_exactly() -> None:
    groups = GroupRatios.from_options(ROWS)
    assert groups.ratio("default", "svip") == D("0.3333333333333333")
    assert groups.ratio("vip", "edit_this") == D("0.9")
    assert groups.usable("vip") == {"vip": 'vip "gold"', "beta": "Beta"}


@pytest.mark.parametrize("options", [{}, dict.fromkeys(ROWS, "")], ids=["absent rows", "empty rows"])
def test_a_row_that_says_nothing_has_its_default(options: dict[str, str]) -> None:
    groups = GroupRatios.from_options(options)
    assert groups == GroupRatios()
    assert groups.to_options()["GroupRatio"] == '{"default":1,"vip":1,"svip":1}'


def test_a_row_that_says_none_has_none() -> None:
    groups = GroupRatios.from_options({"GroupRatio": "{}", "UserUsableGroups": "{}"})
    assert (groups.ratios, groups.usable("me")) == ({}, {"me": "me"})


def test_rows_that_are_nothing_to_groups_are_passed_over() -> None:
    assert GroupRatios.from_options({"AutoGroups": "no JSON", "RetryTimes": "3"}) == GroupRatios()


names = st.text(min_size=1, max_size=8)
ratios = st.decimals(0, 1_000_000, allow_nan=False, places=9)
labels = st.dictionaries(names, st.text(max_size=8), max_size=4)


@settings(derandomize=True, deadline=None)
@given(
    st.builds(
        GroupRatios,
        ratios=st.dictionaries(names, ratios, max_size=4),
        special=st.dictionaries(names, st.dictionaries(names, ratios, max_size=3), max_size=3),
        usable_groups=labels,
        special_usable_groups=st.dictionaries(names, labels, max_size=3),
    )
)
def test_every_snapshot_survives_its_rows(groups: GroupRatios) -> None:
    assert GroupRatios.from_options(groups.to_options()) == groups


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        pytest.param("GroupRatio", '{"vip":-0.1}', "GroupRatio.vip: a ratio is a number from 0", id="negative"),
        pytest.param("GroupRatio", '{"vip":1e7}', "GroupRatio.vip: a ratio is a number from 0", id="absurdly high"),
        pytest.param("GroupRatio", '{"vip":0.%s}' % ("3" * 40), "at most 28 digits", id="absurdly fine"),
        pytest.param("GroupRatio", '{"vip":1e-1000000}', "at most 28 digits", id="absurdly small"),
        pytest.param("GroupRatio", '{"vip":1e%s}' % ("9" * 20), "beyond all bounds", id="an endless exponent"),
        pytest.param("GroupRatio", "[" * 100_000, "nested too deeply", id="an endless list"),
        pytest.param("GroupRatio", '{"vip":NaN}', "GroupRatio: NaN is not a number", id="not a number"),
        pytest.param("GroupRatio", '{"vip":"0.8"}', "GroupRatio.vip: must be a number", id="a number in quotes"),
        pytest.param("GroupRatio", '{"vip":true}', "GroupRatio.vip: must be a number", id="a truth value"),
        pytest.param("GroupRatio", "[1]", "GroupRatio: must be an object", id="a list of ratios"),
        pytest.param("GroupRatio", "{", "GroupRatio: not JSON", id="not JSON"),
        pytest.param("GroupGroupRatio", '{"vip":1}', "GroupGroupRatio.vip: must be an object", id="a flat matrix"),
        pytest.param(
            "GroupGroupRatio", '{"vip":{"a":-1}}', "GroupGroupRatio.vip.a: a ratio is", id="a negative special cell"
        ),
        pytest.param("UserUsableGroups", '{"vip":1}', "UserUsableGroups.vip: must be a label", id="a label, a number"),
    ],
)
def test_a_bad_row_is_named(option: str, text: str, message: str) -> None:
    with pytest.raises(GroupError) as refused:
        GroupRatios.from_options({option: text})
    assert message in str(refused.value)
