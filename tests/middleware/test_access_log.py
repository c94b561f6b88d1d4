"""The access log: one line of JSON a request, whatever happened inside, and nothing in it that is secret."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from tollway.adapters.errors import RateLimited
from tollway.middleware.access_log import AccessLogMiddleware, Line
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.state import Attempt, Failure, Principal

from .inner import CHAT, Client, Inside, Message, call_of, candidate, scope_of
from .outer import HELLO, Setting, Waiting, call, charge_of, raising, silent, state_with, until

pytestmark = pytest.mark.anyio

ALWAYS = {"time", "request_id", "method", "path", "status", "duration_ms", "first_byte_ms", "bytes", "address"}


async def logged(app: Any, scope: Message | None = None) -> dict[str, Any]:
    """The one line that a request leaves, read as JSON."""
    lines: list[Line] = []
    with suppress(Exception, asyncio.CancelledError):  # the line is written whatever happens
        await call(AccessLogMiddleware(app, write=lines.append), scope)
    assert len(lines) == 1
    return json.loads(str(lines[0]))


async def test_alone_it_tells_what_http_tells() -> None:
    before = time.time()
    entry = await logged(Inside(b"four", b"teen bytes", status=201))
    assert entry.keys() == ALWAYS
    told = {name: entry[name] for name in ("method", "path", "status", "bytes", "address", "request_id")}
    assert told == {
        "method": "POST",
        "path": CHAT.path,
        "status": 201,
        "bytes": 14,
        "address": "192.0.2.7",
        "request_id": None,
    }
    assert before - 1 <= entry["time"] <= time.time() + 1
    assert 0 <= entry["first_byte_ms"] <= entry["duration_ms"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"request_id": "req-7"}, {"request_id": "req-7"}, id="the request's id"),
        pytest.param({"principal": Principal(token_id=3, user_id=4)}, {"user_id": 4, "token_id": 3}, id="who called"),
        pytest.param({"call": call_of("o3", stream=True)}, {"model": "o3", "stream": True}, id="what was asked"),
        pytest.param({"attempt": Attempt(candidate(9), 2)}, {"channel_id": 9, "attempts": 2}, id="who answered"),
        pytest.param(
            {"failures": (Failure(3, 0, "upstream_refused", "10.0.0.9:443 cannot be reached."),)},
            {
                "failures": [
                    {
                        "channel_id": 3,
                        "key_index": 0,
                        "code": "upstream_refused",
                        "reason": "10.0.0.9:443 cannot be reached.",
                    }
                ]
            },
            id="who failed, and why",
        ),
        pytest.param({"error": "no_healthy_channel"}, {"error_code": "no_healthy_channel"}, id="what the client heard"),
        pytest.param(
            {"charge": charge_of(10, 5, quota=7, ending="cancelled")},
            {"input_tokens": 10, "output_tokens": 5, "quota": 7, "ending": "cancelled"},
            id="what it cost",
        ),
    ],
)
async def test_what_the_layers_inside_have_written_is_told(fields: dict[str, Any], told: dict[str, Any]) -> None:
    entry = await logged(Setting(**fields))
    assert {name: entry[name] for name in told} == told
    assert entry.keys() == ALWAYS | told.keys()


async def test_nothing_secret_is_in_a_line() -> None:
    secret = b"sk-secret"
    scope = scope_of(CHAT.path, (b"authorization", b"Bearer " + secret), (b"x-api-key", secret), query=b"key=" + secret)
    scope["raw_path"] = scope["path"].encode() + b"?key=" + secret
    scope["state"] = state_with(call=call_of("gpt-4o", body=secret, query="key=sk-secret", document={"m": "sk-secret"}))
    lines: list[Line] = []
    layer = AccessLogMiddleware(Inside(secret), write=lines.append)
    await call(layer, scope, Client.sending(secret))
    assert secret.decode() not in str(lines[0])
    assert "key" not in json.loads(str(lines[0]))["path"]


@pytest.mark.parametrize(
    ("app", "status"),
    [
        pytest.param(Inside(status=418), 418, id="an answer"),
        pytest.param(ErrorEnvelopeMiddleware(raising(RateLimited("Too fast."))), 429, id="a refusal, told inside"),
        pytest.param(ErrorEnvelopeMiddleware(raising(RuntimeError())), 500, id="a defect, told inside"),
        pytest.param(silent, 499, id="the client left before an answer"),
        pytest.param(raising(asyncio.CancelledError()), 499, id="the request was cancelled before an answer"),
        pytest.param(raising(asyncio.CancelledError(), after=2), 200, id="cancelled while it was answered"),
        pytest.param(raising(RuntimeError(), after=2), 200, id="a defect in the middle of an answer"),
        pytest.param(raising(RuntimeError()), 500, id="a defect that the server tells"),
    ],
)
async def test_the_status_is_the_one_that_the_client_sees(app: Any, status: int) -> None:
    assert (await logged(app))["status"] == status


async def test_a_request_without_a_byte_has_no_first_byte() -> None:
    entry = await logged(silent)
    assert (entry["first_byte_ms"], entry["bytes"]) == (None, 0)


async def test_a_line_is_one_line_of_json() -> None:
    lines: list[Line] = []
    await call(AccessLogMiddleware(Inside(), write=lines.append), scope_of('/a\nb\r\u2028"\\\x00/ü'))
    wire = str(lines[0])
    assert "\n" not in wire
    assert json.loads(wire)["path"] == '/a\nb\r\u2028"\\\x00/ü'


async def test_the_line_is_written_when_the_answer_is_over_and_not_before() -> None:
    lines: list[Line] = []
    inside = Waiting()
    task = asyncio.create_task(call(AccessLogMiddleware(inside, write=lines.append)))
    await until(lambda: inside.inside == 1)
    assert lines == []
    inside.go.set()
    await task
    assert len(lines) == 1


async def test_each_of_many_requests_at_once_leaves_its_own_line() -> None:
    lines: list[Line] = []
    inside = Waiting()
    layer = AccessLogMiddleware(inside, write=lines.append)
    tasks = [asyncio.create_task(call(layer, scope_of(f"/{number}"), Client.sending(HELLO))) for number in range(20)]
    await until(lambda: inside.inside == 20)
    inside.go.set()
    await asyncio.gather(*tasks)
    assert sorted(line.path for line in lines) == sorted(f"/{number}" for number in range(20))


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_kinds_of_scope_leave_no_line(kind: str) -> None:
    lines: list[Line] = []
    await call(AccessLogMiddleware(Inside(), write=lines.append), scope_of() | {"type": kind})
    assert lines == []


@pytest.mark.parametrize("client", [None, ("", 0)], ids=["a UNIX socket", "an empty address"])
async def test_an_address_that_the_server_does_not_know_is_null(client: Any) -> None:
    entry = await logged(Inside(), scope_of() | {"client": client})
    assert entry["address"] is None
