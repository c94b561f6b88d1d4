"""The gateway inside other apps: at a prefix, behind their middleware, and twice in one process."""

import asyncio
import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import openai
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tollway.config.settings import Settings
from tollway.gateway.app import Tollway, create_app

from .conftest import ClientOf, UpstreamOf
from .gateway import Account, Gateway
from .running import served
from .scripted import always, holds
from .wire import CHAT, DONE, HELLO, MODEL, OpenRequest, ask, chunk, delta, sse_head

HI = [{"role": "user", "content": "hello wide world"}]
STREAM = CHAT | {"stream": True}
LEAVE = b"and now the client leaves"


class HostMiddleware(BaseHTTPMiddleware):
    """What many host apps have around everything: it reads the request and changes the answer."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.seen_by_host = True
        response = await call_next(request)
        response.headers["x-host"] = "was here"
        return response


def in_fastapi(tollway: Tollway) -> ASGIApp:
    app = FastAPI(lifespan=tollway.lifespan)

    @app.get("/own")
    async def own() -> dict[str, str]:
        return {"host": "own"}

    app.mount("/llm", tollway)
    return app


def in_starlette(tollway: Tollway) -> ASGIApp:
    async def own(request: Request) -> Response:
        return PlainTextResponse("own")

    return Starlette(routes=[Route("/own", own), Mount("/llm", tollway)], lifespan=tollway.lifespan)


def behind_middleware(tollway: Tollway) -> ASGIApp:
    app = FastAPI(lifespan=tollway.lifespan)
    app.add_middleware(HostMiddleware)

    @app.get("/own")
    async def own() -> dict[str, str]:
        return {"host": "own"}

    app.mount("/llm", tollway)
    return app


def two_levels_down(tollway: Tollway) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: Starlette):
        async with tollway.lifespan(app):
            yield

    async def own(request: Request) -> Response:
        return PlainTextResponse("own")

    inner = Starlette(routes=[Mount("/lm", tollway)], middleware=[Middleware(HostMiddleware)])
    return Starlette(routes=[Route("/own", own), Mount("/l", inner)], lifespan=lifespan)


HOSTS: dict[str, tuple[Callable[[Tollway], ASGIApp], str]] = {
    "FastAPI": (in_fastapi, "/llm"),
    "Starlette": (in_starlette, "/llm"),
    "FastAPI with a BaseHTTPMiddleware": (behind_middleware, "/llm"),
    "Starlette in Starlette": (two_levels_down, "/l/lm"),
}


class Mounted(Gateway):
    prefix = ""

    @property
    def base_url(self) -> str:
        return f"{self.address}{self.prefix}/v1"


def quiet(folder: Path) -> Settings:
    return Settings(data_dir=folder, access_log=False)


@pytest.fixture(scope="module", params=HOSTS.values(), ids=HOSTS)
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    host, prefix = request.param
    tollway = create_app(quiet(tmp_path_factory.mktemp("mounted")))
    with served(host(tollway)) as server:
        gateway = Mounted(tollway, server)
        gateway.prefix = prefix
        yield gateway


@pytest.fixture
def mounted_account(mounted: Mounted) -> Account:
    return mounted.account()


def test_the_sdk_works_at_the_prefix(mounted: Mounted, mounted_account: Account, client_of: ClientOf) -> None:
    mounted.channel(mounted_account)
    client = client_of(mounted_account.key, base_url=mounted.base_url)
    assert client.chat.completions.create(model=MODEL, messages=HI).choices[0].message.content == "hello wide world"
    chunks = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello wide world"
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"
    assert len(mounted.charges(mounted_account)) == 2


def test_the_hosts_own_routes_work_and_its_other_paths_are_its_own(mounted: Mounted) -> None:
    assert b"own" in ask(mounted.address, "/own").body
    outside = ask(mounted.address, "/v1/chat/completions", "sk-x", CHAT)
    assert outside.status == 404
    assert b"unknown_url" not in outside.body


def test_pages_and_errors_at_the_prefix(mounted: Mounted) -> None:
    prefix = mounted.prefix
    assert ask(mounted.address, f"{prefix}/healthz").status == 200
    assert ask(mounted.address, f"{prefix}/readyz").status == 200
    assert b"tollway_requests_total" in ask(mounted.address, f"{prefix}/metrics").body
    assert ask(mounted.address, f"{prefix}/").json["api"] == f"{prefix}/v1"
    unknown = ask(mounted.address, f"{prefix}/v1/nothing", "sk-x", CHAT)
    assert (unknown.status, unknown.error["code"]) == (404, "unknown_url")
    assert unknown.error["message"] == f"Unknown URL: POST {prefix}/v1/nothing"
    short = ask(mounted.address, f"{prefix}/chat/completions", "sk-x", CHAT)
    assert short.error["message"].endswith(f"POST {prefix}/chat/completions: the base URL must end in {prefix}/v1")
    twice = ask(mounted.address, f"{prefix}/v1/v1/chat/completions", "sk-x", CHAT)
    assert twice.error["message"].endswith(f": the base URL must end in {prefix}/v1 once")
    whole = ask(mounted.address, f"{prefix}/v1/chat/completions/chat/completions", "sk-x", CHAT)
    assert whole.error["message"].endswith(f"/chat/completions: the base URL must end in {prefix}/v1")
    for path in ("responses", "files/file-1/content", "batches"):
        missing = ask(mounted.address, f"{prefix}/v1/{path}", "sk-x")
        assert missing.error["message"].endswith(f"/v1/{path}: {path.split('/')[0]} are not served yet")
    for path, dialect in {
        "/v1/messages": "Anthropic",
        "/v1beta/models/gemini-2.5-pro:generateContent": "Gemini",
    }.items():
        missing = ask(mounted.address, f"{prefix}{path}", "sk-x", CHAT)
        assert missing.error["message"].endswith(f"{path}: {dialect}'s dialect is not served yet")
    assert ask(mounted.address, f"{prefix}/v1/models", "sk-x").error["code"] == "invalid_api_key"


def test_events_are_not_held_back(mounted: Mounted, mounted_account: Account, upstream: UpstreamOf) -> None:
    mounted.channel(mounted_account, upstream(holds(sse_head(), chunk(delta("first")))).url)
    path = f"{mounted.prefix}/v1/chat/completions"
    with OpenRequest(mounted.address, mounted_account.key, STREAM, path) as client:
        assert b"x-tollway-attempts: 1" in client.read_until(b"first")


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["before the first byte", "in the middle of a stream"])
def test_a_hang_up_is_noticed(
    body: dict[str, object], mounted: Mounted, mounted_account: Account, upstream: UpstreamOf
) -> None:
    streams = body is STREAM
    endless = upstream(holds(*(sse_head(), chunk(delta("first"))) if streams else ()))
    mounted.channel(mounted_account, endless.url)
    path = f"{mounted.prefix}/v1/chat/completions"
    with OpenRequest(mounted.address, mounted_account.key, body, path) as client:
        assert endless.asked.wait(5)
        if streams:
            client.read_until(b"first")
        since = time.monotonic()
        client.hang_up()
        assert endless.left.wait(5)
    assert endless.left_at[0] - since < 0.3
    charge = mounted.charge(mounted_account)
    assert (charge.outcome, charge.estimated) == ("cancelled", True)
    assert mounted.held(mounted_account) == (0, 0)
    assert mounted.app.metrics.in_flight == 0


def test_behind_a_proxy_that_takes_a_prefix_off(tmp_path: Path, upstream: UpstreamOf) -> None:
    """`root_path` says what the proxy has taken off; paths arrive without it, or with it (ASGI 3.0)."""
    tollway = create_app(quiet(tmp_path))
    with served(tollway, root_path="/outside") as server:
        gateway = Gateway(tollway, server)
        account = gateway.account()
        gateway.channel(account, upstream(always(HELLO)).url)
        assert gateway.chat(account, STREAM).body.endswith(DONE)
        assert ask(server.address, "/").json["api"] == "/outside/v1"
        assert ask(server.address, "/healthz").status == 200


def test_without_its_lifespan_it_says_what_is_missing(tmp_path: Path) -> None:
    tollway = create_app(quiet(tmp_path))
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [], "query_string": b"", "state": {}}

    async def never(*_: object) -> dict[str, object]:
        raise AssertionError("nothing is read or sent")

    with pytest.raises(RuntimeError, match=r"pass its lifespan on, as in FastAPI\(lifespan=tollway.lifespan\)"):
        asyncio.run(tollway(scope, never, never))


def test_before_it_is_started_it_is_alive_but_not_ready(tmp_path: Path) -> None:
    host = FastAPI()
    host.mount("/llm", create_app(quiet(tmp_path)))
    with served(host) as server:
        assert ask(server.address, "/llm/healthz").status == 200
        assert ask(server.address, "/llm/readyz").status == 503


def test_two_in_one_process_share_nothing(tmp_path: Path, upstream: UpstreamOf) -> None:
    with ExitStack() as stack:
        one, other = (
            Gateway(app, stack.enter_context(served(app)))
            for app in (create_app(quiet(tmp_path / "one")), create_app(quiet(tmp_path / "other")))
        )
        account = one.account()
        one.channel(account, upstream(always(HELLO)).url)
        assert one.chat(account, STREAM).status == 200
        assert ask(other.address, "/v1/models", account.key).status == 401
        assert len(one.charges(account)) == 1
        assert other.snapshot.pool.index.channels == ()
        assert b'channel="1",dialect="openai_chat"' in ask(one.address, "/metrics").body
        assert b'dialect="openai_chat"' not in ask(other.address, "/metrics").body
        assert (tmp_path / "one" / "crypto_secret").read_text() != (tmp_path / "other" / "crypto_secret").read_text()


def test_two_in_one_host_app(tmp_path: Path, upstream: UpstreamOf) -> None:
    one, other = create_app(quiet(tmp_path / "one")), create_app(quiet(tmp_path / "other"))

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        async with one.lifespan(app), other.lifespan(app):
            yield

    host = FastAPI(lifespan=lifespan)
    host.mount("/one", one)
    host.mount("/other", other)
    with served(host) as server:
        gateway = Gateway(one, server)
        account = gateway.account()
        gateway.channel(account, upstream(always(HELLO)).url)
        path = "/v1/chat/completions"
        assert ask(server.address, f"/one{path}", account.key, STREAM).status == 200
        assert ask(server.address, f"/other{path}", account.key, STREAM).status == 401


def test_a_server_that_tells_by_an_error_that_the_client_has_left(tmp_path: Path, upstream: UpstreamOf) -> None:
    """ASGI 2.4: `send` raises an OSError then. What was delivered until then is charged."""
    tollway = create_app(quiet(tmp_path))

    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_left(message: Message) -> None:
            if LEAVE in message.get("body", b""):
                raise OSError("the client has left")
            await send(message)

        await tollway(scope, receive, send_unless_left if scope["type"] == "http" else send)

    with served(host) as server:
        gateway = Gateway(tollway, server)
        account = gateway.account()
        endless = upstream(holds(sse_head(), chunk(delta("One two three four five.")), chunk(delta(LEAVE.decode()))))
        gateway.channel(account, endless.url)
        with pytest.raises(http.client.IncompleteRead):
            gateway.chat(account, STREAM)
        charge = gateway.charge(account)
        assert charge.outcome == "cancelled"
        assert charge.output_tokens > 5
        assert endless.left.wait(5)
        assert gateway.held(account) == (0, 0)


def test_it_can_be_started_again(tmp_path: Path) -> None:
    tollway = create_app(quiet(tmp_path))
    for _ in range(2):
        with served(tollway) as server:
            gateway = Gateway(tollway, server)
            account = gateway.account()
            gateway.channel(account)
            assert gateway.chat(account, CHAT).status == 200
            assert ask(server.address, "/metrics").body.count(b"\ntollway_charges_pending ") == 1
