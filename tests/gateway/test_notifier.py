"""Notices reach the log and the operator's webhook; a webhook that fails, hangs or is away holds up nobody."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from tollway.config.secret import Secret
from tollway.gateway import notifier as module
from tollway.gateway.notifier import Notice, Notifier, Webhook, open_notifier, signature
from tollway.gateway.upstream.fast import FastTransport

from tests.gateway.upstream.scripted import Peer, Script, Server, answers, upstream

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
PATH = "/hooks/a-secret-path"


def notice(id: str = "budget-1-800") -> Notice:
    return Notice(
        id, "budget_soft_limit", "A title", "A sentence.", {"budget_id": 1, "kind": "user"}, 1_763_726_400_123
    )


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} Some\r\nContent-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def webhook_to(server: Server, *pauses_s: float) -> AsyncGenerator[Webhook]:
    transport = FastTransport()
    webhook = Webhook(Secret(f"http://127.0.0.1:{server.port}{PATH}"), transport, pauses_s=pauses_s)
    running = asyncio.create_task(webhook.run())
    yield webhook
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await transport.close()


async def delivered(script: Script, *pauses_s: float, notices: int = 1) -> list[bytes]:
    """The requests that a server got whose answers are the script's."""
    async with upstream(script) as server, webhook_to(server, *pauses_s) as webhook:
        for number in range(notices):
            webhook.put(notice(f"n-{number}"))
        async with asyncio.timeout(5):
            await webhook.delivered()
        return server.requests


async def test_a_notice_is_posted_as_json() -> None:
    async with upstream(answers(OK)) as server, open_notifier(Secret(f"http://127.0.0.1:{server.port}{PATH}")) as told:
        told.tell(notice())
        async with asyncio.timeout(5):
            await server.asked.wait()
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(f"POST {PATH} HTTP/1.1\r\n".encode())
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {
        "id": "budget-1-800",
        "type": "budget_soft_limit",
        "title": "A title",
        "content": "A sentence.",
        "values": {"budget_id": 1, "kind": "user"},
        "timestamp": 1_763_726_400,
    }


KEY = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.mark.parametrize("secret", [KEY, Secret(KEY.reveal().removeprefix("whsec_"))], ids=["prefixed", "bare"])
def test_the_signature_is_that_of_the_standards_own_example(secret: Secret) -> None:
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [KEY, None], ids=["with a secret", "without"])
async def test_a_notice_says_who_it_is_and_when_it_was_sent(secret: Secret | None) -> None:
    begun = int(time.time())
    async with (
        upstream(answers(OK)) as server,
        open_notifier(Secret(f"http://127.0.0.1:{server.port}{PATH}"), secret) as told,
    ):
        told.tell(notice())
        async with asyncio.timeout(5):
            await server.asked.wait()
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    headers = {name.lower(): value for name, _, value in lines}
    sent_at = int(headers["webhook-timestamp"])
    assert headers["webhook-id"] == "budget-1-800"
    assert begun <= sent_at <= time.time()
    expected = secret and signature(secret, "budget-1-800", sent_at, body)
    assert headers.get("webhook-signature") == expected


async def test_a_notice_is_one_line_of_the_log_that_programs_can_read(caplog: pytest.LogCaptureFixture) -> None:
    Notifier().tell(notice())
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tollway.notices", logging.WARNING)
    text, _, values = record.getMessage().partition(" {")
    assert text == "budget_soft_limit: A sentence."
    assert json.loads("{" + values) == {"budget_id": 1, "kind": "user"}


@pytest.mark.parametrize("failure", [status(500), status(429), status(503), b"garbage\r\n\r\n", b""])
async def test_a_webhook_that_fails_is_asked_again(failure: bytes, caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    async def script(peer: Peer) -> None:
        nonlocal tries
        await peer.request()
        tries += 1
        await peer.send(failure if tries < 3 else OK)

    assert len(await delivered(script, 0.01, 0.01, 0.01)) == 3
    assert caplog.records == []


async def test_a_webhook_that_goes_on_failing_is_left_and_the_next_notice_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = await delivered(answers(*[status(500)] * 3, OK), 0.01, 0.01, notices=2)
    assert len(requests) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "the webhook has not taken the notice n-0: it answered with status 500"
    ]
    assert PATH not in caplog.text


@pytest.mark.parametrize("code", [301, 400, 404, 410])
async def test_what_would_fail_again_is_not_tried_again(code: int, caplog: pytest.LogCaptureFixture) -> None:
    assert len(await delivered(answers(status(code)), 0.01, 0.01)) == 1
    assert f"status {code}" in caplog.text


async def test_nobody_waits_for_a_webhook_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_NOTICES_S", 0.1)

    async def hang(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with upstream(hang) as server:
        began = time.monotonic()
        async with open_notifier(Secret(f"http://127.0.0.1:{server.port}/")) as told:
            for _ in range(3):
                told.tell(notice())
            async with asyncio.timeout(5):
                await server.asked.wait()
        assert time.monotonic() - began < 2


async def test_notices_that_nobody_takes_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    webhook = Webhook(Secret("http://127.0.0.1:1/"), FastTransport())
    for number in range(4):
        webhook.put(notice(f"n-{number}"))
    assert [record.getMessage() for record in caplog.records] == [
        f"the webhook does not get the notice n-{number}: 2 others wait" for number in (2, 3)
    ]
