"""Failures as clients read them."""

import pytest
from tollway.adapters.error_envelope import client_status, error_answer, error_event
from tollway.adapters.errors import (
    BadRequest,
    GatewayError,
    InsufficientQuota,
    InternalError,
    MethodNotAllowed,
    NoHealthyChannel,
    RateLimited,
    Unauthenticated,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamTruncated,
)

JSON = (b"content-type", b"application/json")
NO_RETRY = (b"x-should-retry", b"false")


def status_error(status: int, fault: str, *, wait: float | None = None) -> UpstreamStatus:
    return UpstreamStatus(
        f"The upstream answered with status {status}.",
        status=status,
        answer_headers=((b"content-type", b"text/plain"), (b"content-length", b"999")),
        answer_body=b"account org-secret is broke",
        retryable=fault != "caller",
        fault=fault,  # pyright: ignore[reportArgumentType]
        retry_after=wait,
    )


OURS = [
    pytest.param(
        BadRequest("model must be a string.", param="model", code="invalid_type"),
        400,
        [JSON],
        b'{"error":{"message":"model must be a string.","type":"invalid_request_error","param":"model",'
        b'"code":"invalid_type","request_id":"req_1"}}',
        id="a field that is wrong",
    ),
    pytest.param(
        Unauthenticated("No key.", code="missing_api_key"),
        401,
        [JSON],
        b'{"error":{"message":"No key.","type":"invalid_request_error","param":null,"code":"missing_api_key",'
        b'"request_id":"req_1"}}',
        id="no key",
    ),
    pytest.param(
        InsufficientQuota("The balance does not cover this."),
        402,
        [JSON],
        b'{"error":{"message":"The balance does not cover this.","type":"insufficient_quota","param":null,'
        b'"code":"insufficient_quota","request_id":"req_1"}}',
        id="no balance",
    ),
    pytest.param(
        MethodNotAllowed("POST only.", headers=((b"allow", b"POST"),)),
        405,
        [JSON, (b"allow", b"POST")],
        b'{"error":{"message":"POST only.","type":"invalid_request_error","param":null,"code":"method_not_allowed",'
        b'"request_id":"req_1"}}',
        id="a header of its own",
    ),
    pytest.param(
        RateLimited("Slow down.", retry_after=0.2),
        429,
        [JSON, (b"retry-after", b"1")],
        b'{"error":{"message":"Slow down.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded",'
        b'"request_id":"req_1"}}',
        id="a wait, rounded up",
    ),
    pytest.param(
        NoHealthyChannel("None is well.", retry_after=12.5),
        503,
        [JSON, (b"retry-after", b"13")],
        b'{"error":{"message":"None is well.","type":"api_error","param":null,"code":"no_healthy_channel",'
        b'"request_id":"req_1"}}',
        id="no channel",
    ),
    pytest.param(
        UpstreamRefused("Not connected."),
        502,
        [JSON, NO_RETRY],
        b'{"error":{"message":"The upstream cannot be reached.","type":"upstream_error","param":null,'
        b'"code":"upstream_unreachable","request_id":"req_1"}}',
        id="an upstream that is gone",
    ),
    pytest.param(
        status_error(401, "key"),
        502,
        [JSON, NO_RETRY],
        b'{"error":{"message":"The upstream answered with status 401.","type":"upstream_error","param":null,'
        b'"code":"upstream_status","request_id":"req_1"}}',
        id="the operator's key is refused, not the client's",
    ),
    pytest.param(
        status_error(429, "key", wait=3.0),
        429,
        [JSON, (b"retry-after", b"3")],
        b'{"error":{"message":"The upstream answered with status 429.","type":"upstream_error","param":null,'
        b'"code":"upstream_status","request_id":"req_1"}}',
        id="an upstream's rate limit",
    ),
]


@pytest.mark.parametrize(("failure", "status", "headers", "body"), OURS)
def test_failures_in_our_words(
    failure: GatewayError, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    answer = error_answer(failure, "req_1")
    assert answer.status == status
    assert answer.body == body
    assert answer.headers == [*headers, (b"content-length", b"%d" % len(body))]


def test_a_refusal_of_the_callers_own_comes_back_as_it_was_written() -> None:
    answer = error_answer(status_error(422, "caller"), "req_1")
    assert answer.status == 422
    assert answer.body == b"account org-secret is broke"
    assert answer.headers == [(b"content-type", b"text/plain"), NO_RETRY, (b"content-length", b"27")]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (status_error(429, "key"), 429),
        (status_error(503, "channel"), 503),
        (status_error(504, "channel"), 504),
        (status_error(403, "key"), 502),
        (status_error(500, "channel"), 502),
        (status_error(301, "channel"), 502),
        (status_error(200, "channel"), 502),
        (UpstreamTimeout("Late."), 504),
        (UpstreamTruncated("Short."), 502),
        (InternalError("A defect."), 500),
    ],
)
def test_what_status_a_client_is_told(failure: GatewayError, status: int) -> None:
    assert client_status(failure) == status
    assert b"org-secret" not in error_answer(failure, "req_1").body


def test_a_failure_inside_a_stream_is_one_event() -> None:
    event = error_event(UpstreamTruncated('It broke\n\noff: "x"'), "req_1")
    assert event == (
        b'data: {"error":{"message":"It broke\\n\\noff: \\"x\\"","type":"upstream_error","param":null,'
        b'"code":"upstream_truncated","request_id":"req_1"}}\n\n'
    )
