"""One gateway for the whole session, upstreams that play a script, and the vendor's own client."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest
from tollway.config.settings import Settings
from tollway.gateway.app import create_app
from tollway.gateway.store import options

from .gateway import Account, Gateway, now_ms
from .running import LoopThread, served
from .scripted import Script, ScriptedUpstream, scripted_upstream

CONNECT_S = 0.8
FIRST_BYTE_S = 0.6
SILENCE_S = 1.5
MOST_BYTES = 1024 * 1024

# A test that fails on purpose must not use up the retries of the tests behind it.
OPTIONS = {"retry_share": "1", "retry_backoff_s": "0.01"}


@pytest.fixture(scope="session")
def threads() -> Iterator[LoopThread]:
    threads = LoopThread()
    yield threads
    threads.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("gateway"),
        connect_timeout=CONNECT_S,
        first_byte_timeout=FIRST_BYTE_S,
        streaming_timeout=SILENCE_S,
        max_request_bytes=MOST_BYTES,
        access_log=False,
    )
    app = create_app(settings)
    with served(app) as server:
        gateway = Gateway(app, server)
        gateway.change(lambda store, vault: options.set_many(store, OPTIONS, now_ms=now_ms()))
        yield gateway


@pytest.fixture
def account(gateway: Gateway) -> Account:
    """A user with a dollar and an unlimited token, in a group of its own."""
    return gateway.account()


UpstreamOf = Callable[[Script], ScriptedUpstream]


@pytest.fixture
def upstream(threads: LoopThread) -> Iterator[UpstreamOf]:
    """`upstream(script)`: an upstream that plays it until the test ends."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_upstream(threads, script))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


ClientOf = Callable[..., openai.OpenAI]


@pytest.fixture
def client_of(gateway: Gateway) -> Iterator[ClientOf]:
    """`client_of(key)`: OpenAI's client of the gateway, which does not retry unless it is told to."""
    with ExitStack() as stack:

        def make(key: str, base_url: str = gateway.base_url, max_retries: int = 0) -> openai.OpenAI:
            client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=max_retries, timeout=10)
            return stack.enter_context(client)

        yield make
