"""Both event loops and both transports. No test may leave a connection behind."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tollway.gateway.upstream.fast import FastTransport
from tollway.gateway.upstream.httpx_transport import HttpxTransport
from tollway.gateway.upstream.port import Upstream


@pytest.fixture(
    params=[pytest.param({"use_uvloop": True}, id="uvloop"), pytest.param({"use_uvloop": False}, id="asyncio")]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", request.param


@pytest.fixture
async def fast(anyio_backend: object) -> AsyncIterator[FastTransport]:
    transport = FastTransport()
    yield transport
    stats = transport.stats()
    await transport.close()
    assert stats.open == stats.idle, "a connection was neither given back nor dropped"
    assert transport.stats().open == 0


@pytest.fixture(params=["fast", "httpx"])
async def transport(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Upstream]:
    """Every promise of the port that both transports keep is tested on both."""
    made = FastTransport() if request.param == "fast" else HttpxTransport()
    yield made
    await made.close()
