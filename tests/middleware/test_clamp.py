"""`clamp_max_tokens`: a request is limited to what the balance affords, and never costs more than was held for it."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.call import Call
from tollway.adapters.errors import InsufficientQuota
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.chargeable import most_usage
from tollway.config.amounts import dollars
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.price import Price, Tier
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Usage
from tollway.config.tariff import Tariff
from tollway.middleware.memory import MemoryLedger
from tollway.middleware.metering import MeteringMiddleware
from tollway.middleware.reservation import affordable_output, clamped, limited, reservation
from tollway.middleware.state import Charge, Outcome, state_of

from .inner import ALICE, CHAT, Client, Inside, scope_of

D = Decimal
CLAMP = Options(clamp_max_tokens=True, default_max_tokens=500)


def asking(*, path: str = CHAT.path, text: str = "hello", limit: int | None = None, **fields: Any) -> Call:
    document = {"model": "m", "messages": [{"role": "user", "content": text}], "prompt": text, **fields}
    if limit is not None:
        document["max_tokens"] = limit
    return Call(
        BY_PATH[path],
        "m",
        "m",
        body=orjson.dumps(document),
        document=document,
        output_limit=limit,
        choices=fields.get("n", 1),
    )


usd = st.decimals(0, 100, places=3)
prices = st.builds(
    Price,
    st.just("m"),
    input=usd,
    output=st.decimals(D("0.001"), 100, places=3),
    output_audio=st.none() | usd,
    per_call=st.sampled_from((D(0), D("0.0001"))),
    tiers=st.just(()) | st.tuples(st.builds(Tier, st.integers(1, 100), usd.map(lambda each: {"output": each}))),
)
calls = st.builds(
    asking,
    path=st.sampled_from((CHAT.path, "/v1/completions")),
    text=st.integers(0, 20_000).map(lambda size: "é" * size),
    limit=st.none() | st.integers(1, 2000),
    n=st.integers(1, 3),
    modalities=st.sampled_from((["text"], ["text", "audio"])),
)


@settings(deadline=None, max_examples=300)
@given(call=calls, price=prices, ratio=st.decimals(D("0.01"), 3, places=2), affordable=st.integers(0, 100_000))
def test_the_clamped_call_fits_and_one_token_more_does_not(
    call: Call, price: Price, ratio: Decimal, affordable: int
) -> None:
    tariff = Tariff(price, ratio)
    call = limited(call, tariff, CLAMP)
    assert call.output_limit is not None
    expected = most_usage(call, 0, price)
    answers = expected.output_tokens // call.output_limit

    def needed(output: int) -> int:
        audio = output * answers if expected.output_audio_tokens else 0
        return tariff.cover(Usage(expected.input_tokens, output * answers, output_audio_tokens=audio))

    found = clamped(call, tariff, affordable)
    if found is None:
        assert needed(1) > affordable
        return
    smaller, quota = found
    assert smaller.output_limit is not None
    assert 1 <= smaller.output_limit <= call.output_limit
    assert reservation(smaller, tariff, CLAMP) <= quota == needed(smaller.output_limit) <= affordable
    assert smaller.output_limit == call.output_limit or needed(smaller.output_limit + 1) > affordable
    assert orjson.loads(smaller.body)["max_tokens"] == smaller.output_limit


@pytest.mark.parametrize(
    ("affordable", "output"), [(0, 0), (99, 0), (100, 0), (101, 0), (102, 1), (103, 1), (198, 49), (200, 50), (999, 50)]
)
def test_what_a_balance_affords(affordable: int, output: int) -> None:
    tariff = Tariff(Price("m", input=D(2), output=D(4)), D(1))
    assert affordable_output(Usage(100, 50), 1, 50, tariff, affordable) == output


# --- in the layer

BOOK = PriceBook({"m": Price("m", input=D(2), output=D(4))})
BODY_TOKENS = len(asking(limit=1000).body) // 3 + 1


class Served:
    """One request against a balance; `seen` is the call that the endpoint would send."""

    def __init__(self, balance: int, options: Options, *, writes: int | None = None, unreported: float = 0) -> None:
        self.ledger = MemoryLedger(users={1: balance})
        self.options = options
        self.writes = writes
        self.unreported = unreported
        """The upstream reports nothing, and its answer is taken for so many times as many tokens as it has."""
        self.charges: list[Charge] = []
        self.seen: list[Call] = []

    async def inside(self, scope: Any, receive: Any, send: Any) -> None:
        state = state_of(scope)
        assert state.call is not None
        self.seen.append(state.call)
        written = self.writes or state.call.output_limit or 0
        state.outcome = Outcome("completed", Usage(BODY_TOKENS, written))
        if self.unreported:
            state.outcome = Outcome("completed", None, int(written * self.unreported))
        await Inside()(scope, receive, send)

    async def run(self, call: Call) -> "Served":
        scope, client = scope_of(CHAT.path), Client()
        state = state_of(scope)
        state.call, state.principal, state.hold = call, ALICE, await self.ledger.open(ALICE, "")
        layer = MeteringMiddleware(self.inside, prices=BOOK, options=Live(self.options), on_charge=self.charges.append)
        try:
            await layer(scope, client.receive, client.send)
        finally:
            state.hold.release()
        return self


@pytest.mark.anyio
async def test_a_balance_that_is_too_small_lowers_the_limit() -> None:
    served = await Served(BODY_TOKENS + 21, CLAMP).run(asking(limit=1000))
    (seen,) = served.seen
    assert (seen.output_limit, orjson.loads(seen.body)["max_tokens"]) == (10, 10)
    assert served.charges[0].quota == BODY_TOKENS + 20
    assert served.ledger.users[1].balance == 1


@pytest.mark.anyio
async def test_a_balance_that_is_large_enough_changes_nothing() -> None:
    call = asking(limit=1000)
    served = await Served(10_000, CLAMP).run(call)
    assert served.seen == [call]


@pytest.mark.anyio
async def test_a_request_without_a_limit_gets_the_one_that_is_held_for() -> None:
    served = await Served(1_000_000, CLAMP).run(asking())
    assert orjson.loads(served.seen[0].body)["max_tokens"] == CLAMP.default_max_tokens


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [None, 1000])
async def test_a_refusal_names_what_one_token_takes(limit: int | None) -> None:
    with pytest.raises(InsufficientQuota) as refused:
        await Served(BODY_TOKENS + 1, CLAMP).run(asking(limit=limit))
    assert refused.value.message.endswith(f" An answer of one token may cost {dollars(BODY_TOKENS + 2)}.")
    assert len((await Served(BODY_TOKENS + 2, CLAMP).run(asking(limit=limit))).seen) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("balance", "options"),
    [
        pytest.param(BODY_TOKENS + 1, CLAMP, id="not one token is affordable"),
        pytest.param(BODY_TOKENS + 100, Options(), id="the option is off"),
    ],
)
async def test_else_it_is_refused_as_ever(balance: int, options: Options) -> None:
    served = Served(balance, options)
    with pytest.raises(InsufficientQuota):
        await served.run(asking(limit=1000))
    assert served.seen == []
    assert (served.ledger.users[1].balance, served.ledger.users[1].held) == (balance, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("unreported", [0.0, 1.3], ids=["usage reported", "taken for longer than it is"])
@pytest.mark.parametrize("limit", [None, 1, 50, 1000])
async def test_no_balance_falls_below_zero_by_a_model_that_heeds_its_limit(
    limit: int | None, unreported: float
) -> None:
    for balance in balances():
        served = Served(balance, CLAMP, unreported=unreported)
        try:
            await served.run(asking(limit=limit))
        except InsufficientQuota:
            continue
        assert 0 <= served.ledger.users[1].balance < balance


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "balance", "reported", "charged"),
    [
        pytest.param(CLAMP, 100_000, False, 130, id="there is enough for what was counted"),
        pytest.param(CLAMP, BODY_TOKENS + 205, False, 100, id="there is not"),
        pytest.param(CLAMP, BODY_TOKENS + 205, True, 130, id="but what the upstream reports is owed"),
        pytest.param(Options(), BODY_TOKENS + 205, False, 130, id="without the option all of it is"),
    ],
)
async def test_a_count_of_ours_beyond_the_limit(options: Options, balance: int, reported: bool, charged: int) -> None:
    served = Served(balance, options, writes=130 if reported else 100, unreported=0 if reported else 1.3)
    await served.run(asking(limit=100))
    assert served.charges[0].usage.output_tokens == charged


def balances() -> Iterator[int]:
    yield from (*range(1, 200, 7), 500, 1000, 3000)
