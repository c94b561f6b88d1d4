"""
The tree of failures. Layers raise, the error envelope renders, nobody else writes an error to a client.

GatewayError                     anything a client is told
  ClientError                    the caller's fault or limit; never retried, never held against a channel
    BadRequest 400               body, field or header is wrong; `param` names the field
    Unauthenticated 401          no key, an unknown one, or one that has expired
    InsufficientQuota 402        balance or token quota does not cover the request
    Forbidden 403                key disabled, address or model not allowed
    NotFound 404                 unknown path or model
    MethodNotAllowed 405
    RequestTimeout 408           the body did not arrive in time
    PayloadTooLarge 413
    UnsupportedMediaType 415
    RateLimited 429
    HeadTooLarge 431             request line and headers are too large to be read
    UnknownTransferCoding 501    the body is coded for its transfer in a way that is not read here
  ServerError                    ours to answer for
    NoHealthyChannel 503
    Unavailable 503              stopping, or a store is gone
    InternalError 500            a defect of ours
  UpstreamError                  a channel failed; `fault` says who is to blame, `retryable` if another may be tried
    UpstreamRefused 502          not connected: refused, DNS, TLS, address not allowed
    UpstreamTimeout 504          connect, first byte, idle or total time ran out
    UpstreamGarbage 502          an answer that is not what the operation promises
    UpstreamTruncated 502        the answer ended before its end
    UpstreamStatus               the upstream answered with an error status of its own
"""

from typing import Literal

Fault = Literal["channel", "key", "caller"]
"""Who is to blame for an upstream failure: the whole channel, one of its keys, or the caller's own request."""


class GatewayError(Exception):
    """A failure with a status, a stable `code`, and a sentence for the client that holds no secret."""

    status: int = 500
    code: str = "internal_error"
    type: str = "api_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        """Seconds; becomes the `Retry-After` header, rounded up."""
        self.headers = headers
        if code is not None:
            self.code = code


class ClientError(GatewayError):
    """The caller's own fault or limit."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class BadRequest(ClientError):
    """400. `param` names the field where there is one."""


class Unauthenticated(ClientError):
    """401. Codes: `missing_api_key`, `invalid_api_key`, `expired_api_key`."""

    status, code = 401, "invalid_api_key"


class InsufficientQuota(ClientError):
    """
    402. Codes: `insufficient_quota` (the balance), `token_quota_exhausted` (the key's own limit), `budget_exceeded` (a
    budget of the user, key or group; `retry_after` says when it begins anew).
    """

    status, code, type = 402, "insufficient_quota", "insufficient_quota"


class Forbidden(ClientError):
    """403. Codes: `disabled_api_key`, `ip_not_allowed`, `model_not_allowed`, `user_disabled`, `group_not_allowed`."""

    status, code, type = 403, "forbidden", "permission_error"


class NotFound(ClientError):
    """404. Codes: `model_not_found`, `unknown_url`."""

    status, code = 404, "not_found"


class MethodNotAllowed(ClientError):
    """405, with `Allow`."""

    status, code = 405, "method_not_allowed"


class RequestTimeout(ClientError):
    """408: the body did not arrive in time."""

    status, code = 408, "request_timeout"


class PayloadTooLarge(ClientError):
    """413: the body is larger than the limit; it was not read to its end."""

    status, code = 413, "request_too_large"


class UnsupportedMediaType(ClientError):
    """415: the operation takes another `Content-Type`."""

    status, code = 415, "unsupported_media_type"


class RateLimited(ClientError):
    """429. `retry_after` is in seconds and becomes the `Retry-After` header."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


class HeadTooLarge(ClientError):
    """431 (RFC 6585): the request line and the headers are larger than the limit; they were not read to their end."""

    status, code = 431, "request_header_too_large"


class UnknownTransferCoding(ClientError):
    """501 (RFC 9112, 6.1): the body is in a transfer coding besides `chunked`; where it ends is not relied upon."""

    status, code = 501, "unsupported_transfer_coding"


class ServerError(GatewayError):
    """Ours to answer for."""


class InternalError(ServerError):
    """500: a defect. The log has the traceback, the client only the request id."""


class Unavailable(ServerError):
    """503: the gateway is stopping, or a store it needs is gone."""

    status, code = 503, "unavailable"


class NoHealthyChannel(ServerError):
    """503: channels serve this model, but none of them can be used now."""

    status, code = 503, "no_healthy_channel"


class UpstreamError(GatewayError):
    """
    One attempt on one channel failed.

    `retryable`: another key or channel may do better. `fault`: whom health counts it against (`caller`: nobody).
    """

    status, code, type = 502, "upstream_error", "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = True,
        fault: Fault = "channel",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.retryable = retryable
        self.fault: Fault = fault


class UpstreamRefused(UpstreamError):
    """No connection came about. Codes: `upstream_unreachable`, `upstream_tls_failed`, `upstream_address_refused`."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """504. Codes: `upstream_connect_timeout`, and the same for `first_byte`, `idle` and `total`."""

    status, code = 504, "upstream_timeout"


class UpstreamGarbage(UpstreamError):
    """The upstream answered, but not in HTTP, not in the promised format, or with an error inside a 200."""

    code = "upstream_bad_response"


class UpstreamTruncated(UpstreamError):
    """The answer ended before its own end: short body, broken chunk, stream without its end mark."""

    code = "upstream_truncated"


class UpstreamStatus(UpstreamError):
    """
    The upstream answered with a status of 300 or more.

    `answer_headers` and `answer_body` are its own, passed on as they are when the fault is the caller's;
    `request_body` is what it refuses, and may quote.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        answer_headers: tuple[tuple[bytes, bytes], ...],
        answer_body: bytes,
        retryable: bool,
        fault: Fault,
        retry_after: float | None = None,
        request_body: bytes = b"",
    ) -> None:
        super().__init__(message, code="upstream_status", retryable=retryable, fault=fault, retry_after=retry_after)
        self.status = status
        self.answer_headers = answer_headers
        self.answer_body = answer_body
        self.request_body = request_body
