"""Bytes on the wire: what scripted upstreams answer, and a client that adds and hides nothing."""

import http.client
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import Any

JSON = b"application/json"
SSE = b"text/event-stream; charset=utf-8"
MODEL = "gpt-4o-mini"

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
QUOTA = 225
"""What USAGE costs at gpt-4o-mini's price: 1000 x 0.075 + 500 x 0.3 quota."""


def whole(body: bytes, status: int = 200, content_type: bytes = JSON, *headers: bytes) -> bytes:
    """A whole answer with a Content-Length."""
    lines = [b"HTTP/1.1 %d X" % status, b"content-type: " + content_type, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def sse_head(content_type: bytes = SSE) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type + b"\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def completion(text: str = "Hello!", usage: Any = USAGE) -> bytes:
    """A chat completion as JSON."""
    message = {"role": "assistant", "content": text, "refusal": None}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
    }
    return json.dumps(document | ({} if usage is None else {"usage": usage})).encode()


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


def usage_event(usage: Any = USAGE) -> bytes:
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [],
            "usage": usage,
        }
    )


def stream(*events: bytes) -> bytes:
    """A whole stream, an event a chunk."""
    return sse_head() + b"".join(map(chunk, events)) + LAST_CHUNK


HELLO = stream(delta("Hel"), delta("lo!"), usage_event(), DONE)
SERVER_ERROR = b'{"error":{"message":"The server had an error.","type":"server_error","param":null,"code":null}}'


@dataclass
class Answer:
    """What a client got. `headers` have names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


def ask(
    address: str,
    path: str,
    key: str | None = None,
    body: bytes | dict[str, Any] | None = None,
    *,
    method: str | None = None,
    content_type: str | None = "application/json",
    headers: dict[str, str] | None = None,
    timeout: float = 10,
) -> Answer:
    """One request on a connection of its own. Nothing is retried, decoded or followed."""
    host, _, port = address.removeprefix("http://").partition(":")
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = dict(headers or {})
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    if data is not None and content_type is not None:
        sent["Content-Type"] = content_type
    with closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
        connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())


class OpenRequest:
    """A request whose answer is read, or left, as the test likes."""

    def __init__(
        self,
        address: str,
        key: str,
        body: dict[str, Any],
        path: str = "/v1/chat/completions",
        declared: int | None = None,
        request_id: str = "",
    ) -> None:
        """`declared`: a Content-Length that is not the body's own."""
        data = json.dumps(body).encode()
        host, _, port = address.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {declared or len(data)}\r\n"
        )
        head += f"X-Request-Id: {request_id}\r\n\r\n" if request_id else "\r\n"
        self.socket.sendall(head.encode() + data)
        self.seen = b""

    def read_until(self, mark: bytes) -> bytes:
        """Everything that has come, once `mark` is in it."""
        while mark not in self.seen:
            data = self.socket.recv(65536)
            assert data, f"the answer ended before {mark!r}: {self.seen!r}"
            self.seen += data
        return self.seen

    def hang_up(self) -> None:
        self.socket.close()

    def __enter__(self) -> "OpenRequest":
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang_up()
