"""
The relay endpoint: the one generic streaming proxy.

It asks the upstream that failover has chosen, and passes the answer on as it comes. A failure before the first byte is
raised, so that another channel can be tried; a failure after it is told inside the stream. Everything about dialects
and providers is decided by the adapters; this file only moves bytes.
"""

import asyncio
import time

from starlette.types import Receive, Scope, Send

from ...adapters.answers import header, passed_headers, refusal
from ...adapters.envelope import error_event
from ...adapters.errors import GatewayError, UpstreamError, UpstreamGarbage, UpstreamTruncated
from ...adapters.estimate import estimate_text
from ...adapters.exchange import Exchange, ExchangeBuilder
from ...adapters.outgoing import Headers
from ...adapters.usage import read_usage
from ...adapters.watch import StreamWatch, answer_text, first_document, has_error, has_event, read_answer
from ...middleware.state import ATTEMPT, CALL, OUTCOME, REQUEST_ID, STARTED, WATCHED, Ending, Outcome
from ..upstream.port import Incoming, Timeouts, Upstream
from .hang_up import HangUps

MOST_ERROR_BYTES = 1024 * 1024
LINGER = 1.0
"""Seconds that a finished stream's connection may take to end, so that it can be used again."""
STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class RelayEndpoint:
    """
    Performs the current ATTEMPT of the current CALL, and says in OUTCOME how the answer ended.

    `most_bytes` bounds an answer that is held in memory. Raises `UpstreamError` before the first byte.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        exchanges: ExchangeBuilder,
        timeouts: Timeouts,
        most_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.upstream = upstream
        self.exchanges = exchanges
        self.timeouts = timeouts
        self.most_bytes = most_bytes
        self.hang_ups = HangUps()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, attempt = CALL.get(scope), ATTEMPT.get(scope)
        exchange = self.exchanges.build(call, attempt.channel, attempt.candidate.key_index)
        relay = _Relay(self, scope, send, exchange, attempt.channel.disconnect == "drain")
        WATCHED.set(scope, True)
        hang_up = self.hang_ups.watch(receive, relay.client_left)
        try:
            await relay.run()
        except asyncio.CancelledError:
            relay.report("cancelled")
            if not relay.stopped or relay.task.uncancel() > 0:
                raise  # somebody else's cancellation: a shutdown, or the app we are mounted in
        except UpstreamError as failure:
            if relay.gone:
                failure.retryable = False  # nobody waits for what another channel would say
            raise
        finally:
            self.hang_ups.stop(hang_up)
            if relay.incoming is not None:
                relay.incoming.close()


class _Relay:
    """One attempt."""

    def __init__(self, endpoint: RelayEndpoint, scope: Scope, send: Send, exchange: Exchange, drain: bool) -> None:
        self.endpoint = endpoint
        self.scope = scope
        self.send = send
        self.exchange = exchange
        self.drain = drain
        self.call = CALL.get(scope)
        self.incoming: Incoming | None = None
        self.watch: StreamWatch | None = None
        self.gone = False
        self.stopped = False
        """We have cancelled our own task because the client left."""
        self.asked = False
        """The request has begun to go out, so the upstream may charge for it."""
        self.waited = 0.0
        self.task = asyncio.current_task() or _no_task()

    def client_left(self) -> None:
        self.gone = True
        # Once the outcome is told, the answer is only being sent and charged: that is never broken off.
        if not self.drain and OUTCOME.find(self.scope) is None:
            self.stopped = True
            self.task.cancel()

    def sent(self) -> None:
        self.asked = True

    async def run(self) -> None:
        endpoint, outgoing = self.endpoint, self.exchange.outgoing
        began = time.perf_counter()
        incoming = self.incoming = await endpoint.upstream.send(outgoing, endpoint.timeouts, self.sent)
        self.waited += time.perf_counter() - began
        if incoming.status >= 300:
            await self._refused(incoming)
        content_type = header(incoming.headers, b"content-type").lower()
        if content_type.startswith(b"text/event-stream"):
            await self._stream(incoming)
        elif self.call.operation.media and not content_type.startswith(b"application/json"):
            await self._media(incoming, content_type)
        else:
            await self._document(incoming)

    async def read(self, incoming: Incoming) -> bytes:
        began = time.perf_counter()
        data = await incoming.read()
        self.waited += time.perf_counter() - began
        return data

    async def read_all(self, incoming: Incoming, most: int) -> bytes:
        """The whole body. Raises `UpstreamGarbage` when it is larger than `most` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read(incoming):
            parts.append(data)
            size += len(data)
            if size > most:
                raise UpstreamGarbage(f"The upstream's answer is larger than {most} bytes.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _refused(self, incoming: Incoming) -> None:
        body = await self.read_all(incoming, MOST_ERROR_BYTES)
        channel = ATTEMPT.get(self.scope).channel
        raise refusal(channel, incoming.status, incoming.headers, body, now=time.time())

    async def _document(self, incoming: Incoming) -> None:
        """A JSON answer: read whole, looked at, then sent whole."""
        body = await self.read_all(incoming, self.endpoint.most_bytes)
        answer = read_answer(body)
        usage = read_usage(answer)
        data = answer.get("data")
        images = len(data) if isinstance(data, list) and self.call.operation.name.startswith("images_") else 0  # pyright: ignore[reportUnknownArgumentType]
        delivered = 0 if usage is not None else estimate_text(answer_text(answer))
        self.report(
            "completed", Outcome("completed", usage, delivered, self.exchange.upstream_model, images, self.waited)
        )
        await self._send_whole(incoming, body)

    async def _start(self, incoming: Incoming, more: Headers) -> None:
        headers = [*passed_headers(incoming.headers), *more]
        started = STARTED.find(self.scope)
        if started is not None:
            ours = time.perf_counter() - started - self.waited
            headers.append((b"x-tollway-overhead-ms", b"%.2f" % (ours * 1000)))
        await self.send({"type": "http.response.start", "status": incoming.status, "headers": headers})

    async def _send_whole(self, incoming: Incoming, body: bytes) -> None:
        await self._start(incoming, [(b"content-length", b"%d" % len(body))])
        await self.send({"type": "http.response.body", "body": body})

    async def _media(self, incoming: Incoming, content_type: bytes) -> None:
        """Sound or text: passed on as it comes."""
        data = await self.read(incoming)
        if not data:
            raise UpstreamGarbage("The upstream answered 200 with nothing.")
        if content_type.startswith(b"text/html"):
            raise UpstreamGarbage("The upstream answered 200 with a web page.")
        await self._start(incoming, [])
        try:
            while data:
                await self._pass(data)
                data = await self.read(incoming)
        except UpstreamError:
            # Sound cannot tell of a failure inside: the connection breaks, so that nobody takes a part for the whole.
            self.report("truncated")
            raise
        self.report("completed")
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, incoming: Incoming) -> None:
        """Events: passed on as they come, from the first one that is no error."""
        watch = StreamWatch(self.call.operation.ends, strip_usage=self.exchange.strip_usage)
        passed = await self._first_events(incoming, watch)
        self.watch = watch
        await self._start(incoming, STREAM_HEADERS)
        failure: GatewayError | None = None
        try:
            while not watch.ended:
                if passed:
                    await self._pass(passed)
                data = await self.read(incoming)
                if not data:
                    passed = watch.finish()
                    break
                passed = watch.feed(data)
            if not watch.ended and not watch.failed:
                failure = UpstreamTruncated("The upstream's stream broke off before its end.")
        except UpstreamError as error:
            passed, failure = b"", error
        if failure is not None:
            passed += error_event(failure, REQUEST_ID.find(self.scope) or "")
        self.report("completed" if watch.ended and not watch.failed else "failed" if watch.failed else "truncated")
        await self.send({"type": "http.response.body", "body": passed, "more_body": False})
        if failure is None:
            await self._linger(incoming)

    async def _first_events(self, incoming: Incoming, watch: StreamWatch) -> bytes:
        """Everything up to the first event with data. Raises `UpstreamError` if that is an error, or none comes."""
        passed = b""
        while not has_event(passed):
            data = await self.read(incoming)
            passed += watch.feed(data) if data else watch.finish()
            if not data and not has_event(passed):
                raise UpstreamTruncated("The upstream's stream ended before its first event.")
        document = first_document(passed)
        if document is not None and has_error(document):
            raise UpstreamGarbage("The upstream's stream began with an error.")
        return passed

    async def _pass(self, data: bytes) -> None:
        if not self.gone:
            await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def _linger(self, incoming: Incoming) -> None:
        """Read what little follows the end mark, so that the connection can be used again."""
        if incoming.complete:
            await incoming.read()
            return
        timer = asyncio.get_running_loop().call_later(LINGER, incoming.close)
        try:
            while await incoming.read():
                pass
        except UpstreamError:
            pass  # the client has its whole answer; only the connection is lost
        finally:
            timer.cancel()

    def report(self, ending: Ending, outcome: Outcome | None = None) -> None:
        """Say how the answer ended, unless that has been said, or nothing was asked."""
        if OUTCOME.find(self.scope) is not None or not self.asked:
            return
        if outcome is None:
            watch = self.watch
            usage = watch.usage if watch is not None else None
            delivered = watch.delivered_tokens() if watch is not None and usage is None else 0
            outcome = Outcome(ending, usage, delivered, self.exchange.upstream_model, 0, self.waited)
        OUTCOME.set(self.scope, outcome)


def _no_task() -> "asyncio.Task[None]":
    raise RuntimeError("the relay endpoint runs inside an asyncio task")
