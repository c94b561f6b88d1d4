"""Sizes the hold before the call, reads the usage as the answer passes, charges before the last bytes leave."""

import time
from collections.abc import Callable
from decimal import Decimal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.answers import header
from ..adapters.errors import BadRequest, UpstreamError
from ..adapters.estimate import settled_usage
from ..adapters.operations import Operation
from ..adapters.watch import AnswerWatch
from ..config.amounts import QUOTA_PER_USD
from ..config.groups import GroupRatios
from ..config.live import Live
from ..config.options import Options
from ..config.pricing import Usage
from ..config.tariff import Tariff
from .paths import address_of, operation_of
from .ports import Prices, Ratios
from .reservation import reservation
from .state import Charge, Outcome, Principal, RelayState, state_of

MOST_TARIFFS = 4096

OnCharge = Callable[[Charge], None]


class MeteringMiddleware:
    """
    Charge each answer once, by the usage that it reports. Writes `charge`, settles `hold`.

    Reads `call`, `hold`, `principal`, `attempt` and `outcome` where they are there. Alone around an app that speaks
    OpenAI's protocol it needs none of them: it tells the operation by the path and reads model and usage from the
    answer. An answer that reports no usage is estimated, and says so; a failure before the first byte costs nothing;
    one after it costs what was delivered. The charge is recorded before the last bytes are sent: who has seen the end
    of an answer has been charged for it.

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
        on_charge: OnCharge | None = None,
    ) -> None:
        self.app = app
        self.prices = prices
        self.ratios = ratios or GroupRatios()
        self.options = options or Live(Options())
        self.on_charge = on_charge
        self._tariffs: dict[tuple[str, Decimal], Tariff] = {}

    def tariff(self, principal: Principal | None, model: str, base_model: str) -> Tariff | None:
        """The model's price at the caller's ratio; None for a model without a price."""
        price = self.prices.price_for(model, base_model)
        if price is None:
            return None
        user_group, group = (principal.user_group, principal.group) if principal is not None else ("default", "default")
        ratio = self.ratios.ratio(user_group, group)
        key = (price.version, ratio)
        tariff = self._tariffs.get(key)
        if tariff is None:
            if len(self._tariffs) >= MOST_TARIFFS:
                self._tariffs.clear()
            tariff = self._tariffs[key] = Tariff(price, ratio)
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
                await meter.finish()
            raise
        except BaseException:
            await meter.finish()
            raise
        if not meter.finished:
            await meter.finish()


class _Meter:
    """The metering of one attempt."""

    tariff: Tariff | None = None
    watch: AnswerWatch | None = None
    status = 0
    first_byte: float | None = None
    finished = False

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
        tariff = self.tariff = layer.tariff(state.principal, call.model, call.base_model)
        if tariff is None:
            if not options.accept_unknown_models:
                raise BadRequest(
                    f"The model {call.model!r} has no price, so it is not served.",
                    param="model",
                    code="model_price_error",
                )
        elif state.hold is not None:
            await state.hold.reserve(reservation(call, tariff, options))

    def send(self, message: Message):
        if message["type"] == "http.response.body":
            if self.watch is not None:
                self.watch.feed(message.get("body", b""))
            if not self.finished and not message.get("more_body", False):
                return self.settle_and_send(message)
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = time.perf_counter() - self.started
            if self.state.outcome is not None:
                return self.settle_and_start(message)
            if not self.state.watched:
                self.watch = AnswerWatch(header(message.get("headers", ()), b"content-type"), self.operation.ends)
        return self.to_client(message)

    async def settle_and_start(self, message: Message) -> None:
        """The whole answer is known before its head is sent, and so is what it costs."""
        await self.finish()
        charge = self.state.charge
        if charge is not None:
            message = {**message, "headers": [*message.get("headers", ()), (b"x-tollway-cost", usd(charge.quota))]}
        await self.to_client(message)

    async def settle_and_send(self, message: Message) -> None:
        await self.finish()
        await self.to_client(message)

    async def finish(self) -> None:
        """Charge once, if there is anything to charge: an answer that succeeded, or a part of one."""
        if self.finished:
            return
        self.finished = True
        state = self.state
        outcome = state.outcome or self.watched()
        if outcome is None or self.status >= 400:
            return
        charge = state.charge = self.charge(outcome)
        if state.hold is not None:
            await state.hold.settle(charge)
        if self.layer.on_charge is not None:
            self.layer.on_charge(charge)

    def watched(self) -> Outcome | None:
        """How an answer of an app that is not ours ended; None when there was none."""
        if self.watch is None:
            return None
        usage, delivered, whole = self.watch.finish()
        if self.tariff is None:
            self.tariff = self.layer.tariff(self.state.principal, self.watch.model, self.watch.model)
        return Outcome("completed" if whole else "truncated", usage, delivered, self.watch.model)

    def charge(self, outcome: Outcome) -> Charge:
        state = self.state
        call, tariff = state.call, self.tariff
        if call is not None:
            usage = settled_usage(
                call,
                outcome.usage,
                delivered_tokens=outcome.delivered_tokens,
                images=outcome.images,
                audio_bytes=outcome.audio_bytes,
                seconds=outcome.seconds,
                price=tariff.price if tariff is not None else None,
            )
        else:
            usage = outcome.usage or Usage(output_tokens=outcome.delivered_tokens, estimated=True)
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
            duration=time.perf_counter() - self.started,
            first_byte=self.first_byte,
            request_id=state.request_id,
            address=address_of(self.scope),
            principal=state.principal,
            attempt=state.attempt,
            upstream_model=outcome.upstream_model,
        )


def usd(quota: int) -> bytes:
    """Quota in dollars, exactly: 1 quota is $0.000002."""
    return b"%d.%06d" % (quota // QUOTA_PER_USD, quota % QUOTA_PER_USD * (1_000_000 // QUOTA_PER_USD))
