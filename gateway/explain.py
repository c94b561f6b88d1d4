"""
Why a request goes where it goes: the decisions of the relay's layers, in their order, without making the request.

Pure: it is given what the relay knows and asks nobody. Health is left out, for it belongs to a serving process; the
order inside a priority is drawn anew for each request, so what is told of it is the chance to come first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as replaced
from random import Random

from msgspec.structs import replace

from ..adapters.call import Call
from ..adapters.errors import (
    ClientError,
    Forbidden,
    GatewayError,
    InsufficientQuota,
    NoHealthyChannel,
    NotFound,
    Unavailable,
)
from ..adapters.requests.upstream_request import upstream_name
from ..adapters.usage.chargeable import is_sold
from ..config.amounts import dollars
from ..config.budget import Budget
from ..config.channel import Channel
from ..config.options import Options
from ..config.pricing import Price, Usage, quota_for
from ..config.tariff import Tariff
from ..middleware.channel_select import permitted
from ..middleware.memory import MemoryChannelPool
from ..middleware.ports import Prices, Ratios
from ..middleware.reservation import can_be_limited, clamped, limited, no_price, one_token, reservation
from ..middleware.routing.health import Health
from ..middleware.routing.plan import ChannelIndex, make_plan
from ..middleware.state import Candidate, Principal
from ..middleware.token_auth import check

THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class World:
    """What the relay knows when a request comes."""

    index: ChannelIndex
    prices: Prices
    ratios: Ratios
    options: Options


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """A budget that pays for the caller's requests: what is left of it, and until when (ms since 1970), if known."""

    budget: Budget
    left: int
    ends_at: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What the caller has left, in quota; `token` is None for a token that only its user's balance limits."""

    user: int
    token: int | None = None
    budgets: tuple[BudgetLeft, ...] = ()

    @property
    def available(self) -> int:
        return min(self.user, *(each.left for each in self.budgets), self.user if self.token is None else self.token)


@dataclass(frozen=True, slots=True)
class Way:
    """
    One candidate. `chance`: that its channel comes first among those of its priority, 0 to 1. `upstream_model`: what
    the upstream calls the model.
    """

    channel: Channel
    key_index: int
    chance: float
    upstream_model: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """A channel, or one of its keys, that is not a candidate, and why."""

    channel: Channel
    reason: str
    key_index: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What the call costs, in quota, with the group's ratio: 1,000 tokens in, 1,000 tokens out, a call without any
    token, and what is held for this call (`reserved`: its input as estimated and the output that it may have).
    `ratio` is the group's, as text. `source` says where the price is published. `cut_to`: the output tokens that
    `clamp_max_tokens` leaves to each answer, None where it leaves all. `one_token`: what is held where it leaves one,
    the least that must be there; None where it does not apply.
    """

    input_1k: int
    output_1k: int
    least: int
    reserved: int
    ratio: str
    source: str
    cut_to: int | None = None
    one_token: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    `refusal` is what a client would be told now, None if the call would be made. `served_as`: the name under which the
    channels list the model. `available`: the least of the balance, the key's quota and what `budgets` leave.
    `affordable`: how many calls of this size that covers, None for any number.
    """

    model: str
    served_as: str
    operation: str
    group: str
    refusal: GatewayError | None
    ways: tuple[Way, ...]
    excluded: tuple[Excluded, ...]
    cost: Cost | None
    available: int
    affordable: int | None
    budgets: tuple[BudgetLeft, ...] = ()


def explain(call: Call, principal: Principal, world: World, balance: Balance, *, now: float) -> Explanation:
    """`now`: seconds since the epoch, for keys that expire. The address a key may come from is not judged."""
    asked, forbidden = call.model, None
    try:
        call = permitted(call, principal)
    except Forbidden as refusal:
        forbidden = refusal
    models = tuple(dict.fromkeys((call.model, call.base_model)))
    served_as = next((model for model in models if world.index.serving(principal.group, model)), call.model)
    candidates, exclusions = make_plan(
        world.index.serving(principal.group, served_as),
        model=served_as,
        operation=call.operation.name,
        health=Health(),
        now=0.0,
        random=Random(0),
    )
    listed = world.prices.price_for(call.model, call.base_model)
    price = None if listed is None else listed.at(now)
    if price is not None and not is_sold(call.operation, price):
        price = None
    cost = None if price is None else _cost(call, principal, price, candidates, world, balance)
    return Explanation(
        model=asked,
        served_as=served_as,
        operation=call.operation.name,
        group=principal.group,
        refusal=next(_refusals(call, forbidden, models, principal, world, balance, cost, now), None),
        ways=tuple(_ways(call, candidates)),
        excluded=(
            *(Excluded(each.channel, each.reason, each.key_index) for each in exclusions),
            *_elsewhere(world.index, principal.group, served_as),
        ),
        cost=cost,
        available=balance.available,
        affordable=None if cost is None or not cost.reserved else max(0, balance.available) // cost.reserved,
        budgets=balance.budgets,
    )


def _refusals(
    call: Call,
    forbidden: Forbidden | None,
    models: tuple[str, ...],
    principal: Principal,
    world: World,
    balance: Balance,
    cost: Cost | None,
    now: float,
) -> Iterator[GatewayError]:
    """Everything that the layers would say no to, outermost first."""
    try:
        check(replaced(principal, networks=()), "", now)
    except ClientError as error:
        yield error
    yield from (Unavailable(each.budget.trouble) for each in balance.budgets if each.budget.trouble)
    yield from _too_poor(balance, 1, "is used up")
    if forbidden is not None:
        yield forbidden
    try:
        MemoryChannelPool(world.index.channels).plan(principal, models, call.operation)
    except (NotFound, NoHealthyChannel) as error:
        yield error
    if cost is None and not world.options.accept_unknown_models:
        yield no_price(call)
    if cost is not None:
        problem = f"does not cover this request, which may cost {dollars(cost.reserved)}"
        if cost.one_token is not None:
            problem += f", and with an answer of one token {dollars(cost.one_token)}"
        yield from _too_poor(balance, cost.reserved, problem)


def _too_poor(balance: Balance, quota: int, problem: str) -> Iterator[InsufficientQuota]:
    if balance.user < quota:
        yield InsufficientQuota(f"The balance {problem}.")
    if balance.token is not None and balance.token < quota:
        yield InsufficientQuota(f"The key's quota {problem}.", code="token_quota_exhausted")
    for each in balance.budgets:
        if each.left < quota:
            yield InsufficientQuota(f"{each.budget.called} {problem}.", code="budget_exceeded")


def _ways(call: Call, candidates: tuple[Candidate, ...]) -> Iterator[Way]:
    channels = {each.channel.id: each.channel for each in candidates}.values()
    for each in candidates:
        tier = [other.weight for other in channels if other.priority == each.channel.priority]
        # Where nobody has a weight, all have the same.
        chance = each.channel.weight / sum(tier) if sum(tier) else 1 / len(tier)
        yield Way(each.channel, each.key_index, chance, upstream_name(each.channel, call))


def _elsewhere(index: ChannelIndex, group: str, model: str) -> Iterator[Excluded]:
    """The channels that were not even looked at."""
    for channel in index.channels:
        if model not in channel.models:
            yield Excluded(channel, f"it does not list the model {model}")
        elif group not in channel.groups:
            yield Excluded(channel, f"it does not serve the group {group}")


def _cost(
    call: Call,
    principal: Principal,
    price: Price,
    candidates: tuple[Candidate, ...],
    world: World,
    balance: Balance,
) -> Cost:
    ratio = world.ratios.ratio(principal.user_group, principal.group)
    channel = candidates[0].channel if candidates else None
    cache_ratio = None if channel is None else channel.prompt_cache_ratio
    if cache_ratio is None and price.prompt_cache_ratio is None:
        cache_ratio = world.options.prompt_cache_ratio
    tariff = Tariff(price, ratio, cache_ratio)
    cut_to = least_held = None
    if world.options.clamp_max_tokens and can_be_limited(call, channel):
        # With the limit that it is sent with, as it is held.
        call = limited(call if call.body else replace(call, body=b"{}", document={}), tariff, world.options)
        least_held = one_token(call, tariff, channel)
    reserved = reservation(call, tariff, world.options, channel)
    if least_held is not None and balance.available < reserved:
        smaller = clamped(call, tariff, max(0, balance.available), channel)
        if smaller is not None:
            cut_to, reserved = smaller[0].output_limit, smaller[1]
    return Cost(
        input_1k=quota_for(Usage(input_tokens=THOUSAND), price, ratio)[0],
        output_1k=quota_for(Usage(output_tokens=THOUSAND), price, ratio)[0],
        least=quota_for(Usage(), price, ratio)[0],
        reserved=reserved,
        ratio=str(ratio),
        source=price.source,
        cut_to=cut_to,
        one_token=least_held,
    )
