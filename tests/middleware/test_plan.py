"""The plan: which channels and keys can serve a call, in which order, and why the others cannot."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from tollway.config.channel import Channel, ChannelStatus, ChannelType
from tollway.middleware.routing.breaker import BreakerRules
from tollway.middleware.routing.health import Health
from tollway.middleware.routing.plan import ChannelIndex, Exclusion, make_plan
from tollway.middleware.state import Candidate

from .inner import channel, ids, places, status_failure

ROUNDS = 20_000
RULES = BreakerRules(failures=1, cooldown=10.0)


def planned(*channels: Channel, **given: Any) -> tuple[tuple[Candidate, ...], tuple[Exclusion, ...]]:
    given = {
        "model": "gpt-4o",
        "operation": "chat_completions",
        "health": Health(),
        "now": 0.0,
        "random": Random(7),
    } | given
    return make_plan(ChannelIndex.of(channels).serving("default", "gpt-4o"), **given)


def firsts(*channels: Channel, **given: Any) -> dict[tuple[int, int], float]:
    """How large a share of many plans each place comes first in."""
    random = Random(20_261_121)
    counted = Counter(places(planned(*channels, random=random, turn=turn, **given)[0])[0] for turn in range(ROUNDS))
    return {place: count / ROUNDS for place, count in counted.items()}


def ill(*candidates: Candidate) -> Health:
    health = Health()
    for each in candidates:
        health.failed(each, "gpt-4o", status_failure(500), 0.0, RULES)
    return health


def test_higher_priorities_come_first() -> None:
    for seed in range(50):
        plan, _ = planned(
            channel(1), channel(2, priority=10), channel(3, priority=-1), channel(4, priority=10), random=Random(seed)
        )
        assert set(ids(plan)[:2]) == {2, 4}
        assert ids(plan)[2:] == [1, 3]


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (70, 20, 10), (1, 99), (1, 0, 1)], ids=str)
def test_inside_a_tier_the_first_is_drawn_by_weight(weights: tuple[int, ...]) -> None:
    shares = firsts(*[channel(id, weight=weight) for id, weight in enumerate(weights)])
    for id, weight in enumerate(weights):
        assert shares.get((id, 0), 0.0) == pytest.approx(weight / sum(weights), abs=0.03)


def test_the_second_is_drawn_by_weight_among_the_rest() -> None:
    random, seconds = Random(7), Counter[int]()
    for _ in range(ROUNDS):
        first, second, _ = ids(
            planned(channel(1, weight=2), channel(2, weight=1), channel(3, weight=1), random=random)[0]
        )
        if first == 3:
            seconds[second] += 1
    assert seconds[1] / seconds.total() == pytest.approx(2 / 3, abs=0.03)


def test_weight_0_comes_last() -> None:
    for seed in range(200):
        plan, _ = planned(channel(1, weight=0), channel(2), channel(3, weight=0), channel(4), random=Random(seed))
        assert set(ids(plan)[2:]) == {1, 3}


def test_if_all_weights_are_0_each_comes_first_as_often() -> None:
    shares = firsts(channel(1, weight=0), channel(2, weight=0))
    assert shares[1, 0] == pytest.approx(0.5, abs=0.03)


def test_the_index_tells_groups_and_models_apart() -> None:
    index = ChannelIndex.of(
        [
            channel(1, "gpt-4o", "o3", groups=("default", "vip")),
            channel(2, "o3", groups=("vip",), priority=1),
            channel(3, "o1", status=ChannelStatus.DISABLED),
        ]
    )
    assert [each.id for each in index.serving("vip", "o3")] == [2, 1]
    assert [each.id for each in index.serving("default", "o3")] == [1]
    assert index.serving("other", "o3") == index.serving("vip", "gpt-9") == ()
    assert index.models_of("vip") == ["gpt-4o", "o3"]
    assert index.models_of("default") == ["gpt-4o", "o3"]


def test_random_keys_share_the_load() -> None:
    shares = firsts(channel(1, keys=4))
    assert [shares[1, key] for key in range(4)] == pytest.approx([0.25] * 4, abs=0.03)


def test_polling_keys_take_turns() -> None:
    plans = [places(planned(channel(1, keys=3, key_mode="polling"), turn=turn)[0]) for turn in range(4)]
    assert plans[0] == plans[3] == [(1, 0), (1, 1), (1, 2)]
    assert [plan[0] for plan in plans] == [(1, 0), (1, 1), (1, 2), (1, 0)]


def test_the_keys_of_a_channel_stay_together() -> None:
    for seed in range(50):
        plan, _ = planned(channel(1, keys=3), channel(2, keys=2), random=Random(seed))
        assert ids(plan) in ([1, 1, 1, 2, 2], [2, 2, 1, 1, 1])


def test_disabled_keys_are_left_out() -> None:
    one = channel(1, keys=3, disabled_keys=frozenset({0, 2}))
    plan, exclusions = planned(one)
    assert places(plan) == [(1, 1)]
    assert exclusions == (Exclusion(one, "key disabled", 0), Exclusion(one, "key disabled", 2))


def test_a_channel_whose_only_key_is_disabled_is_left_out() -> None:
    plan, exclusions = planned(channel(1, disabled_keys=frozenset({0})))
    assert plan == ()
    assert [each.reason for each in exclusions] == ["key disabled"]


def test_the_last_place_of_a_conversation_comes_first() -> None:
    for seed in range(50):
        plan, _ = planned(channel(1, keys=3), channel(2), channel(3), preferred=(1, 2), random=Random(seed))
        assert places(plan)[0] == (1, 2)
        assert ids(plan)[:3] == [1, 1, 1]


def test_the_last_place_comes_first_in_its_own_tier_only() -> None:
    for seed in range(50):
        plan, _ = planned(
            channel(1),
            channel(2),
            channel(3, priority=5),
            channel(4, priority=-5),
            preferred=(2, 0),
            random=Random(seed),
        )
        assert ids(plan) == [3, 2, 1, 4]


def test_a_last_place_that_is_gone_changes_nothing() -> None:
    assert planned(channel(1), channel(2), preferred=(9, 0)) == planned(channel(1), channel(2))


def test_a_last_place_that_is_ill_is_left_out() -> None:
    one, two = channel(1), channel(2)
    plan, _ = planned(one, two, preferred=(1, 0), health=ill(Candidate(one, 0)))
    assert ids(plan) == [2]


def test_open_breakers_are_left_out_until_they_are_half_open() -> None:
    one, two = channel(1, keys=2), channel(2, priority=-1)
    health = ill(Candidate(one, 0))
    plan, exclusions = planned(one, two, health=health, now=4.0)
    assert places(plan) == [(1, 1), (2, 0)]
    assert exclusions == (Exclusion(one, "breaker open", 0, 6.0),)
    plan, exclusions = planned(one, two, health=health, now=10.0)
    assert set(places(plan)) == {(1, 0), (1, 1), (2, 0)}
    assert exclusions == ()


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        pytest.param(channel(1, status=ChannelStatus.DISABLED), "disabled", id="disabled"),
        pytest.param(channel(1, status=ChannelStatus.AUTO_DISABLED), "disabled automatically", id="auto-disabled"),
        pytest.param(channel(1, keys=0), "it has no key", id="no key"),
        pytest.param(
            channel(1, model_mapping={"gpt-4o": "a", "a": "gpt-4o"}), "back to itself", id="a mapping in a circle"
        ),
        pytest.param(Channel(1, "one", ChannelType.CUSTOM, ("gpt-4o",)), "no base URL", id="no base URL"),
    ],
)
def test_what_is_left_out_has_a_reason(unfit: Channel, reason: str) -> None:
    plan, exclusions = planned(unfit, channel(2))
    assert ids(plan) == [2]
    assert [each.channel.id for each in exclusions] == [1]
    assert reason in exclusions[0].reason


def test_an_operation_that_the_vendor_does_not_serve_is_a_reason() -> None:
    one = Channel(1, "one", ChannelType.PERPLEXITY, ("gpt-4o",), channel(1).keys)
    plan, exclusions = planned(one, operation="images_generations")
    assert plan == ()
    assert "does not serve images_generations" in exclusions[0].reason


def test_the_same_seed_makes_the_same_plan() -> None:
    channels = [channel(id, keys=3, weight=id) for id in range(1, 8)]
    assert places(planned(*channels, random=Random(3))[0]) == places(planned(*channels, random=Random(3))[0])
