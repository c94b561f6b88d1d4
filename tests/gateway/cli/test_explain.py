"""Explanations: the candidates, who is left out and why, the price, and the refusal a client would see."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace
from tollway.adapters.call import Call
from tollway.adapters.operations import OPERATIONS
from tollway.config.amounts import dollars
from tollway.config.channel import Channel, ChannelStatus, ChannelType
from tollway.config.groups import GroupRatios
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price
from tollway.config.secret import Secret
from tollway.config.tariff import Tariff
from tollway.gateway.explain import Balance, Explanation, World, explain
from tollway.middleware.reservation import limited, reservation
from tollway.middleware.routing.plan import ChannelIndex
from tollway.middleware.state import Principal

from .conftest import Tollway

CHAT = next(operation for operation in OPERATIONS if operation.name == "chat_completions")
IMAGES = next(operation for operation in OPERATIONS if operation.name == "images_generations")
PRICES = PriceBook({"m": Price("m", input=Decimal(1), output=Decimal(2)), "free": Price("free")})
RATIOS = GroupRatios(ratios={"default": Decimal(1), "vip": Decimal("0.5")})
RICH = Balance(10**9)
NOBODY_ILL = 0.0


def channel(id: int, **fields: Any) -> Channel:
    values = {"name": f"c{id}", "type": ChannelType.OPENAI, "models": ("m", "free"), "keys": (Secret("k"),)}
    return Channel(**{"id": id, **values, **fields})


def ask(
    *channels: Channel,
    call: Call | None = None,
    principal: Principal | None = None,
    balance: Balance = RICH,
    options: Options | None = None,
) -> Explanation:
    world = World(ChannelIndex.of(channels), PRICES, RATIOS, options or Options())
    who = principal or Principal(token_id=1, user_id=1)
    return explain(call or Call(CHAT, "m", "m"), who, world, balance, now=NOBODY_ILL)


def test_candidates_come_by_priority_with_their_chance_and_name() -> None:
    found = ask(
        channel(1),
        channel(2, priority=5, weight=3, model_mapping={"m": "upstream-m"}),
        channel(3, priority=5, weight=1, keys=(Secret("a"), Secret("b"))),
    )
    assert found.refusal is None
    assert [way.channel.priority for way in found.ways] == [5, 5, 5, 0]
    assert {way.channel.id: way.chance for way in found.ways} == {2: 0.75, 3: 0.25, 1: 1.0}
    assert {way.channel.id: way.upstream_model for way in found.ways} == {2: "upstream-m", 3: "m", 1: "m"}


def test_channels_without_weight_share_evenly() -> None:
    assert {way.chance for way in ask(channel(1, weight=0), channel(2, weight=0)).ways} == {0.5}


def test_everyone_who_is_left_out_is_named_with_the_reason() -> None:
    found = ask(
        channel(1),
        channel(2, status=ChannelStatus.DISABLED),
        channel(3, status=ChannelStatus.AUTO_DISABLED),
        channel(4, keys=()),
        channel(5, keys=(Secret("a"), Secret("b")), disabled_keys=frozenset({1})),
        channel(6, models=("other",)),
        channel(7, groups=("vip",)),
        channel(8, model_mapping={"m": "x", "x": "m"}),
    )
    reasons = {each.channel.id: (each.key_index, each.reason) for each in found.excluded}
    assert reasons == {
        2: (None, "disabled"),
        3: (None, "disabled automatically"),
        4: (None, "it has no key"),
        5: (1, "key disabled"),
        6: (None, "it does not list the model m"),
        7: (None, "it does not serve the group default"),
        8: (None, "model_mapping leads from 'm' back to itself"),
    }
    assert {way.channel.id for way in found.ways} == {1, 5}


def test_the_price_is_that_of_the_group() -> None:
    plain = ask(channel(1)).cost
    vip = ask(channel(1, groups=("vip",)), principal=Principal(token_id=1, user_id=1, group="vip")).cost
    assert plain is not None
    assert vip is not None
    assert (plain.input_1k, plain.output_1k, plain.ratio) == (500, 1000, "1")
    assert (vip.input_1k, vip.output_1k, vip.ratio) == (250, 500, "0.5")


def test_what_is_held_is_the_input_and_the_output_that_is_allowed() -> None:
    call = Call(CHAT, "m", "m", body=b"x" * 51, output_limit=100, choices=2)
    cost = ask(channel(1), call=call).cost
    assert cost is not None
    # A token for 3 bytes of a short body, and one more, at 0.5 quota; 200 tokens out at 1 quota.
    assert cost.reserved == 9 + 200
    unlimited = ask(channel(1), call=replace(call, output_limit=None), options=Options(default_max_tokens=10)).cost
    assert unlimited is not None
    assert unlimited.reserved == 9 + 20


def test_an_answer_is_cut_to_what_the_balance_covers() -> None:
    clamping = Options(default_max_tokens=999, clamp_max_tokens=True)
    for call in (Call(CHAT, "m", "m"), Call(CHAT, "m", "m", body=b'{"max_tokens":500}', output_limit=500)):
        found = ask(channel(1), call=call, balance=Balance(50), options=clamping)
        assert found.cost is not None
        assert (found.refusal, found.affordable) == (None, 1)
        assert found.cost.cut_to is not None
        assert 20 < found.cost.cut_to < found.cost.reserved <= 50
    poor = ask(channel(1), balance=Balance(1), options=clamping)
    assert poor.refusal is not None
    assert poor.refusal.code == "insufficient_quota"
    rich = ask(channel(1), balance=Balance(100_000), options=clamping)
    assert rich.cost is not None
    assert rich.cost.cut_to is None


BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


def test_what_is_held_under_clamping_is_told_of_the_request_as_it_is_sent() -> None:
    """With the limit that is written into it, however much the caller has; and the least that must be there."""
    clamping = Options(default_max_tokens=999, clamp_max_tokens=True)
    call = Call(CHAT, "m", "m", body=BODY, document=json.loads(BODY))
    tariff = Tariff(PRICES.prices["m"], Decimal(1), None)
    whole = reservation(limited(call, tariff, clamping), tariff, clamping)
    rich, plain = ask(channel(1), call=call, options=clamping).cost, ask(channel(1), call=call).cost
    assert rich is not None
    assert plain is not None
    assert (rich.reserved, rich.cut_to, plain.one_token) == (whole, None, None)
    least = rich.one_token
    assert least is not None
    assert 1 < least < 50
    for left, cut_to in ((least, 1), (least - 1, None)):
        found = ask(channel(1), call=call, balance=Balance(left), options=clamping)
        assert found.cost is not None
        assert (found.cost.one_token, found.cost.cut_to) == (least, cut_to)
        assert found.cost.reserved == (least if cut_to else whole)
        assert (found.refusal is None) is (cut_to == 1)
        # As the server says it: the whole price alone would send the caller for more than is needed.
        assert found.refusal is None or f"one token {dollars(least)}" in found.refusal.message


def test_people_are_told_from_what_balance_on_an_answer_is_cut(tollway: Tollway, done: Callable[..., Any]) -> None:
    done("user", "create", "--username", "ann", "--quota", 5)
    done("channel", "create", "--name", "c", "--type", "echo", "--models", "gpt-4o")
    assert "clamp_max_tokens" not in tollway("explain", "--user", "ann", "--model", "gpt-4o").out
    done("option", "set", "clamp_max_tokens", "true")
    least = done("explain", "--user", "ann", "--model", "gpt-4o")["cost"]["one_token"]
    told = f"or what there is, from {dollars(least)} on, for a shorter answer (clamp_max_tokens)."
    assert told in tollway("explain", "--user", "ann", "--model", "gpt-4o").out
    done("user", "quota", "ann", "--add", least)
    cut = tollway("explain", "--user", "ann", "--model", "gpt-4o").out
    assert told not in cut
    assert "Its answer is cut to " in cut


def test_a_balance_covers_so_many_such_calls() -> None:
    found = ask(channel(1), balance=Balance(100_000, token=50_000), options=Options(default_max_tokens=999))
    assert found.cost is not None
    assert (found.available, found.cost.reserved, found.affordable) == (50_000, 1000, 50)
    assert ask(channel(1), call=Call(CHAT, "free", "free")).affordable is None


VIP = Principal(token_id=1, user_id=1, group="vip")
REFUSALS: dict[str, tuple[Callable[[], Explanation], int, str]] = {
    "a model that nobody serves": (lambda: ask(channel(1), call=Call(CHAT, "x", "x")), 404, "model_not_found"),
    "a group that nobody serves": (lambda: ask(channel(1), principal=VIP), 404, "model_not_found"),
    "an operation that its channels do not serve": (
        lambda: ask(channel(1, type=ChannelType.MOONSHOT), call=Call(IMAGES, "m", "m")),
        404,
        "model_not_found",
    ),
    "channels that are all disabled": (
        lambda: ask(channel(1, status=ChannelStatus.DISABLED)),
        503,
        "no_healthy_channel",
    ),
    "a model that the key may not use": (
        lambda: ask(channel(1), principal=Principal(1, 1, models=frozenset({"other"}))),
        403,
        "model_not_allowed",
    ),
    "a user who is disabled": (
        lambda: ask(channel(1), principal=Principal(1, 1, disabled="user")),
        403,
        "user_disabled",
    ),
    "a key that has expired": (
        lambda: ask(channel(1), principal=Principal(1, 1, expires_at=0.0)),
        401,
        "expired_api_key",
    ),
    "an empty balance": (lambda: ask(channel(1), balance=Balance(0)), 402, "insufficient_quota"),
    "a key that has spent its own quota": (
        lambda: ask(channel(1), balance=Balance(10**9, token=0)),
        402,
        "token_quota_exhausted",
    ),
    "a balance below what is held": (lambda: ask(channel(1), balance=Balance(4000)), 402, "insufficient_quota"),
    "a model without a price": (
        lambda: ask(channel(1, models=("x",)), call=Call(CHAT, "x", "x")),
        400,
        "model_price_error",
    ),
    "a model without a price for what is asked": (
        lambda: ask(channel(1, models=("whisper-1",)), call=Call(CHAT, "whisper-1", "whisper-1")),
        400,
        "model_price_error",
    ),
}


@pytest.mark.parametrize(("asked", "status", "code"), REFUSALS.values(), ids=REFUSALS.keys())
def test_the_refusal_is_the_one_that_a_client_would_see(
    asked: Callable[[], Explanation], status: int, code: str
) -> None:
    refusal = asked().refusal
    assert refusal is not None
    assert (refusal.status, refusal.code) == (status, code)


def test_a_model_without_a_price_is_served_where_the_option_says_so() -> None:
    call = Call(CHAT, "x", "x")
    assert ask(channel(1, models=("x",)), call=call, options=Options(accept_unknown_models=True)).refusal is None


def test_an_address_that_the_key_is_bound_to_is_no_reason() -> None:
    assert ask(channel(1), principal=Principal(1, 1, networks=("10.0.0.0/8",))).refusal is None


def test_the_command_explains_a_user_and_a_token_and_a_body(done: Callable[..., Any]) -> None:
    done("user", "create", "--username", "ann", "--quota", 1_000_000)
    done("token", "create", "--user", "ann", "--name", "t", "--quota", 10)
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "o3-mini,echo")
    found = done("explain", "--user", "ann", "--model", "o3-mini-high")
    assert (found["model"], found["served_as"], found["refusal"]) == ("o3-mini-high", "o3-mini", None)
    assert found["candidates"][0]["upstream_model"] == "o3-mini"
    assert found["candidates"][0]["provider"] == "Echo"
    assert done("explain", "--token", 1, "--model", "echo")["refusal"]["code"] == "token_quota_exhausted"
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000, "n": 2})
    sized = done("explain", "--user", "ann", "--model", "echo", "--body", "-", stdin=body)
    assert 2000 <= sized["cost"]["reserved"] <= 2020
    assert sized["available"] == 1_000_000
    assert sized["affordable_requests"] == 1_000_000 // sized["cost"]["reserved"]
    named = json.dumps({"input": "hi", "model": "echo"})
    assert done("explain", "--user", "ann", "--operation", "embeddings", "--body", "-", stdin=named)["refusal"] is None


def test_budgets_that_pay_bound_what_may_be_spent(done: Callable[..., Any], tollway: Tollway) -> None:
    done("user", "create", "--username", "ann", "--quota", 1_000_000, "--group", "vip")
    done("token", "create", "--user", "ann", "--name", "t", "--unlimited")
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "echo", "--group", "vip")
    for whose, amount in (("--user", 600_000), ("--token", 500_000), ("--group", 400_000)):
        of = {"--user": "ann", "--token": "t", "--group": "vip"}[whose]
        done("budget", "set", whose, of, "--period", "daily", "--amount", amount)
    done("user", "create", "--username", "bob", "--quota", 7)
    done("budget", "set", "--group", "default", "--period", "daily", "--amount", 1)
    by_token = done("explain", "--token", 1, "--model", "echo")
    assert [each["remain_quota"] for each in by_token["budgets"]] == [600_000, 500_000, 400_000]
    assert by_token["available"] == 400_000
    assert [each["kind"] for each in done("explain", "--user", "ann", "--model", "echo")["budgets"]] == [
        "user",
        "group",
    ]
    text = tollway("explain", "--token", 1, "--model", "echo").out
    assert "The daily budget of the group vip leaves $0.80 of $0.80 until " in text
    done("budget", "set", "--token", "t", "--period", "daily", "--amount", 1)
    assert done("explain", "--token", 1, "--model", "echo")["refusal"]["code"] == "budget_exceeded"
