"""
Tells operators: a warning in the log and, where they have one, a POST to their webhook. Nobody waits for either.

A notice that the webhook does not take is tried again a few times; that it was lost in the end is in the log. It stands
there in full before.
"""

import asyncio
import base64
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import orjson

from ..adapters.errors import UpstreamError
from ..adapters.outgoing import Outgoing
from ..config.secret import Secret
from .upstream.fast import FastTransport
from .upstream.port import Timeouts, Upstream
from .version import version

log = logging.getLogger("tollway.notices")

MOST_WAITING = 1_000
PAUSES_S = (1.0, 5.0, 25.0)
"""Before the second attempt and those after it."""
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=5.0, total=15.0)
LAST_NOTICES_S = 3.0
"""How long the end of a process waits for notices that are on their way."""
TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Notice:
    """`id` is the same whenever it is sent. `content` says all in one sentence, `values` the same for programs."""

    id: str
    type: str
    title: str
    content: str
    values: Mapping[str, str | int]
    at_ms: int

    def body(self) -> bytes:
        """As the webhook gets it; `timestamp` is in whole seconds since 1970."""
        return orjson.dumps(
            {
                "id": self.id,
                "type": self.type,
                "title": self.title,
                "content": self.content,
                "values": dict(self.values),
                "timestamp": self.at_ms // 1000,
            }
        )


def signature(secret: Secret, notice_id: str, sent_at: int, body: bytes) -> str:
    """
    Of a message that is sent at this second since 1970, by a secret that is base64 with or without `whsec_` before it.

    https://www.standardwebhooks.com: libraries for many languages check it.
    """
    key = base64.b64decode(secret.reveal().removeprefix("whsec_"))
    digest = hmac.digest(key, f"{notice_id}.{sent_at}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """An operator's URL, and the notices that it has yet to get. Redirects are not followed."""

    def __init__(
        self, url: Secret, upstream: Upstream, *, secret: Secret | None = None, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self._url = url
        self._upstream = upstream
        self._secret = secret
        self._pauses_s = pauses_s
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(MOST_WAITING)

    def put(self, notice: Notice) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(notice)
        except asyncio.QueueFull:
            log.error("the webhook does not get the notice %s: %d others wait", notice.id, MOST_WAITING)

    async def run(self) -> None:
        """Deliver, one after the other, until cancelled."""
        while True:
            notice = await self._waiting.get()
            try:
                await self._deliver(notice)
            except Exception:
                log.exception("the webhook could not be given the notice %s", notice.id)
            finally:
                self._waiting.task_done()

    async def delivered(self) -> None:
        """Wait until none waits any more."""
        await self._waiting.join()

    async def _deliver(self, notice: Notice) -> None:
        for pause in (*self._pauses_s, None):
            problem, final = await self._post(notice)
            if not problem:
                return
            if final or pause is None:
                log.error("the webhook has not taken the notice %s: %s", notice.id, problem)
                return
            await asyncio.sleep(pause)

    async def _post(self, notice: Notice) -> tuple[str, bool]:
        """What went wrong, if anything did, and whether it would do so again."""
        body, sent_at = notice.body(), int(time.time())
        named = {
            "content-type": "application/json",
            "user-agent": f"tollway/{version()}",
            "webhook-id": notice.id,
            "webhook-timestamp": str(sent_at),
        }
        if self._secret:
            named["webhook-signature"] = signature(self._secret, notice.id, sent_at, body)
        headers = [(name.encode(), value.encode()) for name, value in named.items()]
        try:
            incoming = await self._upstream.send(Outgoing("POST", self._url.reveal(), headers, body), TIMEOUTS)
        except UpstreamError as error:
            return error.code, False
        incoming.close()
        status = incoming.status
        if 200 <= status < 300:
            return "", True
        return f"it answered with status {status}", status < 500 and status not in TRY_AGAIN


class Notifier:
    """Where notices go. `webhook` is None where there is none."""

    def __init__(self, webhook: Webhook | None = None) -> None:
        self._webhook = webhook

    def tell(self, notice: Notice) -> None:
        """Returns at once."""
        log.warning("%s: %s %s", notice.type, notice.content, orjson.dumps(dict(notice.values)).decode())
        if self._webhook is not None:
            self._webhook.put(notice)


@asynccontextmanager
async def open_notifier(url: Secret, secret: Secret | None = None) -> AsyncGenerator[Notifier]:
    """
    A notifier for the webhook at `url`, signed with `secret` where there is one, or for the log alone. At its end it
    waits for what is on its way.
    """
    if not url:
        yield Notifier()
        return
    upstream = FastTransport()
    webhook = Webhook(url, upstream, secret=secret)
    running = asyncio.create_task(webhook.run())
    try:
        yield Notifier(webhook)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_NOTICES_S):
                await webhook.delivered()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await upstream.close()
