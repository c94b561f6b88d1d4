"""Sizes the hold before the call, reads the usage as the answer passes, charges before the last bytes leave."""

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal

from msgspec.structs import replace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.answers.headers import header
from ..adapters.answers.unpacking import Unpack, unpacking
from ..adapters.answers.watch import AnswerWatch
from ..adapters.call import Call
from ..adapters.errors import InsufficientQuota, UpstreamError
from ..adapters.operations import Operation
from ..adapters.requests.upstream_request import as_sent
from ..adapters.usage.chargeable import MOST_UNSEEN, is_sold, settled_usage
from ..adapters.usage.token_estimates import Sent
from ..config.amounts import MICRODOLLARS_PER_QUOTA, QUOTA_PER_USD, dollars
from ..config.channel import Channel
from ..config.groups import GroupRatios
from ..config.live import Live
from ..config.options import Options
from ..config.pricing import Usage
from ..config.tariff import Tariff
from .counting import Counting
from .paths import address_of, operation_of
from .ports import Prices, Ratios
from .reservation import (
    can_be_limited,
    clamped,
    is_mostly_output,
    limited,
    no_price,
    one_token,
    reservation,
    within_limit,
)
from .state import Charge, Hold, Outcome, Principal, RelayState, state_of

MOST_TARIFFS = 4096

OnCharge = Callable[[Charge], None]


class MeteringMiddleware:
    """
    Charge each answer once, by the usage that it reports. Writes `charge`, settles `hold`.

    Reads `call`, `hold`, `principal`, `attempt` and `outcome` where they are there. Alone around an app that speaks
    OpenAI's protocol it needs none of them: it tells the operation by the path and reads model and usage from the
    answer, also from one in gzip or deflate. An answer that reports no usage is estimated, and says so; a failure
    before the first byte costs nothing; one after it costs what was delivered. The charge is recorded before the last
    bytes are sent: who has seen the end of an answer has been charged for it.

    Place it inside failover, directly around what performs the call; `on_charge` is told of each charge.

        app = MeteringMiddleware(app, prices=PriceBook.builtin(), on_charge=print)
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prices: Prices,
        ratios: Ratios | None = None,
        options: Live[Options] | None = None,
        counting: Counting | None = None,
        on_charge: OnCharge | None = None,
    ) -> None:
        self.app = app
        self.prices = prices
        self.ratios = ratios or GroupRatios()
        self.options = options or Live(Options())
        self.counting = counting
        self.on_charge = on_charge
        self._tariffs: dict[tuple[str, int | None, Decimal, Decimal | None], Tariff] = {}

    def tariff(
        self, principal: Principal | None, channel: Channel | None, model: str, base_model: str, now: float
    ) -> Tariff | None:
        """
        The model's price that is in force now, in seconds since the epoch, at the caller's ratio and the ratio of
        cached input of the channel, else the price's own, else the option's; None for a model without a price.
        """
        price = self.prices.price_for(model, base_model)
        if price is None:
            return None
        if price.periods:
            price = price.at(now)
        user_group, group = (principal.user_group, principal.group) if principal is not None else ("default", "default")
        ratio = self.ratios.ratio(user_group, group)
        cache_ratio = None if channel is None else channel.prompt_cache_ratio
        if cache_ratio is None and price.prompt_cache_ratio is None:
            cache_ratio = self.options.current.prompt_cache_ratio
        key = (price.version, price.max_output, ratio, cache_ratio)
        tariff = self._tariffs.get(key)
        if tariff is None:
            if len(self._tariffs) >= MOST_TARIFFS:
                self._tariffs.clear()
            tariff = self._tariffs[key] = Tariff(price, ratio, cache_ratio)
        return tariff

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        state = state_of(scope)
        call = state.call
        operation = call.operation if call is not None else operation_of(scope)
        if operation is None or not operation.relayed:
            return await self.app(scope, receive, send)
        meter = _Meter(self, scope, state, operation, send)
        await meter.reserve()
        try:
            await self.app(scope, receive, meter.send)
        except UpstreamError:
            if meter.status:  # it failed behind its first byte: what was delivered is charged
                await meter.finish(self.counting)
            raise
        except asyncio.CancelledError:
            await meter.finish(counting=None)  # the process ends: there is no time for it
            raise
        except BaseException:
            await meter.finish(self.counting)
            raise
        if not meter.finished:
            await meter.finish(self.counting)


class _Meter:
    """The metering of one attempt."""

    tariff: Tariff | None = None
    watch: AnswerWatch | None = None
    unpack: Unpack | None = None
    """Makes of what passes what the watch can read."""
    status = 0
    first_byte: float | None = None
    finished = False
    duration = 0.0
    """Seconds until the answer's end: what is counted after it takes none of the caller's time."""

    def __init__(
        self, layer: MeteringMiddleware, scope: Scope, state: RelayState, operation: Operation, send: Send
    ) -> None:
        self.layer = layer
        self.scope = scope
        self.state = state
        self.operation = operation
        self.to_client = send
        self.started = time.perf_counter()
        self.started_at = time.time()

    async def reserve(self) -> None:
        """Hold what the call may cost. Raises `BadRequest` for a model without a price, `InsufficientQuota`."""
        state, layer = self.state, self.layer
        call = state.call
        if call is None:
            return
        options = layer.options.current
        channel = None if state.attempt is None else state.attempt.channel
        tariff = self.tariff = layer.tariff(state.principal, channel, call.model, call.base_model, self.started_at)
        if tariff is not None and not is_sold(call.operation, tariff.price):
            tariff = self.tariff = None
        if tariff is None:
            if not options.accept_unknown_models:
                raise no_price(call)
        elif state.hold is not None:
            if options.clamp_max_tokens and can_be_limited(call, channel):
                await self.reserve_within(state.hold, limited(call, tariff, options), tariff, options, channel)
            else:
                await self.reserve_whole(state.hold, call, tariff, options, channel)

    async def reserve_whole(
        self, hold: Hold, call: Call, tariff: Tariff, options: Options, channel: Channel | None
    ) -> None:
        """Hold what the call may cost. Raises `InsufficientQuota`, which says how it may cost less."""
        quota = reservation(call, tariff, options, channel)
        try:
            await hold.reserve(quota)
        except InsufficientQuota as refusal:
            if is_mostly_output(call, quota, tariff, channel):
                refusal.message += " Send a smaller max_tokens: most of it is for the answer."
            raise

    async def reserve_within(
        self, hold: Hold, call: Call, tariff: Tariff, options: Options, channel: Channel | None
    ) -> None:
        """Hold what the call may cost, or what there is, and limit the call to that. Raises `InsufficientQuota`."""
        try:
            await hold.reserve(reservation(call, tariff, options, channel))
        except InsufficientQuota as refusal:
            smaller = clamped(call, tariff, hold.available(), channel)
            if smaller is None:
                refusal.message += f" An answer of one token may cost {dollars(one_token(call, tariff, channel))}."
                raise
            call, quota = smaller
            await hold.reserve(quota)
        self.state.call = call

    def send(self, message: Message):
        if message["type"] == "http.response.body":
            if self.watch is not None:
                data = message.get("body", b"")
                if type(data) is not bytes:
                    data = bytes(data)  # Starlette's streams may be of memoryviews too
                self.watch.feed(data if self.unpack is None else self.unpack(data))
            if not message.get("more_body", False) and not self.finished:
                return self.settle_and_send(message)
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = time.perf_counter() - self.started
            if self.state.outcome is not None:
                return self.settle_and_start(message)
            if not self.state.watched:
                headers = [*message.get("headers", ())]  # ASGI lets an app give what can be read once only
                self.watch = AnswerWatch(header(headers, b"content-type"), self.operation.ends)
                self.unpack = unpacking(header(headers, b"content-encoding"))
                message = {**message, "headers": headers}
        return self.to_client(message)

    async def settle_and_start(self, message: Message) -> None:
        """The whole answer is known before its head is sent, and so is what it costs."""
        await self.finish(self.layer.counting)
        charge = self.state.charge
        if charge is not None:
            message = {**message, "headers": [*message.get("headers", ()), (b"x-tollway-cost", usd(charge.quota))]}
        await self.to_client(message)

    async def settle_and_send(self, message: Message) -> None:
        await self.finish(self.layer.counting)
        await self.to_client(message)

    async def finish(self, counting: Counting | None) -> None:
        """
        Charge once, if there is anything to charge: an answer that succeeded, or a part of one. What has to be
        estimated is counted with `counting`.
        """
        if self.finished:
            return
        self.finished = True
        self.duration = time.perf_counter() - self.started
        state = self.state
        outcome = state.outcome or self.watched()
        if outcome is None or self.status >= 400:
            return
        sent = delivered = None
        call = state.call
        usage = self.usage(outcome)
        try:
            if usage.estimated and call is not None and counting is not None:
                sent, delivered = await counting.count(call, outcome, usage)
        finally:
            # Also when the counting is broken off: then the estimate stands.
            await self.settle(outcome, usage if sent is delivered is None else self.usage(outcome, sent, delivered))

    async def settle(self, outcome: Outcome, usage: Usage) -> None:
        state = self.state
        if usage.estimated and self.layer.options.current.clamp_max_tokens:
            usage = self.covered(outcome, usage)
        charge = state.charge = self.charge(outcome, usage)
        if state.hold is not None:
            await state.hold.settle(charge)
        if self.layer.on_charge is not None:
            self.layer.on_charge(charge)

    def covered(self, outcome: Outcome, usage: Usage) -> Usage:
        """The usage, within the limit that the call had if our count of it would take the balance below zero."""
        call, hold, tariff, attempt = self.state.call, self.state.hold, self.tariff, self.state.attempt
        if call is None or hold is None or tariff is None or tariff.quota(usage) <= hold.available():
            return usage
        return within_limit(usage, outcome.usage, call, None if attempt is None else attempt.channel)

    def watched(self) -> Outcome | None:
        """How an answer of an app that is not ours ended; None when there was none."""
        if self.watch is None:
            return None
        usage, delivered, whole = self.watch.finish()
        if self.tariff is None:
            self.tariff = self.layer.tariff(
                self.state.principal, None, self.watch.model, self.watch.model, self.started_at
            )
        return Outcome("completed" if whole else "truncated", usage, delivered, self.watch.model)

    def usage(self, outcome: Outcome, sent: Sent | None = None, delivered: int | None = None) -> Usage:
        """What to charge for: by the counts `sent` and `delivered` where there are any."""
        call, tariff, attempt = self.state.call, self.tariff, self.state.attempt
        if call is None:
            return _as_reported(outcome)
        return settled_usage(
            call if attempt is None else as_sent(call, attempt.channel),
            outcome.usage,
            delivered_tokens=outcome.delivered_tokens if delivered is None else delivered,
            images=outcome.images,
            audio_bytes=outcome.audio_bytes,
            seconds=outcome.seconds,
            price=tariff.price if tariff is not None else None,
            sent=sent,
            model=outcome.upstream_model,
        )

    def charge(self, outcome: Outcome, usage: Usage) -> Charge:
        state = self.state
        call, tariff = state.call, self.tariff
        return Charge(
            quota=tariff.quota(usage) if tariff is not None else 0,
            usage=usage,
            tariff=tariff,
            ending=outcome.ending,
            operation=self.operation.name,
            model=call.model if call is not None else outcome.upstream_model,
            stream=call.stream if call is not None else False,
            status=self.status or 499,
            started_at=self.started_at,
            duration=self.duration,
            first_byte=self.first_byte,
            request_id=state.request_id,
            address=address_of(self.scope),
            principal=state.principal,
            attempt=state.attempt,
            upstream_model=outcome.upstream_model,
        )


def _as_reported(outcome: Outcome) -> Usage:
    """The usage of an answer whose request nobody has read: as reported, unless far more than that was delivered."""
    usage, delivered = outcome.usage or Usage(estimated=True), outcome.delivered_tokens
    if delivered > MOST_UNSEEN * usage.output_tokens:
        return replace(usage, output_tokens=delivered, estimated=True)
    return usage


def usd(quota: int) -> bytes:
    """Quota in dollars, exactly: 1 quota is $0.000002."""
    return b"%d.%06d" % (quota // QUOTA_PER_USD, quota % QUOTA_PER_USD * MICRODOLLARS_PER_QUOTA)
