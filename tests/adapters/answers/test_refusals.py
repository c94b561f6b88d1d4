"""What an upstream's refusal means: whose fault it is, how long to wait, what a client may see of it."""

import time
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.answers.headers import passed_headers
from tollway.adapters.answers.refusals import error_object, key_is_dead, refusal, retry_after
from tollway.adapters.errors import UpstreamStatus
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.secret import Secret

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110

CHANNEL = Channel(1, "one", ChannelType.OPENAI, ("m",))


def refused(
    status: int, body: bytes = b"", *, mapping: dict[int, int] | None = None, request_body: bytes = b""
) -> UpstreamStatus:
    channel = Channel(1, "one", ChannelType.OPENAI, ("m",), status_code_mapping=mapping or {})
    headers = [(b"content-type", b"application/json")]
    return refusal(channel, status, headers, body, now=NOW, request_body=request_body)


def error(code: object) -> bytes:
    return orjson.dumps({"error": {"message": "no", "code": code}})


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        *[(status, b"", "key") for status in (401, 402, 403, 429)],
        *[(status, b"", "channel") for status in (301, 302, 307, 407, 408, 421, 425, 500, 502, 503, 504, 529, 599)],
        *[(status, b"", "caller") for status in (400, 405, 409, 410, 413, 415, 422, 451, 499)],
        *[(404, error(code), "channel") for code in ("model_not_found", "DeploymentNotFound", "InvalidModel")],
        *[(404, error(code), "caller") for code in ("thread_not_found", None, 404, {}, [], ["model_not_found"])],
        *[(404, body, "channel") for body in (b"", b"<html>", b'["error"]', b'{"detail":"Not Found"}')],
        (400, error("model_not_found"), "caller"),
        *[(403, error(code), "caller") for code in ("content_policy_violation", "content_filter", "input_FLAGGED")],
        *[(403, error(code), "key") for code in ("forbidden", 403, None, [], {"content_filter": 1})],
        *[(403, {"type": kind}, "caller") for kind in ("moderation_error", "safety_error")],
        *[(403, {"code": 403, "metadata": data}, "caller") for data in ({"reasons": []}, {"flagged_input": "x"})],
        *[(403, {"code": 403, "metadata": data}, "key") for data in ({}, None, "reasons", ["reasons"], {"raw": "x"})],
        (403, {"message": "moderation"}, "key"),
        (403, b"moderation", "key"),
        (429, error("content_filter"), "key"),
    ],
)
def test_whose_fault_it_is(status: int, body: bytes | dict[str, object], fault: str) -> None:
    body = orjson.dumps({"error": body}) if isinstance(body, dict) else body
    failure = refused(status, body)
    assert failure.fault == fault
    assert failure.retryable is (fault != "caller")
    assert failure.status == status
    assert failure.answer_body == body


def test_a_byte_order_mark_hides_no_reason() -> None:
    assert refused(404, b"\xef\xbb\xbf" + error("thread_not_found")).fault == "caller"


@pytest.mark.parametrize(
    ("status", "mapped", "fault"),
    [
        pytest.param(400, 500, "channel", id="a refusal that is the channel's own defect"),
        pytest.param(500, 400, "caller", id="a server error that is a refusal"),
        pytest.param(503, 429, "key", id="another word for too many requests"),
        pytest.param(400, 403, "key", id="a bad request that is about the key"),
        pytest.param(429, 200, "channel", id="an error is no success, whatever the mapping says"),
        pytest.param(429, 999, "channel", id="a status that is none"),
    ],
)
def test_the_channels_own_statuses_come_before_the_decision(status: int, mapped: int, fault: str) -> None:
    failure = refused(status, mapping={status: mapped, 418: 200})
    assert (failure.status, failure.fault) == (mapped, fault)
    assert str(status) in failure.message


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("retry-after", b"7", 7.0),
        ("retry-after", b" 0.5 ", 0.5),
        ("retry-after", b"0", 0.0),
        ("retry-after", b"-5", 0.0),
        ("retry-after", b"86400", 3600.0),
        ("retry-after", b"1e308", 3600.0),
        ("retry-after", b"inf", 3600.0),
        ("retry-after", b"-inf", 0.0),
        ("retry-after", b"nan", None),
        ("retry-after", b"", None),
        ("retry-after", b"soon", None),
        ("retry-after", b"\xff\xfe", None),
        ("retry-after", b"9" * 6000, 3600.0),
        ("retry-after", b"Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("retry-after", b"Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("retry-after", b"Sun Nov  6 08:50:07 1994", 30.0),
        ("retry-after", b"Sun, 06 Nov 1994 08:50:07 -0000", 30.0),
        ("retry-after", b"Sun, 06 Nov 1994 09:50:07 +0100", 30.0),
        ("retry-after", b"Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("retry-after", b"Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("retry-after", b"Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("retry-after", b"Fri, 99 Dec 1994 23:59:59 GMT", None),
        ("retry-after", b"Fri, 31 Dec 1994 23:59:59 +999999999", None),
        ("retry-after-ms", b"1500", 1.5),
        ("retry-after-ms", b"nan", None),
        ("retry-after-ms", b"x", None),
        ("x-other", b"7", None),
    ],
)
def test_how_long_to_wait(name: str, value: bytes, seconds: float | None) -> None:
    assert retry_after([(name.encode(), value)], now=NOW) == seconds


def test_milliseconds_are_preferred_unless_they_are_unreadable() -> None:
    both = [(b"retry-after", b"9"), (b"retry-after-ms", b"250")]
    assert retry_after(both, now=NOW) == 0.25
    assert retry_after([(b"retry-after-ms", b"soon"), (b"retry-after", b"9")], now=NOW) == 9.0


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Shanghai-8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("date", [b"Sun Nov  6 08:50:07 1994", b"Sun, 06 Nov 1994 08:50:07 -0000"])
def test_a_date_without_a_zone_is_utc_wherever_the_gateway_runs(date: bytes) -> None:
    assert retry_after([(b"retry-after", date)], now=NOW) == 30.0


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.from_regex(rb"\A[0-9eE+._-]{1,12}\Z"),
        st.from_regex(
            rb"\A(Sun, )?[0-9]{1,3} (Jan|Feb|Nov) [0-9]{1,6} "
            rb"[0-9]{1,3}:[0-9]{2}(:[0-9]{1,3})? ?(GMT|UTC|[+-][0-9]{1,9})?\Z"
        ),
    )
)
def test_no_wait_is_unreasonable(value: bytes) -> None:
    for name in (b"retry-after", b"retry-after-ms"):
        wait = retry_after([(name, value)], now=NOW)
        assert wait is None or 0 <= wait <= 3600


KEYWORDS = Options().automatic_disable_keywords


@pytest.mark.parametrize(
    ("status", "body", "dead"),
    [
        pytest.param(401, b"", True, id="unauthorized"),
        pytest.param(
            429, b'{"error":{"message":"You exceeded your current quota, please check"}}', True, id="no quota left"
        ),
        pytest.param(403, b"Your Credit Balance is TOO LOW to access", True, id="capitals"),
        pytest.param(500, b"This organization has been disabled.", True, id="a keyword under any status"),
        pytest.param(429, b'{"error":{"message":"Rate limit reached"}}', False, id="a rate limit passes"),
        pytest.param(403, b"forbidden", False, id="one forbidden thing"),
        pytest.param(400, b"permission denied", False, id="the caller's own fault, with a keyword in it"),
        pytest.param(429, b"x" * 500 + b"permission denied", False, id="a keyword in a page"),
        pytest.param(403, b"\xff\xfepermission denied", True, id="bytes that are no text"),
        pytest.param(403, {"message": "no", "code": "Permission  Denied"}, True, id="a keyword as the code"),
        pytest.param(403, {"message": "no", "type": "permission denied"}, True, id="a keyword as the type"),
        pytest.param(403, {"message": "x" * 9000 + "permission denied"}, True, id="a long message"),
        pytest.param(403, {"message": ["permission denied"], "code": 403}, False, id="a message that is no text"),
        pytest.param(403, {"message": "no", "param": "permission denied"}, False, id="a keyword in another field"),
        pytest.param(403, {"metadata": {"raw": "permission denied"}}, False, id="a keyword in what is quoted"),
        pytest.param(403, b'{"error":"permission denied"}', True, id="an error that is a text"),
        pytest.param(403, b'[{"error":{"message":"Permission denied on resource"}}]', True, id="an error in a list"),
        pytest.param(
            403, b'{"message":"The security token included in the request is invalid."}', True, id="an error by itself"
        ),
        pytest.param(403, b'{"detail":[{"input":"permission denied"}]}', False, id="no error at all"),
        pytest.param(403, b'["permission denied"]', False, id="a list"),
    ],
)
def test_whether_the_key_is_dead(status: int, body: bytes | dict[str, object], dead: bool) -> None:
    body = orjson.dumps({"error": body}) if isinstance(body, dict) else body
    assert key_is_dead(refused(status, body), KEYWORDS) is dead


def asking(text: str) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]})


@pytest.mark.parametrize(
    ("request_body", "dead"),
    [
        pytest.param(asking("Hello!"), True, id="another text"),
        pytest.param(asking("He said: Permission\tDENIED. So?"), False, id="the keyword itself"),
        pytest.param(asking("denied permission"), True, id="its words"),
        pytest.param(b'{"prompt":"permissi\\u006fn\\ndenied"}', False, id="the keyword in escapes"),
        pytest.param(b'{"metadata":{"permission denied":1}}', False, id="the keyword as a name"),
        pytest.param(b"--b\r\n\r\n\xffpermission denied\r\n--b--", False, id="a form"),
        pytest.param(b'{"a":' * 500 + b'"permission denied"' + b"}" * 500, False, id="nested deeply"),
    ],
)
def test_a_key_does_not_die_of_what_the_caller_wrote(request_body: bytes, dead: bool) -> None:
    quoting = orjson.dumps({"error": {"message": "Refused: permission denied", "code": 403}})
    assert key_is_dead(refused(403, quoting, request_body=request_body), KEYWORDS) is dead


def test_a_second_keyword_that_the_caller_did_not_write_counts() -> None:
    quoting = b'{"error":{"message":"permission denied: your account is not authorized"}}'
    assert key_is_dead(refused(403, quoting, request_body=asking("permission denied")), KEYWORDS)


def test_an_unauthorized_key_is_dead_whatever_the_caller_wrote() -> None:
    failure = refused(401, b"permission denied", request_body=asking("permission denied"))
    assert key_is_dead(failure, KEYWORDS)


def test_moderated_content_kills_no_key() -> None:
    flagged = {"code": 403, "message": "permission denied", "metadata": {"flagged_input": "permission denied"}}
    failure = refused(403, orjson.dumps({"error": flagged}))
    assert not key_is_dead(failure, KEYWORDS)
    assert not failure.retryable


def test_a_mapped_401_does_not_kill_the_key() -> None:
    assert not key_is_dead(refused(401, mapping={401: 503}), KEYWORDS)


def test_clients_see_what_describes_the_answer_and_nothing_else() -> None:
    passed = [(b"content-type", b"audio/mpeg"), (b"openai-processing-ms", b"12"), (b"content-disposition", b"inline")]
    hidden = [
        (name, b"x")
        for name in (
            b"set-cookie",
            b"server",
            b"cf-ray",
            b"x-request-id",
            b"openai-organization",
            b"openai-project",
            b"x-ratelimit-limit-requests",
            b"x-ratelimit-remaining-tokens",
            b"access-control-allow-origin",
            b"strict-transport-security",
            b"content-length",
            b"content-encoding",
            b"transfer-encoding",
            b"connection",
            b"location",
            b"www-authenticate",
            b"alt-svc",
        )
    ]
    assert passed_headers([*hidden, *passed, *hidden]) == passed


def test_a_refusal_carries_only_headers_that_clients_may_see() -> None:
    headers = [(b"set-cookie", b"a=b"), (b"content-type", b"text/html"), (b"retry-after", b"3")]
    failure = refusal(CHANNEL, 400, headers, b"", now=NOW)
    assert failure.answer_headers == ((b"content-type", b"text/html"),)
    assert failure.retry_after == 3.0


def test_a_refusal_does_not_show_the_channels_secrets() -> None:
    keys, headers = (Secret("x"), Secret("sk-upstream-1")), {"x-gate": "s3cret/word"}
    channel = Channel(1, "one", ChannelType.OPENAI, ("m",), keys=keys, header_override=headers)
    body = b'{"error":{"message":"x has no field: Bearer sk-upstream-1, %s"}}' % rb"s3cret\/word"
    failure = refusal(channel, 400, [], body, now=NOW)
    assert failure.answer_body == b'{"error":{"message":"x has no field: Bearer ********, ********"}}'


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error":{"code":1}}', {"code": 1}),
        (b'{"error":"text"}', None),
        (b'{"error":null}', None),
        (b"{}", None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 2000, None),
    ],
)
def test_error_objects(body: bytes, found: object) -> None:
    assert error_object(body) == found
