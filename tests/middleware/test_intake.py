"""The request's body: read once, within bounds, and refused with a status, a code and the name of the field."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from tollway.adapters.errors import ClientError
from tollway.middleware.intake import IntakeMiddleware
from tollway.middleware.state import state_of

from .inner import CHAT, Client, Inside, Message, read_all, scope_of

pytestmark = pytest.mark.anyio

JSON = (b"content-type", b"application/json")
HELLO = b'"messages": [{"role": "user", "content": "hello"}]'
GOOD = b'{"model": "gpt-4o", %b}' % HELLO
TRANSCRIPTIONS = "/v1/audio/transcriptions"
EMBEDDINGS, COMPLETIONS = "/v1/embeddings", "/v1/completions"


def chat(fields: bytes) -> bytes:
    return b'{"model": "gpt-4o", %b, %b}' % (HELLO, fields)


async def refused(scope: Message, client: Client, **given: Any) -> ClientError:
    inside = Inside()
    with pytest.raises(ClientError) as caught:
        await IntakeMiddleware(inside, **given)(scope, client.receive, client.send)
    assert inside.calls == 0
    assert client.sent == []
    return caught.value


async def taken(scope: Message, client: Client, **given: Any) -> bytes:
    """What the app inside reads; the state then holds the call."""
    bodies: list[bytes] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await read_all(receive))

    await IntakeMiddleware(inside, **given)(scope, client.receive, client.send)
    return b"".join(bodies)


MALFORMED = [
    pytest.param(CHAT.path, b"", None, "invalid_json", id="no body"),
    pytest.param(CHAT.path, b"hello", None, "invalid_json", id="not JSON"),
    pytest.param(CHAT.path, GOOD[:-1], None, "invalid_json", id="JSON cut short"),
    pytest.param(CHAT.path, GOOD + b"{}", None, "invalid_json", id="two documents"),
    pytest.param(CHAT.path, b'{"model": "\xff"}', None, "invalid_json", id="not UTF-8"),
    pytest.param(CHAT.path, chat(b'"top_p": NaN'), None, "invalid_json", id="NaN"),
    pytest.param(CHAT.path, b"[]", None, "invalid_json", id="an array"),
    pytest.param(CHAT.path, b'"gpt-4o"', None, "invalid_json", id="a string"),
    pytest.param(CHAT.path, b"null", None, "invalid_json", id="null"),
    pytest.param(
        CHAT.path, chat(b", ".join(b'"%d": 1' % n for n in range(1000))), None, "invalid_json", id="1,000 more fields"
    ),
    pytest.param(
        CHAT.path, chat(b'"tools": ' + b"[" * 2000 + b"]" * 2000), None, "invalid_json", id="nested 2,000 deep"
    ),
    pytest.param(
        CHAT.path, chat(b'"tools": [' + b"[], " * 250_000 + b"1]"), None, "invalid_json", id="250,000 empty arrays"
    ),
]
DUPLICATES = [
    pytest.param(CHAT.path, chat(b'"model": "o3"'), "model", "duplicate_parameter", id="model twice"),
    pytest.param(CHAT.path, chat(b'"m\\u006fdel": "o3"'), "model", "duplicate_parameter", id="model with an escape"),
    pytest.param(CHAT.path, chat(b'"Model": "o3"'), "model", "duplicate_parameter", id="model in capitals"),
    pytest.param(
        CHAT.path, chat(b'"stream": true, "stream": false'), "stream", "duplicate_parameter", id="stream twice"
    ),
    pytest.param(
        CHAT.path,
        chat(b'"stream": true, "\\u0073tream": false'),
        "stream",
        "duplicate_parameter",
        id="stream with an escape",
    ),
    pytest.param(
        CHAT.path,
        chat(b'"max_tokens": 1, "max_tokens": 9'),
        "max_tokens",
        "duplicate_parameter",
        id="max_tokens twice",
    ),
    pytest.param(
        CHAT.path,
        chat(b'"max_tokens": 1, "max_token\\u0073": 9'),
        "max_tokens",
        "duplicate_parameter",
        id="max_tokens with an escape",
    ),
    pytest.param(CHAT.path, chat(b'"messages": []'), "messages", "duplicate_parameter", id="messages twice"),
]
MISSING = [
    pytest.param(CHAT.path, b"{%b}" % HELLO, "model", "missing_required_parameter", id="no model"),
    pytest.param(CHAT.path, b'{"model": "", %b}' % HELLO, "model", "missing_required_parameter", id="an empty model"),
    pytest.param(CHAT.path, b'{"model": "gpt-4o"}', "messages", "missing_required_parameter", id="no messages"),
    pytest.param(EMBEDDINGS, b'{"model": "ada"}', "input", "missing_required_parameter", id="no input"),
    pytest.param(COMPLETIONS, b'{"model": "ada"}', "prompt", "missing_required_parameter", id="no prompt"),
]
WRONG = [
    pytest.param(CHAT.path, b'{"model": 4, %b}' % HELLO, "model", "invalid_type", id="model is a number"),
    pytest.param(CHAT.path, b'{"model": ["o3"], %b}' % HELLO, "model", "invalid_type", id="model is an array"),
    pytest.param(
        CHAT.path, b'{"model": "%b", %b}' % (b"x" * 256, HELLO), "model", "invalid_value", id="model is too long"
    ),
    pytest.param(
        CHAT.path, b'{"model": "gpt-4o", "messages": "hello"}', "messages", "invalid_type", id="messages is a string"
    ),
    pytest.param(
        CHAT.path, b'{"model": "gpt-4o", "messages": ["hello"]}', "messages[0]", "invalid_type", id="a message is text"
    ),
    pytest.param(CHAT.path, b'{"model": "gpt-4o", "messages": []}', "messages", "empty_array", id="messages is empty"),
    pytest.param(CHAT.path, chat(b'"stream": "yes"'), "stream", "invalid_type", id="stream is a string"),
    pytest.param(CHAT.path, chat(b'"stream": 1'), "stream", "invalid_type", id="stream is a number"),
    pytest.param(CHAT.path, chat(b'"max_tokens": "9"'), "max_tokens", "invalid_type", id="max_tokens is a string"),
    pytest.param(CHAT.path, chat(b'"max_tokens": 1.5'), "max_tokens", "invalid_type", id="max_tokens is a fraction"),
    pytest.param(CHAT.path, chat(b'"max_tokens": true'), "max_tokens", "invalid_type", id="max_tokens is true"),
    pytest.param(CHAT.path, chat(b'"max_tokens": -1'), "max_tokens", "invalid_value", id="max_tokens below 0"),
    pytest.param(CHAT.path, chat(b'"n": 0'), "n", "invalid_value", id="n is 0"),
    pytest.param(CHAT.path, chat(b'"n": 129'), "n", "invalid_value", id="n is 129"),
    pytest.param(CHAT.path, chat(b'"stream_options": true'), "stream_options", "invalid_type", id="stream_options"),
    pytest.param(EMBEDDINGS, b'{"model": "ada", "input": 7}', "input", "invalid_type", id="input is a number"),
    pytest.param(COMPLETIONS, b'{"model": "ada", "prompt": {}}', "prompt", "invalid_type", id="prompt is an object"),
]


@pytest.mark.parametrize(("path", "body", "param", "code"), [*MALFORMED, *DUPLICATES, *MISSING, *WRONG])
async def test_bad_input_is_refused_with_400(path: str, body: bytes, param: str | None, code: str) -> None:
    failure = await refused(scope_of(path, JSON), Client.sending(body))
    assert (failure.status, failure.code, failure.param) == (400, code, param)


async def test_too_deep_a_body_is_told_so() -> None:
    failure = await refused(scope_of(CHAT.path, JSON), Client.sending(chat(b'"tools": ' + b"[" * 2000 + b"]" * 2000)))
    assert failure.message == "The body is nested too deeply."


async def test_a_body_declared_too_long_is_refused_unread() -> None:
    client = Client.sending(GOOD)
    failure = await refused(scope_of(CHAT.path, JSON, (b"content-length", b"101")), client, max_bytes=100)
    assert (failure.status, failure.code) == (413, "request_too_large")
    assert client.received == 0
    assert (b"connection", b"close") in failure.headers


async def test_a_body_that_turns_out_too_long_is_not_read_to_its_end() -> None:
    client = Client.sending(*[b" " * 40] * 10)
    failure = await refused(scope_of(CHAT.path, JSON), client, max_bytes=100)
    assert failure.status == 413
    assert client.received == 3


async def test_a_body_of_exactly_the_limit_passes() -> None:
    client = Client.sending(GOOD[:10], GOOD[10:])
    assert await taken(scope_of(CHAT.path, JSON), client, max_bytes=len(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param(CHAT.path, [], id="no media type"),
        pytest.param(CHAT.path, [(b"content-type", b"text/plain")], id="text where JSON is wanted"),
        pytest.param(CHAT.path, [(b"content-type", b"application/jsonp")], id="a type that only begins like JSON"),
        pytest.param(CHAT.path, [(b"content-type", b"multipart/form-data; boundary=x")], id="a form for JSON"),
        pytest.param(TRANSCRIPTIONS, [JSON], id="JSON where a form is wanted"),
        pytest.param(CHAT.path, [JSON, (b"content-encoding", b"br")], id="a coding that is not known"),
        pytest.param(CHAT.path, [JSON, (b"content-encoding", b"gzip, gzip")], id="two codings"),
    ],
)
async def test_another_media_type_or_coding_is_refused_with_415(path: str, headers: list[tuple[bytes, bytes]]) -> None:
    failure = await refused(scope_of(path, *headers), Client.sending(GOOD))
    assert (failure.status, failure.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", [b"application/json; charset=utf-8", b"Application/JSON", b"application/json ;x=y"]
)
async def test_json_may_be_spelled_with_parameters_and_capitals(content_type: bytes) -> None:
    assert await taken(scope_of(CHAT.path, (b"content-type", content_type)), Client.sending(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        pytest.param(b"gzip", gzip.compress(GOOD), id="gzip"),
        pytest.param(b" GZIP ", gzip.compress(GOOD), id="gzip in capitals"),
        pytest.param(b"deflate", zlib.compress(GOOD), id="deflate"),
        pytest.param(b"identity", GOOD, id="identity"),
    ],
)
async def test_a_compressed_body_is_read_and_handed_on_plain(coding: bytes, packed: bytes) -> None:
    scope = scope_of(CHAT.path, JSON, (b"content-encoding", coding))
    assert await taken(scope, Client.sending(packed[:5], packed[5:])) == GOOD
    assert state_of(scope).call.body == GOOD


async def test_the_headers_of_a_compressed_body_are_those_of_the_plain_one_inside() -> None:
    """Who reads as far as a length says, as WSGI does, would cut it; who decompresses would find nothing to."""
    packed = gzip.compress(GOOD + b" " * 1000)
    length, coding = (b"content-length", b"%d" % len(packed)), (b"content-encoding", b"gzip")
    scope = scope_of(CHAT.path, JSON, length, coding)
    inside, client = Inside(), Client.sending(packed)
    await IntakeMiddleware(inside)(scope, client.receive, client.send)
    assert inside.scopes[0]["headers"] == [JSON, (b"content-length", b"%d" % (len(GOOD) + 1000))]
    assert scope["headers"] == [JSON, length, coding]
    assert state_of(inside.scopes[0]) is state_of(scope)


@pytest.mark.parametrize(
    ("packed", "status", "code"),
    [
        pytest.param(gzip.compress(GOOD)[:-9], 400, "invalid_body", id="cut short"),
        pytest.param(b"", 400, "invalid_body", id="empty"),
        pytest.param(GOOD, 400, "invalid_body", id="not compressed at all"),
        pytest.param(gzip.compress(b" " * 10_000_000), 413, "request_too_large", id="a bomb"),
    ],
)
async def test_a_bad_gzip_body_is_refused(packed: bytes, status: int, code: str) -> None:
    scope = scope_of(CHAT.path, JSON, (b"content-encoding", b"gzip"))
    failure = await refused(scope, Client.sending(packed), max_bytes=100_000)
    assert (failure.status, failure.code) == (status, code)


@pytest.mark.parametrize("length", [b"ten", b"-1", b"1, 1", b"+1_0"])
async def test_an_unreadable_length_is_not_a_defect(length: bytes) -> None:
    """Servers refuse these themselves; an app that is mounted in a test client may see them."""
    scope = scope_of(CHAT.path, JSON, (b"content-length", length))
    assert await taken(scope, Client.sending(GOOD)) == GOOD


async def test_a_slow_body_is_given_up_with_408() -> None:
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if not parts:
            await asyncio.sleep(60)
        return parts.pop()

    inside = Inside()
    with pytest.raises(ClientError) as caught:
        await IntakeMiddleware(inside, body_timeout=0.01)(scope_of(CHAT.path, JSON), receive, Client().send)
    assert (caught.value.status, caught.value.code) == (408, "request_timeout")
    assert (b"connection", b"close") in caught.value.headers
    assert inside.calls == 0


async def test_a_body_that_never_begins_is_given_up_with_408() -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        return {}

    with pytest.raises(ClientError) as caught:
        async with asyncio.timeout(1):
            await IntakeMiddleware(Inside(), body_timeout=0.01)(scope_of(CHAT.path, JSON), receive, Client().send)
    assert caught.value.status == 408


@pytest.mark.parametrize("parts", [0, 1, 2])
async def test_a_client_that_leaves_while_sending_is_not_answered(parts: int) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}] * parts
    client, inside = Client([*messages]), Inside()
    await IntakeMiddleware(inside)(scope_of(CHAT.path, JSON), client.receive, client.send)
    assert inside.calls == 0
    assert client.sent == []


async def test_after_the_body_the_app_inside_hears_what_the_client_does_next() -> None:
    heard: list[Message] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([await receive(), await receive()])

    client = Client.sending(GOOD[:3], GOOD[3:])
    await IntakeMiddleware(inside)(scope_of(CHAT.path, JSON), client.receive, client.send)
    assert heard == [{"type": "http.request", "body": GOOD, "more_body": False}, {"type": "http.disconnect"}]


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(scope_of("/v1/nothing"), id="a path that is no operation"),
        pytest.param(scope_of("/v1/models", method="GET"), id="an operation that is not relayed"),
        pytest.param(scope_of(CHAT.path, method="GET"), id="another method"),
        pytest.param({"type": "lifespan", "state": {}}, id="lifespan"),
        pytest.param({"type": "websocket", "path": CHAT.path, "state": {}}, id="a websocket"),
    ],
)
async def test_other_requests_pass_unread(scope: Message) -> None:
    client, inside = Client.sending(GOOD), Inside()
    await IntakeMiddleware(inside)(scope, client.receive, client.send)
    assert inside.calls == 1
    assert client.received == 0
    assert state_of(scope).call is None


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"max_tokens": 7}, 7, id="the old name"),
        pytest.param({"max_completion_tokens": 9}, 9, id="the new name"),
        pytest.param({"max_tokens": 7, "max_completion_tokens": 9}, 9, id="the larger of both"),
        pytest.param({"max_tokens": 9, "max_completion_tokens": 1}, 9, id="whichever that is"),
        pytest.param({"max_tokens": 7, "max_completion_tokens": None}, 7, id="null is absent"),
        pytest.param({"max_tokens": 7, "max_completion_tokens": 0}, 7, id="0 is no limit"),
    ],
)
async def test_the_output_limit(fields: dict[str, Any], limit: int | None) -> None:
    scope = scope_of(CHAT.path, JSON)
    await taken(scope, Client.sending(json.dumps({**json.loads(GOOD), **fields}).encode()))
    assert state_of(scope).call.output_limit == limit


async def test_the_call_says_what_was_asked() -> None:
    scope = scope_of(
        CHAT.path,
        JSON,
        (b"authorization", b"Bearer sk-alice"),
        (b"x-api-key", b"sk-alice"),
        (b"cookie", b"session=1"),
        (b"x-forwarded-for", b"198.51.100.4"),
        (b"user-agent", b"curl"),
        (b"accept", b"text/event-stream"),
        (b"openai-beta", b"assistants=v2"),
        (b"openai-organization", b"org-alice"),
        query=b"api-version=1",
    )
    body = chat(b'"stream": true, "n": 3')
    await taken(scope, Client.sending(body))
    call = state_of(scope).call
    assert (call.operation, call.model, call.base_model) == (CHAT, "gpt-4o", "gpt-4o")
    assert (call.stream, call.choices, call.body, call.query) == (True, 3, body, "api-version=1")
    assert call.document == json.loads(body)
    assert call.headers == ((b"accept", b"text/event-stream"), (b"openai-beta", b"assistants=v2"))


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/moderations", b'{"input": "hello"}', "omni-moderation-latest"),
        ("/v1/images/generations", b'{"prompt": "a cat"}', "dall-e-2"),
    ],
)
async def test_an_absent_model_means_the_documented_default(path: str, body: bytes, model: str) -> None:
    scope = scope_of(path, JSON)
    await taken(scope, Client.sending(body))
    assert state_of(scope).call.model == model


async def test_an_operation_is_found_below_a_mount() -> None:
    scope = {**scope_of("/api/v1/chat/completions", JSON), "root_path": "/api"}
    await taken(scope, Client.sending(GOOD))
    assert state_of(scope).call.operation is CHAT


FORM = (b"content-type", b"multipart/form-data; boundary=edge")
SOUND = b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'


def field(name: bytes, value: bytes) -> bytes:
    return b'--edge\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value)


END = b"--edge--\r\n"
MODEL = field(b"model", b"whisper-1")


async def test_a_form_is_read_and_handed_on_byte_by_byte() -> None:
    scope = scope_of(TRANSCRIPTIONS, FORM)
    body = SOUND + MODEL + field(b"stream", b"true") + END
    assert await taken(scope, Client.sending(body)) == body
    call = state_of(scope).call
    assert (call.model, call.stream, call.choices, call.is_form) == ("whisper-1", True, 1, True)
    assert call.model_span is not None
    assert body[slice(*call.model_span)] == b"whisper-1"


@pytest.mark.parametrize(
    ("path", "content_type", "body", "param", "code"),
    [
        pytest.param(
            TRANSCRIPTIONS, b"multipart/form-data", SOUND + MODEL + END, None, "invalid_form", id="no boundary"
        ),
        pytest.param(TRANSCRIPTIONS, FORM[1], MODEL + END, "file", "missing_required_parameter", id="no file"),
        pytest.param(TRANSCRIPTIONS, FORM[1], SOUND + END, "model", "missing_required_parameter", id="no model"),
        pytest.param(
            TRANSCRIPTIONS,
            FORM[1],
            SOUND + MODEL + MODEL + END,
            "model",
            "duplicate_parameter",
            id="the model twice",
        ),
        pytest.param(TRANSCRIPTIONS, FORM[1], SOUND + MODEL, None, "invalid_form", id="no closing boundary"),
        pytest.param(TRANSCRIPTIONS, FORM[1], b"", None, "invalid_form", id="no body"),
        pytest.param(
            "/v1/images/edits", FORM[1], SOUND + MODEL + END, "image", "missing_required_parameter", id="no picture"
        ),
        pytest.param(
            TRANSCRIPTIONS, FORM[1], SOUND + MODEL + field(b"n", b"0") + END, "n", "invalid_value", id="n is 0"
        ),
        pytest.param(
            TRANSCRIPTIONS,
            FORM[1],
            SOUND + MODEL + field(b"n", b"9" * 9000) + END,
            "n",
            "invalid_value",
            id="n has 9,000 digits",
        ),
        pytest.param(
            TRANSCRIPTIONS,
            FORM[1],
            SOUND + MODEL + field(b"n", b"000001" + b"0" * 9000) + END,
            "n",
            "invalid_value",
            id="n hides its digits behind zeros",
        ),
    ],
)
async def test_a_bad_form_is_refused_with_400(
    path: str, content_type: bytes, body: bytes, param: str | None, code: str
) -> None:
    failure = await refused(scope_of(path, (b"content-type", content_type)), Client.sending(body))
    assert (failure.status, failure.code, failure.param) == (400, code, param)
