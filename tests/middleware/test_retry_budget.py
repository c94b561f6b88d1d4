"""Retries are a share of the traffic at most."""

from random import Random

import pytest
from tollway.middleware.routing.retry_budget import FLOOR, FLOOR_WITHIN, RetryBudget


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_the_share_is_kept_over_ten_thousand_requests_that_all_want_retries(share: float) -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(10_000):
        budget.request(share, 0.0)
        retries += sum(budget.take() for _ in range(3))
    assert 10_000 * share - 1 <= retries <= 10_000 * share + FLOOR


def test_a_lone_request_can_be_retried() -> None:
    budget = RetryBudget()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]


def test_an_empty_purse_fills_again() -> None:
    budget = RetryBudget()
    while budget.take():
        pass
    for _ in range(6):
        budget.request(0.2, 0.0)
    assert [budget.take(), budget.take()] == [True, False]


@pytest.mark.parametrize("apart", [FLOOR_WITHIN / FLOOR, 600.0])
def test_requests_that_are_rare_can_all_be_retried(apart: float) -> None:
    budget = RetryBudget()
    for number in range(1000):
        budget.request(0.01, number * apart)
        assert budget.take()


def test_time_fills_the_purse_up_to_the_floor_and_never_where_retries_are_off() -> None:
    for share, left in ((0.01, 10), (0.0, 0)):
        budget = RetryBudget()
        budget.request(share, 0.0)
        while budget.take():
            pass
        budget.request(share, 100 * FLOOR_WITHIN)
        assert sum(budget.take() for _ in range(100)) == left


def test_a_long_calm_saves_up_a_hundred_requests_worth_at_most() -> None:
    budget = RetryBudget()
    for _ in range(100_000):
        budget.request(0.2, 0.0)
    assert 29 <= sum(budget.take() for _ in range(1000)) <= 30


def test_the_share_holds_in_every_stretch_of_a_mixed_load() -> None:
    budget, random, retries = RetryBudget(), Random(7), 0
    for number in range(1, 10_001):
        budget.request(0.2, 0.0)
        if random.random() < 0.5:
            retries += budget.take()
        assert retries <= number * 0.2 + FLOOR
