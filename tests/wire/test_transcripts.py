"""
Golden transcripts: what a client sends, what the provider is sent, and both ways back.

`<provider>/<case>/` holds `case.toml` (path, channel, and the upstream request's URL and headers), the body as the
client sent it and as the upstream must get it (`request.json` and `upstream.json`, or `.form`), and for streams the
provider's bytes and ours (`upstream.sse`, `client.sse`). A new provider's first test is a new folder.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from tollway.adapters.answers.watch import StreamWatch
from tollway.adapters.call import Call
from tollway.adapters.providers.provider import same_path
from tollway.adapters.providers.registry import PROVIDERS
from tollway.adapters.requests.upstream_request import UpstreamRequestBuilder
from tollway.config.channel import Channel, ChannelType
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.pricing import Usage
from tollway.config.secret import Secret
from tollway.middleware.intake import IntakeMiddleware
from tollway.middleware.model_suffix import ModelSuffixMiddleware
from tollway.middleware.state import state_of

HERE = Path(__file__).parent

# Every client sends these, and none of them may arrive.
PRIVATE = [
    (b"authorization", b"Bearer sk-client-private"),
    (b"x-api-key", b"sk-client-private"),
    (b"api-key", b"sk-client-private"),
    (b"cookie", b"session=client-private"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"openai-organization", b"org-client-private"),
    (b"host", b"gateway.client-private.example"),
    (b"user-agent", b"OpenAI/Python client-private"),
    (b"x-stainless-os", b"client-private"),
    (b"connection", b"keep-alive, client-private"),
]


@dataclass(frozen=True)
class Case:
    folder: Path
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Case":
        return cls(folder, tomllib.loads((folder / "case.toml").read_text(encoding="utf-8")))

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / f"{name}.{'form' if self.is_form else 'json'}").read_bytes()

    @property
    def is_form(self) -> bool:
        return (self.folder / "request.form").exists()

    @property
    def channel(self) -> Channel:
        given = {"keys": ["sk-upstream"], "models": [], "name": "golden", "id": 1, **self.facts.get("channel", {})}
        given["type"] = ChannelType[given["type"]]
        given["keys"] = tuple(map(Secret, given["keys"]))
        return Channel(**given)

    async def call(self) -> Call:
        """The call as intake and model_suffix make it of the client's request."""
        calls: list[Call] = []

        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            calls.append(state_of(scope).call)

        content_type = b"multipart/form-data; boundary=golden" if self.is_form else b"application/json"
        headers = [(name.encode(), value.encode()) for name, value in self.facts.get("headers", {}).items()]
        path, _, query = str(self.facts["path"]).partition("?")
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"content-type", content_type), *headers, *PRIVATE],
        }
        body = self.bytes_of("request")

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: object) -> None:
            raise AssertionError("nothing is answered here")

        await IntakeMiddleware(ModelSuffixMiddleware(note))(scope, receive, send)
        return calls[0]


CASES = [Case.read(path.parent) for path in sorted(HERE.glob("*/*/case.toml"))]


def cases(*names: str) -> pytest.MarkDecorator:
    """The cases that hold these files."""
    fitting = [case for case in CASES if all((case.folder / name).exists() for name in names)]
    ids = [f"{case.folder.parent.name}: {case.folder.name.replace('_', ' ')}" for case in fitting]
    return pytest.mark.parametrize("case", fitting, ids=ids)


def builder(case: Case) -> UpstreamRequestBuilder:
    options = Options(**case.facts.get("options", {}))
    return UpstreamRequestBuilder(api_version="2024-10-21", options=Live(options))


@pytest.mark.anyio
@cases("case.toml")
async def test_what_the_upstream_is_sent(case: Case) -> None:
    exchange = builder(case).build(await case.call(), case.channel, 0)
    outgoing, upstream = exchange.outgoing, case.facts["upstream"]
    assert outgoing.body == case.bytes_of("upstream")
    assert outgoing.url == upstream["url"]
    content_type = "multipart/form-data; boundary=golden" if case.is_form else "application/json"
    expected = {"content-type": content_type, "user-agent": "tollway", **upstream["headers"]}
    assert [(name.decode(), value.decode()) for name, value in sorted(outgoing.headers)] == sorted(expected.items())
    assert outgoing.method == "POST"
    assert outgoing.transport == upstream.get("transport", "http")
    assert exchange.strip_usage is upstream.get("strip_usage", False)
    assert b"client-private" not in repr(outgoing).encode()


@pytest.mark.anyio
@cases("upstream.sse")
@pytest.mark.parametrize("size", [1, 7, 10**9], ids=["a byte at a time", "seven bytes at a time", "at once"])
async def test_what_the_client_is_sent_back(case: Case, size: int) -> None:
    call = await case.call()
    exchange = builder(case).build(call, case.channel, 0)
    watch = StreamWatch(call.operation.ends, strip_usage=exchange.strip_usage)
    stream = (case.folder / "upstream.sse").read_bytes()
    passed = b"".join(watch.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + watch.finish()
    assert passed == (case.folder / "client.sse").read_bytes()
    assert watch.ended
    assert not watch.failed
    assert watch.usage == Usage(**case.facts["usage"])


def test_every_provider_with_code_of_its_own_has_a_transcript() -> None:
    with_code = {row.type.name.lower() for row in PROVIDERS.values() if row.address is not same_path}
    assert with_code <= {case.folder.parent.name for case in CASES}
