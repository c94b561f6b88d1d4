"""The error envelope: every failure before the first byte becomes an answer, and nothing is told that is not meant."""

import asyncio
import json
import logging
from typing import Any

import pytest
from tollway.adapters.errors import (
    BadRequest,
    ClientError,
    Forbidden,
    GatewayError,
    HeadTooLarge,
    InsufficientQuota,
    InternalError,
    MethodNotAllowed,
    NoHealthyChannel,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    ServerError,
    Unauthenticated,
    Unavailable,
    UnknownTransferCoding,
    UnsupportedMediaType,
    UpstreamError,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamTruncated,
)
from tollway.middleware.error_envelope import ErrorEnvelopeMiddleware
from tollway.middleware.state import Attempt, state_of

from .inner import Client, Inside, candidate, scope_of, status_failure
from .outer import call, raising, state_with

pytestmark = pytest.mark.anyio

ABSENT = object()

# The class, the status, `type` and `code` that a client is told.
CLASSES: list[tuple[type[GatewayError], int, str, str]] = [
    (GatewayError, 500, "api_error", "internal_error"),
    (ClientError, 400, "invalid_request_error", "invalid_request"),
    (BadRequest, 400, "invalid_request_error", "invalid_request"),
    (Unauthenticated, 401, "invalid_request_error", "invalid_api_key"),
    (InsufficientQuota, 402, "insufficient_quota", "insufficient_quota"),
    (Forbidden, 403, "permission_error", "forbidden"),
    (NotFound, 404, "invalid_request_error", "not_found"),
    (MethodNotAllowed, 405, "invalid_request_error", "method_not_allowed"),
    (RequestTimeout, 408, "invalid_request_error", "request_timeout"),
    (PayloadTooLarge, 413, "invalid_request_error", "request_too_large"),
    (UnsupportedMediaType, 415, "invalid_request_error", "unsupported_media_type"),
    (RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
    (HeadTooLarge, 431, "invalid_request_error", "request_header_too_large"),
    (UnknownTransferCoding, 501, "invalid_request_error", "unsupported_transfer_coding"),
    (ServerError, 500, "api_error", "internal_error"),
    (InternalError, 500, "api_error", "internal_error"),
    (Unavailable, 503, "api_error", "unavailable"),
    (NoHealthyChannel, 503, "api_error", "no_healthy_channel"),
    (UpstreamError, 502, "upstream_error", "upstream_error"),
    (UpstreamRefused, 502, "upstream_error", "upstream_unreachable"),
    (UpstreamTimeout, 504, "upstream_error", "upstream_timeout"),
    (UpstreamGarbage, 502, "upstream_error", "upstream_bad_response"),
    (UpstreamTruncated, 502, "upstream_error", "upstream_truncated"),
]


async def answered(failure: BaseException, request_id: str = "req-7") -> Client:
    """The whole answer to a request whose app raises this."""
    scope = scope_of()
    scope["state"] = state_with(request_id=request_id)
    client = await call(ErrorEnvelopeMiddleware(raising(failure)), scope)
    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]
    assert client.headers[b"content-length"] == b"%d" % len(client.body)
    return client


def every(kind: type[GatewayError]) -> set[type[GatewayError]]:
    return {kind}.union(*(every(each) for each in kind.__subclasses__()))


def test_the_table_holds_every_failure() -> None:
    """`UpstreamStatus` has tests of its own: what it says depends on who is to blame."""
    assert {kind for kind, *_ in CLASSES} | {UpstreamStatus} == {
        kind for kind in every(GatewayError) if kind.__module__ == "tollway.adapters.errors"
    }


@pytest.mark.parametrize(("kind", "status", "type", "code"), CLASSES, ids=[kind.__name__ for kind, *_ in CLASSES])
async def test_every_failure_is_told_in_openais_shape(
    kind: type[GatewayError], status: int, type: str, code: str
) -> None:
    client = await answered(kind("It went wrong."))
    assert client.status == status
    assert client.headers[b"content-type"] == b"application/json"
    message = "The upstream cannot be reached." if kind is UpstreamRefused else "It went wrong."
    assert json.loads(client.body) == {
        "error": {"message": message, "type": type, "param": None, "code": code, "request_id": "req-7"}
    }


async def test_a_code_and_a_param_of_its_own_are_told() -> None:
    error = json.loads((await answered(BadRequest("No.", code="invalid_type", param="messages[0]"))).body)["error"]
    assert (error["code"], error["param"]) == ("invalid_type", "messages[0]")


async def test_headers_of_the_failure_are_sent() -> None:
    client = await answered(MethodNotAllowed("No.", headers=((b"allow", b"POST"),)))
    assert client.headers[b"allow"] == b"POST"


@pytest.mark.parametrize(
    ("retry_after", "told"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (59.5, b"60"), (None, None)]
)
async def test_retry_after_is_whole_seconds_rounded_up(retry_after: float | None, told: bytes | None) -> None:
    client = await answered(RateLimited("Too fast.", retry_after=retry_after))
    assert client.headers.get(b"retry-after") == told


async def test_a_clients_own_retries_are_not_asked_for_when_every_channel_has_failed() -> None:
    assert (await answered(UpstreamGarbage("It was no JSON."))).headers[b"x-should-retry"] == b"false"


async def test_a_refusal_of_the_callers_own_request_comes_back_as_the_upstream_wrote_it() -> None:
    body = b'{"error": {"message": "Too long.", "code": "context_length_exceeded"}}'
    failure = UpstreamStatus(
        "The upstream answered with status 400.",
        status=400,
        answer_headers=((b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"999")),
        answer_body=body,
        retryable=False,
        fault="caller",
    )
    client = await answered(failure)
    assert (client.status, client.body) == (400, body)
    assert client.headers[b"content-type"] == b"application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("upstream", "status"), [(401, 502), (402, 502), (500, 502), (429, 429), (503, 503), (504, 504)]
)
async def test_any_other_refusal_of_an_upstream_is_told_in_our_words(upstream: int, status: int) -> None:
    client = await answered(status_failure(upstream, fault="key", body=b'{"error": "account of ACME is closed"}'))
    error = json.loads(client.body)["error"]
    assert (client.status, error["code"], error["type"]) == (status, "upstream_status", "upstream_error")
    assert b"ACME" not in client.body


async def test_an_upstreams_address_is_not_told() -> None:
    client = await answered(UpstreamRefused("10.1.2.3:8080 refused the connection."))
    assert b"10.1.2.3" not in client.body


async def test_a_defect_is_a_500_that_tells_nothing_but_the_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tollway.errors"):
        client = await answered(ZeroDivisionError("sk-secret in line 7"))
    error = json.loads(client.body)["error"]
    assert (client.status, error["code"], error["request_id"]) == (500, "internal_error", "req-7")
    told = repr(client.sent)
    assert not [word for word in ("secret", "Traceback", "ZeroDivision", "File ", ".py") if word in told]


async def test_the_log_has_a_defects_traceback_once_under_the_requests_id(caplog: pytest.LogCaptureFixture) -> None:
    await answered(ZeroDivisionError("a defect"))
    (record,) = caplog.records
    assert record.name == "tollway.errors"
    assert "req-7" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_foreseen_failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    await answered(UpstreamTimeout("It took too long."))
    assert caplog.records == []


async def test_without_a_request_id_the_answer_still_has_its_shape() -> None:
    client = await call(ErrorEnvelopeMiddleware(raising(NotFound("There is nothing here."))))
    assert json.loads(client.body)["error"].keys() == {"message", "type", "param", "code", "request_id"}


@pytest.mark.parametrize("after", [1, 2], ids=["after its head", "after a part of its body"])
@pytest.mark.parametrize("kind", [RateLimited, UpstreamTruncated, InternalError])
async def test_behind_the_first_byte_a_failure_leaves_the_answer_without_its_end(
    kind: type[GatewayError], after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The server then drops the connection, and nobody takes a part for the whole."""
    client = await call(ErrorEnvelopeMiddleware(raising(kind("It went wrong."), after=after)))
    assert len(client.sent) == after
    assert not [message for message in client.sent[1:] if not message["more_body"]]
    assert caplog.records == []


@pytest.mark.parametrize("after", [1, 2], ids=["after its head", "after a part of its body"])
async def test_behind_the_first_byte_a_defect_is_logged_and_raised_again(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    failure, client = ZeroDivisionError("a defect"), Client()
    with pytest.raises(ZeroDivisionError) as caught:
        await call(ErrorEnvelopeMiddleware(raising(failure, after=after)), client=client)
    assert caught.value is failure
    assert (len(client.sent), len(caplog.records)) == (after, 1)


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_what_is_no_failure_is_let_go(kind: type[BaseException]) -> None:
    client = Client()
    with pytest.raises(kind):
        await call(ErrorEnvelopeMiddleware(raising(kind())), client=client)
    assert client.sent == []


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_kinds_of_scope_are_not_answered_over_http(kind: str) -> None:
    client, failure = Client(), RateLimited("Too fast.")
    with pytest.raises(RateLimited) as caught:
        await call(ErrorEnvelopeMiddleware(raising(failure)), scope_of() | {"type": kind}, client)
    assert (caught.value, client.sent) == (failure, [])


async def test_an_answer_passes_as_it_is() -> None:
    inside = Inside(b"one", b"two", status=404)
    client = await call(ErrorEnvelopeMiddleware(inside))
    assert client.sent == [
        inside.start,
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two", "more_body": False},
    ]


async def test_a_failure_while_the_error_is_sent_is_not_answered_again() -> None:
    sent: list[Any] = []

    async def broken_send(message: Any) -> None:
        sent.append(message)
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        await ErrorEnvelopeMiddleware(raising(NotFound("No.")))(scope_of(), Client().receive, broken_send)
    assert len(sent) == 1


async def test_a_failure_says_how_often_it_was_tried() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        state_of(scope).attempt = Attempt(candidate(9), 3)
        raise UpstreamTruncated("It broke off.")

    scope = scope_of()
    client = await call(ErrorEnvelopeMiddleware(app), scope)
    assert dict(client.sent[0]["headers"])[b"x-tollway-attempts"] == b"3"
    assert state_of(scope).error == "upstream_truncated"
