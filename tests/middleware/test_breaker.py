"""The circuit breaker: when it opens, for how long, and how it closes again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.middleware.routing.breaker import Breaker, BreakerRules

RULES = BreakerRules(failures=3, cooldown=5.0, cooldown_max=60.0)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(RULES.failures):
        breaker.failed(now, RULES)
    return breaker


def test_it_opens_at_the_last_of_the_failures_in_a_row() -> None:
    breaker = Breaker()
    assert [breaker.failed(0.0, RULES) for _ in range(3)] == [False, False, True]
    assert breaker.state(0.0) == "open"


def test_a_success_starts_the_row_again() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(0.0, RULES)
        breaker.failed(0.0, RULES)
        breaker.succeeded()
    assert breaker.state(0.0) == "closed"


@pytest.mark.parametrize(
    ("now", "state", "enters"), [(0.0, "open", False), (4.9, "open", False), (5.0, "half_open", True)]
)
def test_it_stays_open_for_its_cool_down(now: float, state: str, enters: bool) -> None:
    breaker = opened()
    assert breaker.state(now) == state
    assert breaker.enter(now) is enters


def test_a_closed_one_lets_everybody_in() -> None:
    breaker = Breaker()
    assert all(breaker.enter(0.0) for _ in range(100))


def test_half_open_lets_one_probe_in_at_a_time() -> None:
    breaker = opened()
    assert [breaker.enter(6.0) for _ in range(3)] == [True, False, False]
    breaker.left()
    assert [breaker.enter(6.0) for _ in range(3)] == [True, False, False]


def test_a_probe_that_takes_too_long_no_longer_keeps_others_out() -> None:
    breaker = opened()
    assert breaker.enter(6.0, probe_timeout=60.0)
    assert not breaker.enter(65.9, probe_timeout=60.0)
    assert breaker.enter(66.0, probe_timeout=60.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.enter(6.0)
    breaker.succeeded()
    assert breaker.state(6.0) == "closed"
    assert not breaker.failed(6.0, RULES)


def test_probes_that_fail_open_it_for_twice_as_long_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 0.0, list[float]()
    for _ in range(6):
        pauses.append(breaker.until - now)
        now = breaker.until
        assert breaker.enter(now)
        assert breaker.failed(now, RULES)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("retry_after", "until"), [(20.0, 120.0), (0.5, 100.5), (3600.0, 160.0)], ids=["as asked", "short", "at most"]
)
def test_a_retry_after_opens_it_at_once(retry_after: float, until: float) -> None:
    breaker = Breaker()
    assert breaker.failed(100.0, RULES, retry_after=retry_after)
    assert breaker.until == until


def test_a_shorter_wait_does_not_shorten_a_longer_one() -> None:
    breaker = Breaker()
    breaker.failed(0.0, RULES, retry_after=50.0)
    breaker.failed(1.0, RULES, retry_after=2.0)
    assert breaker.until == 50.0


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "fail", "succeed", "leave", "wait"]), st.floats(0, 20, allow_nan=False)),
    max_size=80,
)


@given(STEPS)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_it_never_lets_two_probes_at_once(steps: list[tuple[str, float]]) -> None:
    breaker, now, probing = opened(1.0), 1.0, False
    for step, figure in steps:
        match step:
            case "wait":
                now += figure
            case "enter":
                half_open = breaker.state(now) == "half_open"
                entered = breaker.enter(now, probe_timeout=1e9)
                assert entered == (breaker.state(now) == "closed" or (half_open and not probing))
                probing = probing or (entered and half_open)
            case _ if breaker.state(now) == "half_open" and not probing:
                continue  # nobody is inside who could end
            case "fail":
                breaker.failed(now, RULES)
                probing = False
            case "succeed":
                breaker.succeeded()
                probing = False
            case _:
                breaker.left()
                probing = False


STRAGGLER, PROBE, OTHER = object(), object(), object()


def probing() -> Breaker:
    """An open breaker whose cool-down is over, with a probe under way and a request from before it opened."""
    breaker = opened()
    assert breaker.enter(6.0, PROBE)
    return breaker


def test_a_request_from_before_it_opened_does_not_free_the_probes_place() -> None:
    breaker = probing()
    breaker.left(STRAGGLER)
    assert not breaker.enter(6.0, OTHER)
    breaker.left(PROBE)
    assert breaker.enter(6.0, OTHER)


def test_a_request_from_before_it_opened_does_not_close_it() -> None:
    breaker = probing()
    assert not breaker.succeeded(STRAGGLER)
    assert breaker.state(6.0) == "half_open"
    assert breaker.succeeded(PROBE)
    assert breaker.state(6.0) == "closed"


def test_a_request_from_before_it_opened_does_not_keep_it_open_longer() -> None:
    breaker = probing()
    until = breaker.until
    assert not breaker.failed(6.0, RULES, STRAGGLER)
    assert breaker.until == until
    assert breaker.failed(6.0, RULES, PROBE)
    assert breaker.until > until
