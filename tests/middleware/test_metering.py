"""Metering alone around an app that is not ours: what is charged, when, and what the client is told of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from starlette.responses import StreamingResponse
from tollway.adapters.call import Call
from tollway.adapters.errors import BadRequest, InsufficientQuota
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.prompt_texts import Counted, Texts
from tollway.config.groups import GroupRatios
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.price import PricePeriod
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, Usage
from tollway.middleware.counting import Counting
from tollway.middleware.memory import MemoryLedger
from tollway.middleware.metering import MeteringMiddleware
from tollway.middleware.state import Attempt, Candidate, Charge, Ending, Hold, Outcome, Principal, state_of

from .inner import ALICE, CHAT, IMAGES, Client, Inside, Message, call_of, channel, scope_of

pytestmark = pytest.mark.anyio

D = Decimal
# At 2 dollars a million a token costs exactly 1 quota.
BOOK = PriceBook(
    {
        "gpt-4o": Price("gpt-4o", input=D(2), output=D(8)),
        "o3": Price("o3", input=D(2), output=D(2)),
        "o3-high": Price("o3-high", input=D(20), output=D(20)),
        "painter": Price("painter", per_image={"default": D("0.04"), "1024x1024/hd": D("0.08")}),
    }
)
EVENTS = b"text/event-stream; charset=utf-8"


def answer(model: str = "gpt-4o", usage: Mapping[str, int] | None = None, text: str = "Hi.") -> bytes:
    document: dict[str, Any] = {"model": model, "choices": [{"message": {"role": "assistant", "content": text}}]}
    return json.dumps(document | ({"usage": usage} if usage else {})).encode()


def event(text: str, **fields: Any) -> bytes:
    document = {"model": "gpt-4o", "choices": [{"delta": {"content": text}}]} | fields
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USED = {"prompt_tokens": 100, "completion_tokens": 50}


class Metered:
    """One request through the layer; keeps the charges and the order of what happened."""

    def __init__(
        self,
        inside: Any,
        *,
        call: Call | None = None,
        hold: Hold | None = None,
        principal: Principal | None = None,
        path: str = CHAT.path,
        **given: Any,
    ) -> None:
        self.charges: list[Charge] = []
        self.happened: list[str] = []
        self.client = Client()
        self.scope = scope_of(path)
        state = state_of(self.scope)
        state.call, state.hold, state.principal = call, hold, principal
        given.setdefault("prices", BOOK)
        self.layer = MeteringMiddleware(inside, on_charge=self.charged, **given)

    def charged(self, charge: Charge) -> None:
        self.happened.append("charged")
        self.charges.append(charge)

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self.happened.append("last bytes" if last else "bytes")
        await self.client.send(message)

    async def run(self) -> "Metered":
        await self.layer(self.scope, self.client.receive, self.send)
        return self

    @property
    def charge(self) -> Charge:
        (charge,) = self.charges
        return charge


async def test_usage_is_read_from_json_in_pieces() -> None:
    body = answer(usage=USED)
    metered = await Metered(Inside(body[:20], body[20:60], body[60:])).run()
    charge = metered.charge
    assert (charge.quota, charge.model, charge.operation) == (100 + 50 * 4, "gpt-4o", "chat_completions")
    assert (charge.usage, charge.ending, charge.status) == (Usage(100, 50), "completed", 200)
    assert (charge.principal, charge.attempt, charge.address) == (None, None, "192.0.2.7")
    assert metered.client.body == body


async def test_usage_is_read_from_a_stream() -> None:
    pieces = [event("Hel"), event("lo"), event("", choices=[], usage=USED), DONE]
    metered = await Metered(Inside(*pieces, content_type=EVENTS)).run()
    assert (metered.charge.quota, metered.charge.usage.estimated) == (300, False)
    assert metered.charge.ending == "completed"
    assert metered.client.body == b"".join(pieces)


async def test_a_stream_may_be_of_memoryviews() -> None:
    async def pieces() -> AsyncIterator[memoryview]:
        yield memoryview(event("", usage=USED))
        yield memoryview(DONE)

    metered = await Metered(StreamingResponse(pieces(), media_type="text/event-stream")).run()
    assert (metered.charge.usage, metered.charge.ending) == (Usage(100, 50), "completed")


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param(Inside(answer(usage=USED)), id="JSON"),
        pytest.param(Inside(event("", usage=USED), DONE, content_type=EVENTS), id="a stream"),
        pytest.param(Inside(event("", usage=USED), DONE, b"", content_type=EVENTS), id="a stream and an empty end"),
    ],
)
async def test_it_is_charged_once_and_before_the_last_bytes_are_sent(inside: Inside) -> None:
    metered = await Metered(inside).run()
    assert metered.happened[-2:] == ["charged", "last bytes"]
    assert metered.happened.count("charged") == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_failure_costs_nothing(status: int) -> None:
    metered = await Metered(Inside(answer(usage=USED), status=status)).run()
    assert metered.charges == []
    assert metered.client.status == status


async def test_an_error_in_the_clothes_of_a_success_is_no_usage() -> None:
    metered = await Metered(Inside(b'{"error": {"message": "no"}}')).run()
    assert (metered.charge.quota, metered.charge.ending) == (0, "truncated")


async def test_an_exception_before_the_first_byte_costs_nothing() -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    metered = Metered(inside)
    with pytest.raises(RuntimeError):
        await metered.run()
    assert metered.charges == []


@pytest.mark.parametrize("raises", [True, False], ids=["the app raises", "the app just returns"])
async def test_a_stream_that_is_cut_costs_what_was_delivered(raises: bool) -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await Inside(event("a" * 35), event("b" * 35), content_type=EVENTS, ends=False)(scope, receive, send)
        if raises:
            raise ConnectionError

    metered = Metered(inside, call=call_of(stream=True))
    if raises:
        with pytest.raises(ConnectionError):
            await metered.run()
    else:
        await metered.run()
    charge = metered.charge
    assert (charge.ending, charge.usage.estimated, charge.usage.output_tokens) == ("truncated", True, 20)
    assert charge.usage.input_tokens > 0
    assert charge.quota == charge.usage.input_tokens + 4 * 20


async def test_an_answer_without_usage_is_estimated() -> None:
    metered = await Metered(Inside(answer(text="x" * 35)), call=call_of()).run()
    assert (metered.charge.usage.estimated, metered.charge.usage.output_tokens) == (True, 10)
    assert metered.charge.quota > 0


async def test_counting_takes_none_of_the_callers_time() -> None:
    counted: list[int] = []

    class Slow:
        async def count(self, read: Callable[[], Texts], model: str) -> Counted:
            await asyncio.sleep(0.3)
            counted.append(1)
            return Counted(7)

    metered = await Metered(Inside(answer()), call=call_of(), counting=Counting(Slow())).run()
    assert (counted, metered.charge.usage.input_tokens) == ([1], 7)
    assert metered.charge.duration < 0.3


async def test_a_model_without_a_price_is_refused_before_the_app_is_called() -> None:
    inside = Inside()
    with pytest.raises(BadRequest) as caught:
        await Metered(inside, call=call_of("gpt-9")).run()
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "model_price_error", "model")
    assert inside.calls == 0


async def test_a_conversation_at_a_price_by_the_minute_is_refused() -> None:
    inside = Inside()
    with pytest.raises(BadRequest) as caught:
        await Metered(inside, call=call_of("voxtral-mini-latest")).run()
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "model_price_error", "model")
    assert inside.calls == 0


async def test_a_model_without_a_price_is_served_for_nothing_where_that_is_allowed() -> None:
    options = Live(Options(accept_unknown_models=True))
    metered = await Metered(Inside(answer("gpt-9", USED)), call=call_of("gpt-9"), options=options).run()
    assert (metered.charge.quota, metered.charge.tariff, metered.charge.usage) == (0, None, Usage(100, 50))
    assert metered.charge.tariff is None


@pytest.mark.parametrize(
    ("model", "base_model", "quota"),
    [
        pytest.param("o3-high", "o3", 1500, id="the full name's price first"),
        pytest.param("o3-low", "o3", 150, id="else the base model's"),
    ],
)
async def test_a_name_with_a_suffix_has_its_price(model: str, base_model: str, quota: int) -> None:
    metered = await Metered(Inside(answer("o3", USED)), call=call_of(model, base_model=base_model)).run()
    assert (metered.charge.quota, metered.charge.model) == (quota, model)


@pytest.mark.parametrize(
    ("user_group", "group", "quota"),
    [("default", "default", 300), ("default", "cheap", 150), ("staff", "cheap", 0), ("default", "dear", 900)],
)
async def test_the_groups_ratio_applies(user_group: str, group: str, quota: int) -> None:
    ratios = GroupRatios(ratios={"default": D(1), "cheap": D("0.5"), "dear": D(3)}, special={"staff": {"cheap": D(0)}})
    principal = replace(ALICE, group=group, user_group=user_group)
    metered = await Metered(Inside(answer(usage=USED)), call=call_of(), principal=principal, ratios=ratios).run()
    assert metered.charge.quota == quota
    assert metered.charge.principal == principal


async def hold_of(balance: int) -> tuple[MemoryLedger, Hold]:
    ledger = MemoryLedger(users={1: balance})
    return ledger, await ledger.open(ALICE, "")


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        pytest.param({"output_limit": 1000}, 1000, id="the caller's limit"),
        pytest.param({"output_limit": 1000, "choices": 3}, 3000, id="for each choice"),
        pytest.param({"output_limit": 0}, 0, id="a limit of 0"),
        pytest.param({}, Options().default_max_tokens, id="the default where the caller sets none"),
    ],
)
async def test_what_it_may_cost_is_held_before_the_app_is_called(fields: dict[str, int], output: int) -> None:
    ledger, hold = await hold_of(10_000_000)
    held: list[int] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        held.append(ledger.users[1].held)
        await Inside(answer(usage=USED))(scope, receive, send)

    await Metered(inside, call=call_of(body=b"x" * 300, **fields), hold=hold).run()
    (quota,) = held
    assert quota == 101 + 4 * output
    assert (ledger.users[1].held, ledger.users[1].balance) == (0, 10_000_000 - 300)


async def test_who_cannot_cover_it_is_refused_before_the_app_is_called() -> None:
    ledger, hold = await hold_of(100)
    inside = Inside(answer(usage=USED))
    with pytest.raises(InsufficientQuota) as caught:
        await Metered(inside, call=call_of(output_limit=1000), hold=hold).run()
    assert caught.value.status == 402
    assert inside.calls == 0
    assert (ledger.users[1].balance, ledger.users[1].held) == (100, 0)


async def test_pictures_are_held_for() -> None:
    _, hold = await hold_of(50_000)
    call = call_of(
        "painter", operation=IMAGES, choices=2, document={"prompt": "a cat", "size": "1024x1024", "quality": "hd"}
    )
    with pytest.raises(InsufficientQuota, match=r"may cost \$0\.16"):
        await Metered(Inside(), call=call, hold=hold, path=IMAGES.path).run()


def telling(outcome: Outcome, *pieces: bytes, status: int = 200) -> Any:
    """An app that says how its answer ended before it sends anything."""

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        state_of(scope).outcome = outcome
        await Inside(*pieces, status=status)(scope, receive, send)

    return inside


@pytest.mark.parametrize(
    ("size", "quality", "quota"), [("", "", 60_000), ("1024x1024", "hd", 120_000), ("512x512", "", 60_000)]
)
async def test_pictures_are_charged_by_the_piece(size: str, quality: str, quota: int) -> None:
    document = {"prompt": "a cat", "size": size, "quality": quality}
    call = call_of("painter", operation=IMAGES, choices=9, document=document)
    metered = await Metered(telling(Outcome("completed", None, images=3)), call=call, path=IMAGES.path).run()
    assert (metered.charge.quota, metered.charge.usage.images) == (quota, 3)


@pytest.mark.parametrize(
    ("used", "cost"),
    [
        (Usage(1, 0), b"0.000002"),
        (Usage(100, 50), b"0.000600"),
        (Usage(499_999, 0), b"0.999998"),
        (Usage(500_000, 0), b"1.000000"),
        (Usage(6_172_839, 0), b"12.345678"),
    ],
)
async def test_the_cost_is_told_exactly_where_it_is_known_in_time(used: Usage, cost: bytes) -> None:
    call = call_of(body=b"x" * 7_000_000)  # a prompt has no more tokens than bytes
    metered = await Metered(telling(Outcome("completed", used)), call=call).run()
    assert metered.client.headers[b"x-tollway-cost"] == cost
    assert metered.happened == ["charged", "bytes", "last bytes"]


@pytest.mark.parametrize("ending", ["completed", "failed", "truncated", "cancelled"])
async def test_how_the_answer_ended_is_kept(ending: Ending) -> None:
    outcome = Outcome(ending, Usage(10, 1), upstream_model="gpt-4o-2024-08-06")
    charge = (await Metered(telling(outcome), call=call_of()).run()).charge
    assert (charge.ending, charge.upstream_model, charge.quota) == (ending, "gpt-4o-2024-08-06", 14)


async def test_a_refusal_with_an_outcome_costs_nothing_and_tells_no_cost() -> None:
    metered = await Metered(telling(Outcome("failed", None), status=400), call=call_of()).run()
    assert metered.charges == []
    assert b"x-tollway-cost" not in metered.client.headers


@pytest.mark.parametrize(
    "scope",
    [{"type": "lifespan"}, scope_of("/health"), scope_of("/v1/models", method="GET")],
    ids=["lifespan", "another path", "an operation that costs nothing"],
)
async def test_everything_else_passes(scope: Message) -> None:
    charges: list[Charge] = []
    client, inside = Client(), Inside(answer(usage=USED))
    await MeteringMiddleware(inside, prices=BOOK, on_charge=charges.append)(scope, client.receive, client.send)
    assert inside.calls == 1
    assert charges == []


async def test_embeddings_hold_for_their_input_only() -> None:
    ledger, hold = await hold_of(150)
    call = call_of(operation=BY_PATH["/v1/embeddings"], body=b"x" * 300, document={"input": "x" * 280})
    await Metered(Inside(answer(usage={"prompt_tokens": 80})), call=call, hold=hold, path="/v1/embeddings").run()
    assert ledger.users[1].balance == 70


# --- which price

OLD_YEAR, NEW_YEAR = datetime(2001, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
DATED = Price(
    "gpt-4o",
    input=D(2),
    periods=(
        PricePeriod(None, OLD_YEAR, Price("gpt-4o", input=D(200))),
        PricePeriod(OLD_YEAR, NEW_YEAR, Price("gpt-4o", input=D(20))),
    ),
)


async def test_the_price_is_the_one_in_force_when_the_call_began() -> None:
    metered = await Metered(Inside(answer(usage=USED)), call=call_of(), prices=PriceBook({"gpt-4o": DATED})).run()
    assert metered.charge.quota == 1000
    assert metered.charge.tariff is not None
    assert metered.charge.tariff.price is DATED.periods[1].price


def test_a_tariff_is_of_its_time() -> None:
    layer = MeteringMiddleware(Inside(), prices=PriceBook({"gpt-4o": DATED}))
    found = [layer.tariff(None, None, "gpt-4o", "gpt-4o", time) for time in (0.0, 2e9, 5e9, 2e9)]
    assert [tariff.price.input for tariff in found if tariff is not None] == [200, 20, 2, 20]
    assert found[1] is found[3]


CACHED = Price("listed", input=D(2), output=D(8), cached_input=D(1))
OWN_RATIO = Price("own", input=D(2), output=D(8), prompt_cache_ratio=D("0.25"))


@pytest.mark.parametrize(
    ("model", "of_channel", "of_system", "quota"),
    [
        pytest.param("listed", None, None, 50, id="as priced"),
        pytest.param("own", None, None, 25, id="the price's own ratio"),
        pytest.param("listed", None, "0.1", 10, id="the system's goes before a listed price"),
        pytest.param("own", None, "0.1", 25, id="but not before a model's own ratio"),
        pytest.param("listed", "0.9", None, 90, id="the channel's goes before the list"),
        pytest.param("listed", "0.9", "0.1", 90, id="and before the system's"),
        pytest.param("own", "0.9", "0.1", 90, id="and before the model's"),
        pytest.param("own", "0", "0.1", 0, id="a channel that gives them away"),
        pytest.param("listed", None, "0", 0, id="a system that gives them away"),
        pytest.param("listed", None, "1", 100, id="a system without a discount"),
    ],
)
async def test_the_cache_ratio_is_that_of_the_channel_else_the_model_else_the_system(
    model: str, of_channel: str | None, of_system: str | None, quota: int
) -> None:
    book = PriceBook({"listed": CACHED, "own": OWN_RATIO})
    options = Options(prompt_cache_ratio=None if of_system is None else D(of_system))
    used = {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 100}}
    metered = Metered(
        Inside(json.dumps({"model": model, "choices": [], "usage": used}).encode()),
        call=call_of(model),
        prices=book,
        options=Live(options),
    )
    given = channel(1, model, prompt_cache_ratio=None if of_channel is None else D(of_channel))
    state_of(metered.scope).attempt = Attempt(Candidate(given, 0), 1)
    charge = (await metered.run()).charge
    assert charge.quota == quota + 4
    assert charge.tariff is not None
    assert charge.tariff.price is book.prices[model]


async def test_a_price_that_changes_in_mid_call_does_not_change_its_charge() -> None:
    prices = Live(BOOK)
    options = Live(Options())

    class Current:
        def price_for(self, model: str, base_model: str) -> Price | None:
            return prices.current.price_for(model, base_model)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        prices.swap(BOOK.merged({"gpt-4o": Price("gpt-4o", input=D(2000), output=D(8000))}))
        options.swap(Options(prompt_cache_ratio=D(0)))
        await Inside(answer(usage=USED))(scope, receive, send)

    first = await Metered(inside, call=call_of(), prices=Current(), options=options).run()
    assert first.charge.quota == 300
    second = await Metered(inside, call=call_of(), prices=Current(), options=options).run()
    assert second.charge.quota == 300_000


async def test_tools_are_charged_by_the_call() -> None:
    used: Any = {**USED, "server_tool_use": {"web_search_requests": 3}}
    book = BOOK.merged({"gpt-4o": Price("gpt-4o", input=D(2), output=D(8), tools={"web_search": D(10)})})
    charge = (await Metered(Inside(answer(usage=used)), call=call_of(), prices=book).run()).charge
    assert charge.quota == 300 + 15_000
    assert charge.usage.tool_calls == (("web_search", 3),)


@pytest.mark.parametrize(
    "used",
    [
        pytest.param({"prompt_tokens": -5, "completion_tokens": -5}, id="negative"),
        pytest.param({"prompt_tokens": 10**12, "completion_tokens": 10**12}, id="absurd"),
    ],
)
@pytest.mark.parametrize("called", [True, False], ids=["behind intake", "alone"])
async def test_a_report_that_cannot_be_true_is_suspicious_and_no_credit(used: dict[str, int], called: bool) -> None:
    body = answer(usage=used, text="x" * 350)
    charge = (await Metered(Inside(body), call=call_of() if called else None).run()).charge
    assert charge.usage.suspicious
    assert charge.quota > 0
    assert charge.usage.output_tokens >= 100
