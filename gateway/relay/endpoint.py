"""
The relay endpoint: the one generic streaming proxy.

It asks the upstream that failover has chosen, and passes the answer on as it comes. A failure before the first byte is
raised, so that another channel can be tried; a failure after it is told inside the stream. Everything about dialects
and providers is decided by the adapters; this file only moves bytes.
"""

import asyncio
import time
from functools import partial

from starlette.types import Receive, Scope, Send

from ...adapters.answers.content import answer_text, sound_bytes
from ...adapters.answers.delivered_texts import Delivered, answer_texts
from ...adapters.answers.headers import header, passed_headers
from ...adapters.answers.refusals import refusal
from ...adapters.answers.sse import has_event
from ...adapters.answers.watch import StreamWatch, begins_with_error, names_error, read_answer
from ...adapters.error_envelope import error_event
from ...adapters.errors import GatewayError, UpstreamError, UpstreamGarbage, UpstreamTruncated
from ...adapters.json_shapes import list_of
from ...adapters.media.recording_length import duration_of
from ...adapters.outgoing import Headers
from ...adapters.requests.upstream_request import UpstreamRequest, UpstreamRequestBuilder, as_sent
from ...adapters.usage.chargeable import is_doubtful
from ...adapters.usage.reported import read_usage
from ...adapters.usage.token_estimates import estimate_text
from ...middleware.state import Attempt, Ending, Outcome, RelayState, missing, state_of
from ..upstream.port import Incoming, Timeouts, Upstream
from .hang_up import HangUps

MOST_ERROR_BYTES = 1024 * 1024
MOST_COMMENTS = 1024 * 1024
"""Bytes of comments before a stream's first event: keep-alives of a slow model, not a way to fill the memory."""
LINGER = 1.0
"""Seconds that a finished stream's connection may take to end, so that it can be used again."""
FAREWELL = 2.0
"""Seconds to wait for the usage of an answer that was whole when its client left."""
EVENTS, UNNAMED = b"text/event-stream", (b"text/plain", b"application/octet-stream")
"""The type of a stream, and what small servers call one that they have given no type of its own."""
BODILESS = frozenset({204, 205, 206})
"""Statuses that say something about the body which is not true of the one that we send."""
STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class RelayEndpoint:
    """
    Performs the current `attempt` of the current `call`, and says in `outcome` how the answer ended.

    `most_bytes` bounds an answer that is held in memory. Raises `UpstreamError` before the first byte.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        requests: UpstreamRequestBuilder,
        timeouts: Timeouts,
        most_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.upstream = upstream
        self.requests = requests
        self.timeouts = timeouts
        self.most_bytes = most_bytes
        self.hang_ups = HangUps(stall=timeouts.idle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = state_of(scope)
        call = state.call or missing("call", "IntakeMiddleware")
        attempt = state.attempt or missing("attempt", "FailoverMiddleware")
        channel = attempt.channel
        request = self.requests.build(call, channel, attempt.candidate.key_index)
        relay = _Relay(self, state, attempt, send, request, receive)
        state.watched = True
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
        except Exception:
            if relay.begun:
                # Some servers tell by an error of `send` that the client has left (ASGI 2.4): what passed is charged.
                relay.report("cancelled")
            raise
        finally:
            self.hang_ups.stop(relay.hang_up)
            if relay.farewell is not None:
                relay.farewell.cancel()
            if relay.incoming is not None:
                relay.incoming.close()


class _Relay:
    """One attempt."""

    incoming: Incoming | None = None
    watch: StreamWatch | None = None
    passed: Delivered | None = None
    gone = False
    stopped = False
    """We have cancelled our own task because the client left."""
    asked = False
    """The request has begun to go out, so the upstream may charge for it."""
    begun = False
    """The answer has begun to go out."""
    delivered = 0
    """Tokens of plain text that have passed; those of events are the watch's to know."""
    audio_bytes = 0
    farewell: asyncio.TimerHandle | None = None

    def __init__(
        self,
        endpoint: RelayEndpoint,
        state: RelayState,
        attempt: Attempt,
        send: Send,
        request: UpstreamRequest,
        receive: Receive,
    ) -> None:
        self.endpoint = endpoint
        self.state = state
        self.attempt = attempt
        self.send = send
        self.request = request
        self.operation = request.operation
        call = state.call
        self.streams = call is not None and call.stream and self.operation.asks_usage
        self.task = asyncio.current_task() or _no_task()
        self.hang_up = endpoint.hang_ups.watch(receive, self)

    def client_left(self) -> None:
        self.gone = True
        if self.attempt.channel.disconnect == "drain":
            return
        if self.watch is not None and self.watch.finished:
            # The client has all of its answer, and may have left for that reason. What it cost is about to be said.
            self.farewell = asyncio.get_running_loop().call_later(FAREWELL, self.give_up)
        else:
            self.give_up()

    def give_up(self) -> None:
        # Once the outcome is told, the answer is only being sent and charged: that is never broken off.
        if self.state.outcome is None:
            self.stop()

    def stop(self) -> None:
        """Break off, even the sending: the client left, or takes nothing any more."""
        self.gone = self.stopped = True
        self.task.cancel()

    def sent(self) -> None:
        self.asked = True

    async def run(self) -> None:
        endpoint = self.endpoint
        began = time.perf_counter()
        try:
            incoming = await endpoint.upstream.send(self.request.outgoing, endpoint.timeouts, self.sent)
        finally:
            self.state.waited += time.perf_counter() - began
        self.incoming = incoming
        if incoming.status >= 300:
            await self._refused(incoming)
        content_type = header(incoming.headers, b"content-type").lower()
        if content_type.startswith(EVENTS):
            await self._stream(incoming)
        elif self.streams and (not content_type or content_type.startswith(UNNAMED)):
            incoming.headers = [item for item in incoming.headers if item[0] != b"content-type"]
            incoming.headers.append((b"content-type", EVENTS))
            await self._stream(incoming)
        elif self.operation.media and not content_type.startswith(b"application/json"):
            await self._media(incoming, content_type)
        else:
            await self._document(incoming)

    async def read(self, incoming: Incoming) -> bytes:
        """What comes next, before our answer has begun."""
        began = time.perf_counter()
        try:
            return await incoming.read()
        finally:
            self.state.waited += time.perf_counter() - began

    async def read_all(self, incoming: Incoming, most: int) -> bytes:
        """The whole body. Raises `UpstreamGarbage` when it is larger than `most` bytes."""
        data = await self.read(incoming)
        if incoming.complete and len(data) <= most:
            rest = await incoming.read()
            return data + rest if rest else data
        parts: list[bytes] = []
        size = 0
        while data:
            parts.append(data)
            size += len(data)
            if size > most:
                raise UpstreamGarbage(f"The upstream's answer is larger than {most} bytes.")
            data = await self.read(incoming)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _refused(self, incoming: Incoming) -> None:
        body = await self.read_all(incoming, MOST_ERROR_BYTES)
        raise refusal(
            self.attempt.channel,
            incoming.status,
            incoming.headers,
            body,
            now=time.time(),
            request_body=self.request.outgoing.body,
        )

    async def _document(self, incoming: Incoming) -> None:
        """A JSON answer: read whole, looked at, then sent whole."""
        body = await self.read_all(incoming, self.endpoint.most_bytes)
        answer = read_answer(body, self.operation.holds)
        usage = read_usage(answer)
        delivered = audio_bytes = 0
        if is_doubtful(usage, len(body)):
            delivered, audio_bytes = estimate_text(answer_text(answer)), sound_bytes(answer)
        images, seconds = 0, None
        if self.operation.name.startswith("images_"):
            images = len(list_of(answer.get("data")))
        elif self.operation.media:
            seconds = duration_of(answer)
        self.report(
            "completed",
            Outcome(
                "completed",
                usage,
                delivered,
                self.request.upstream_model,
                images=images,
                audio_bytes=audio_bytes,
                seconds=seconds,
                read_texts=partial(answer_texts, answer) if delivered else None,
            ),
        )
        await self._start(incoming, [(b"content-length", b"%d" % len(body))])
        self.hang_up.sending = body
        await self.send({"type": "http.response.body", "body": body})

    async def _start(self, incoming: Incoming, more: Headers) -> None:
        headers = [*passed_headers(incoming.headers), *more]
        started = self.state.started
        if started:
            ours = time.perf_counter() - started - self.state.waited
            headers.append((b"x-tollway-overhead-ms", b"%.2f" % (ours * 1000)))
        status = 200 if incoming.status in BODILESS else incoming.status
        self.begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _media(self, incoming: Incoming, content_type: bytes) -> None:
        """Sound or text: passed on as it comes."""
        data = await self.read(incoming)
        if not data:
            raise UpstreamGarbage("The upstream answered 200 with nothing.")
        if content_type.startswith(b"text/html"):
            raise UpstreamGarbage("The upstream answered 200 with a web page.")
        is_text = content_type.startswith(b"text/")
        await self._start(incoming, [])
        try:
            while data:
                if is_text:
                    self.delivered += estimate_text(data.decode("utf-8", "replace"))
                else:
                    self.audio_bytes += len(data)
                await self._pass(data)
                data = await incoming.read()
        except UpstreamError:
            # Sound cannot tell of a failure inside: the connection breaks, so that nobody takes a part for the whole.
            self.report("truncated")
            raise
        self.report("completed")
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, incoming: Incoming) -> None:
        """Events: passed on as they come, from the first one that is no error."""
        call = self.state.call
        # The channel may ask for more answers than the client did, and each has an end.
        choices = as_sent(call, self.attempt.channel).choices if call is not None else 1
        delivered = Delivered()
        watch = StreamWatch(
            self.operation.ends, strip_usage=self.request.strip_usage, choices=choices, keep=delivered.add
        )
        passed = await self._first_events(incoming, watch)
        self.watch, self.passed = watch, delivered
        await self._start(incoming, STREAM_HEADERS)
        rest = self._pass_events(incoming, watch, passed)
        # What waits in this task wakes every layer with each event; in one of its own it leaves them asleep.
        await (rest if incoming.complete else asyncio.create_task(rest))

    async def _pass_events(self, incoming: Incoming, watch: StreamWatch, passed: bytes) -> None:
        """Pass on the first events, then all others, and tell the end."""
        failure: GatewayError | None = None
        # Written out, for it runs once an event: each call of ours here would cost every event a coroutine.
        send, hang_up = self.send, self.hang_up
        unsaid = self.attempt.channel.bytes_without_secrets
        if watch.failed:
            passed = unsaid(passed)
        try:
            while not watch.ended and not watch.broken:
                if passed and not self.gone:
                    hang_up.sending = passed
                    await send({"type": "http.response.body", "body": passed, "more_body": True})
                    hang_up.sending = None
                data = await incoming.read()
                passed = watch.feed(data) if data else watch.finish()
                if watch.failed:
                    passed = unsaid(passed)
                if not data:
                    break
            if watch.broken:
                failure = UpstreamTruncated("The upstream's stream broke off with an error.")
            elif not watch.ended and not watch.failed:
                failure = UpstreamTruncated("The upstream's stream broke off before its end.")
        except UpstreamError as error:
            passed, failure = b"", error
        if failure is not None:
            passed += error_event(failure, self.state.request_id)
        self.report("completed" if watch.ended and not watch.failed else "failed" if watch.failed else "truncated")
        self.hang_up.sending = passed
        await self.send({"type": "http.response.body", "body": passed, "more_body": False})
        self.hang_up.sending = None
        if failure is None:
            await self._linger(incoming)

    async def _first_events(self, incoming: Incoming, watch: StreamWatch) -> bytes:
        """Everything up to the first event with data. Raises `UpstreamError` if that is an error, or none comes."""
        comments: list[bytes] = []
        size = 0
        while True:
            data = await self.read(incoming)
            events = watch.feed(data) if data else watch.finish()
            if has_event(events) or names_error(events):
                break
            if not data:
                raise UpstreamTruncated("The upstream's stream ended before its first event.")
            comments.append(events)
            size += len(events)
            if size > MOST_COMMENTS:
                raise UpstreamGarbage("The upstream's stream began with more than 1 MiB of comments.")
        if (b"error" in events or b'"base_resp"' in events) and begins_with_error(events):
            raise UpstreamGarbage("The upstream's stream began with an error.")
        return b"".join((*comments, events)) if comments else events

    async def _pass(self, data: bytes) -> None:
        if not self.gone:
            self.hang_up.sending = data
            await self.send({"type": "http.response.body", "body": data, "more_body": True})
            self.hang_up.sending = None

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
        if self.state.outcome is not None or not self.asked:
            return
        if outcome is None:
            watch, usage, delivered, audio_bytes = self.watch, None, self.delivered, self.audio_bytes
            if watch is not None:
                usage = watch.usage
                if is_doubtful(usage, 0) or not watch.ended or (usage and watch.outgrows(usage.output_tokens)):
                    delivered, audio_bytes = watch.delivered_tokens(), watch.delivered_sound()
            outcome = Outcome(
                ending,
                usage,
                delivered,
                self.request.upstream_model,
                audio_bytes=audio_bytes,
                read_texts=self.passed.texts if delivered and self.passed is not None else None,
            )
        self.state.outcome = outcome


def _no_task() -> "asyncio.Task[None]":
    raise RuntimeError("the relay endpoint runs inside an asyncio task")
