"""Choosing channels: what a key may not use, what nobody serves, what cannot be served now; else a plan."""

from dataclasses import replace
from typing import Any

import pytest
from tollway.adapters.errors import GatewayError
from tollway.config.channel import Channel, ChannelStatus, ChannelType
from tollway.middleware.channel_select import ChannelSelectMiddleware
from tollway.middleware.memory import MemoryChannelPool
from tollway.middleware.state import Candidate, MissingState, Plan, Principal, state_of

from .inner import ALICE, IMAGES, Client, Inside, call_of, channel, ids, scope_of, status_failure

pytestmark = pytest.mark.anyio


async def planned(
    pool: MemoryChannelPool,
    model: str = "gpt-4o",
    principal: Principal | None = ALICE,
    base_model: str = "",
    **call: object,
) -> Plan:
    scope, client = scope_of(), Client()
    state_of(scope).call = call_of(model, base_model=base_model or model, **call)
    if principal is not None:
        state_of(scope).principal = principal
    await ChannelSelectMiddleware(Inside(), pool=pool)(scope, client.receive, client.send)
    return state_of(scope).plan


async def test_the_plan_is_handed_on() -> None:
    plan = await planned(MemoryChannelPool([channel(1), channel(2, "o3"), channel(3, priority=5)]))
    assert (ids(plan.candidates), plan.model) == ([3, 1], "gpt-4o")


async def test_without_a_principal_the_group_is_default() -> None:
    plan = await planned(MemoryChannelPool([channel(1), channel(2, groups=("vip",))]), principal=None)
    assert ids(plan.candidates) == [1]


@pytest.mark.parametrize(
    ("channels", "model", "principal", "status", "code"),
    [
        pytest.param(
            [channel(1)], "gpt-4o", replace(ALICE, models=frozenset({"o3"})), 403, "model_not_allowed", id="not allowed"
        ),
        pytest.param(
            [], "gpt-9", replace(ALICE, models=frozenset({"o3"})), 403, "model_not_allowed", id="not allowed nor served"
        ),
        pytest.param(
            [channel(1)], "gpt-4o", replace(ALICE, models=frozenset()), 403, "model_not_allowed", id="nothing allowed"
        ),
        pytest.param([channel(1)], "gpt-9", ALICE, 404, "model_not_found", id="a model nobody serves"),
        pytest.param([], "gpt-4o", ALICE, 404, "model_not_found", id="no channels at all"),
        pytest.param([channel(1)], "GPT-4o", ALICE, 404, "model_not_found", id="names are told apart by capitals"),
        pytest.param(
            [channel(1, groups=("vip",))], "gpt-4o", ALICE, 404, "model_not_found", id="served to another group only"
        ),
        pytest.param(
            [channel(1, status=ChannelStatus.DISABLED)], "gpt-4o", ALICE, 503, "no_healthy_channel", id="all disabled"
        ),
    ],
)
async def test_refusals(channels: list[Channel], model: str, principal: Principal, status: int, code: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await planned(MemoryChannelPool(channels), model, principal)
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_open_breakers_are_a_503_that_says_when_to_come_again() -> None:
    one, two = channel(1), channel(2)
    pool = MemoryChannelPool([one, two], clock=lambda: 100.0)
    pool.failed(Candidate(one, 0), "gpt-4o", status_failure(429, fault="key", retry_after=20.0))
    pool.failed(Candidate(two, 0), "gpt-4o", status_failure(429, fault="key", retry_after=7.0))
    with pytest.raises(GatewayError) as caught:
        await planned(pool)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "no_healthy_channel", 7.0)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"status": ChannelStatus.DISABLED}, id="disabled"),
        pytest.param({"status": ChannelStatus.AUTO_DISABLED}, id="disabled automatically"),
        pytest.param({"disabled_keys": frozenset({0})}, id="its key is disabled"),
    ],
)
async def test_nobody_is_made_to_wait_for_what_only_an_operator_can_change(fields: dict[str, Any]) -> None:
    out = replace(channel(1), **fields)
    with pytest.raises(GatewayError, match="No enabled channel") as caught:
        await planned(MemoryChannelPool([out]))
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "no_healthy_channel", 30.0)
    assert (b"x-should-retry", b"false") in caught.value.headers
    # Beside it one that is ill, and will be tried again.
    ill = channel(2)
    pool = MemoryChannelPool([out, ill], clock=lambda: 100.0)
    pool.failed(Candidate(ill, 0), "gpt-4o", status_failure(429, fault="key", retry_after=20.0))
    with pytest.raises(GatewayError) as waits:
        await planned(pool)
    assert (waits.value.retry_after, waits.value.headers) == (20.0, ())


@pytest.mark.parametrize("status", ChannelStatus)
async def test_an_operation_that_no_channel_can_do_is_a_404(status: ChannelStatus) -> None:
    chat_only = replace(channel(1), type=ChannelType.PERPLEXITY, status=status)
    with pytest.raises(GatewayError) as caught:
        await planned(MemoryChannelPool([chat_only]), operation=IMAGES)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("models", "served_as"),
    [
        pytest.param(("o3-mini",), "o3-mini", id="by the base model"),
        pytest.param(("o3-mini-high", "o3-mini"), "o3-mini-high", id="by the full name first"),
    ],
)
async def test_a_name_with_a_suffix_is_served(models: tuple[str, ...], served_as: str) -> None:
    plan = await planned(MemoryChannelPool([channel(1, *models)]), "o3-mini-high", base_model="o3-mini")
    assert plan.model == served_as


@pytest.mark.parametrize("allowed", ["o3-mini", "o3-mini-high"])
async def test_a_key_may_use_a_suffix_if_it_may_use_either_name(allowed: str) -> None:
    principal = replace(ALICE, models=frozenset({allowed}))
    plan = await planned(MemoryChannelPool([channel(1, "o3-mini")]), "o3-mini-high", principal, "o3-mini")
    assert ids(plan.candidates) == [1]


async def test_without_a_call_the_layer_to_add_is_named() -> None:
    client = Client()
    with pytest.raises(MissingState, match="IntakeMiddleware"):
        await ChannelSelectMiddleware(Inside(), pool=MemoryChannelPool())(scope_of(), client.receive, client.send)
