"""What the tests of the inner layers share: scopes, clients that send and receive, channels, failures and apps."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tollway.adapters.call import Call
from tollway.adapters.errors import Fault, UpstreamError, UpstreamStatus
from tollway.adapters.operations import BY_PATH
from tollway.config.channel import Channel, ChannelType
from tollway.config.secret import Secret
from tollway.middleware.state import Candidate, Principal

Message = dict[str, Any]
CHAT = BY_PATH["/v1/chat/completions"]
IMAGES = BY_PATH["/v1/images/generations"]
ALICE = Principal(token_id=1, user_id=1)


def scope_of(path: str = CHAT.path, *headers: tuple[bytes, bytes], method: str = "POST", query: bytes = b"") -> Message:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "client": ("192.0.2.7", 4711),
        "state": {},
    }


def call_of(model: str = "gpt-4o", **given: Any) -> Call:
    document = given.pop("document", {"model": model, "messages": [{"role": "user", "content": "hello"}]})
    given.setdefault("operation", CHAT)
    return Call(model=model, base_model=given.pop("base_model", model), document=document, **given)


def channel(id: int, *models: str, keys: int = 1, **given: Any) -> Channel:
    given.setdefault("keys", tuple(Secret(f"sk-{id}-{number}") for number in range(keys)))
    return Channel(id, f"channel {id}", ChannelType.OPENAI, models or ("gpt-4o",), **given)


def candidate(id: int = 1, key_index: int = 0) -> Candidate:
    return Candidate(channel(id, keys=key_index + 1), key_index)


def status_failure(
    status: int, *, fault: Fault = "channel", retry_after: float | None = None, body: bytes = b"{}"
) -> UpstreamStatus:
    return UpstreamStatus(
        f"The upstream answered with status {status}.",
        status=status,
        answer_headers=(),
        answer_body=body,
        retryable=fault != "caller",
        fault=fault,
        retry_after=retry_after,
    )


def broken(fault: Fault = "channel") -> UpstreamError:
    return UpstreamError("It failed.", fault=fault)


@dataclass
class Client:
    """Sends these messages in turn, then is gone; keeps whatever it is sent."""

    messages: list[Message] = field(default_factory=list[Message])
    sent: list[Message] = field(default_factory=list[Message])
    received: int = 0

    @classmethod
    def sending(cls, *parts: bytes) -> "Client":
        last = len(parts) - 1
        return cls([{"type": "http.request", "body": part, "more_body": at < last} for at, part in enumerate(parts)])

    async def receive(self) -> Message:
        self.received += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


class Inside:
    """An app inside a layer: notes the scopes it is called with and answers, in these pieces."""

    def __init__(
        self, *pieces: bytes, status: int = 200, content_type: bytes = b"application/json", ends: bool = True
    ) -> None:
        self.pieces = pieces or (b"{}",)
        self.start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]}
        self.ends = ends
        self.scopes: list[Message] = []

    @property
    def calls(self) -> int:
        return len(self.scopes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({**self.start})
        for at, piece in enumerate(self.pieces):
            more = not self.ends or at < len(self.pieces) - 1
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def read_all(receive: Any) -> bytes:
    """The body that an app inside can read."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def ids(candidates: Iterable[Candidate]) -> list[int]:
    return [each.channel.id for each in candidates]


def places(candidates: Iterable[Candidate]) -> list[tuple[int, int]]:
    return [(each.channel.id, each.key_index) for each in candidates]
