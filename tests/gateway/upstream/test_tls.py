"""TLS against real servers: verified with the right authority, refused without."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tollway.adapters.errors import UpstreamError, UpstreamRefused
from tollway.gateway.upstream.fast import FastTransport
from tollway.gateway.upstream.httpx_transport import HttpxTransport
from tollway.gateway.upstream.pool import PoolStats
from tollway.gateway.upstream.port import Timeouts

from .helpers import PATIENT, ask, get, post
from .scripted import Peer, upstream

pytestmark = pytest.mark.anyio

Transport = type[FastTransport] | type[HttpxTransport]


@dataclass(frozen=True)
class Authority:
    client: ssl.SSLContext
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "named.example")
    folder = tmp_path_factory.mktemp("tls")
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=index > 0)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return Authority(context, folder / "cert.pem", folder / "key.pem")


async def _echo(request: Request) -> Response:
    return Response(await request.body(), headers={"x-host": request.headers["host"]})


async def _stream(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        for index in range(20):
            yield b"data: %d\n\n" % index

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[int]:
    """A uvicorn with TLS; its port."""
    app = Starlette(routes=[Route("/", _echo, methods=["POST"]), Route("/stream", _stream)])
    config = uvicorn.Config(
        app,
        port=0,
        log_level="error",
        ssl_certfile=str(authority.certificate),
        ssl_keyfile=str(authority.key),
        ws="none",
    )
    running = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    while not running.started:
        thread.join(0.01)
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(params=[FastTransport, HttpxTransport], ids=["fast", "httpx"])
def kind(request: pytest.FixtureRequest) -> Transport:
    return request.param


async def test_a_certificate_of_a_known_authority_is_trusted(
    kind: Transport, authority: Authority, server: int
) -> None:
    transport = kind(tls=authority.client)
    for body in (b"hello", b"x" * 3_000_000):
        assert await ask(transport, post(f"https://localhost:{server}/", body)) == (200, body)
    _, events = await ask(transport, get(f"https://localhost:{server}/stream"))
    assert events.count(b"data: ") == 20
    if isinstance(transport, FastTransport):
        assert transport.stats() == PoolStats(open=1, idle=1)
    await transport.close()


@pytest.mark.parametrize(
    ("host", "known"),
    [
        pytest.param("localhost", False, id="an authority that nobody knows"),
        pytest.param("127.0.0.1", True, id="a certificate for another name"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_refused(
    kind: Transport, authority: Authority, server: int, host: str, known: bool
) -> None:
    transport = kind(tls=authority.client) if known else kind()
    with pytest.raises(UpstreamRefused) as refused:
        await ask(transport, post(f"https://{host}:{server}/"))
    assert refused.value.code == "upstream_tls_failed"
    await transport.close()


async def test_the_certificate_is_checked_against_the_name_not_the_address_judged(
    kind: Transport, authority: Authority, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr("tollway.gateway.upstream.guard.is_public", lambda address: True)
    transport = kind(tls=authority.client, resolve=resolve)
    assert await ask(transport, post(f"https://named.example:{server}/", b"a", user_url=True)) == (200, b"a")
    with pytest.raises(UpstreamRefused) as refused:
        await ask(transport, post(f"https://other.example:{server}/", b"a", user_url=True))
    assert refused.value.code == "upstream_tls_failed"
    await transport.close()


async def test_a_server_without_tls_is_refused(kind: Transport, authority: Authority) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1000)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    transport = kind(tls=authority.client)
    async with upstream(plain) as plain_server:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(transport, get(f"https://localhost:{plain_server.port}/"))
        assert refused.value.code == "upstream_tls_failed"
    await transport.close()


async def test_a_handshake_that_never_ends_is_a_connect_timeout(kind: Transport, authority: Authority) -> None:
    async def silence(peer: Peer) -> None:
        await peer.gone()

    transport = kind(tls=authority.client)
    async with upstream(silence) as silent:
        with pytest.raises(UpstreamError) as failure:
            await ask(transport, get(f"https://127.0.0.1:{silent.port}/"), Timeouts(connect=0.1))
        assert failure.value.code == "upstream_connect_timeout"
        await asyncio.wait_for(silent.peers[0].over.wait(), 1)
    await transport.close()


@pytest.fixture
def nginx(authority: Authority, tmp_path: Path) -> Iterator[int]:
    """An nginx with TLS that answers by itself; its port."""
    binary = shutil.which("nginx")
    if binary is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(
        f"""
        daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; worker_processes 1;
        events {{}}
        http {{
            access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};
            fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {authority.certificate}; ssl_certificate_key {authority.key};
                location / {{ return 200 "from nginx"; }}
            }}
        }}
        """
    )
    process = subprocess.Popen([binary, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
    for _ in range(300):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.01)
    yield port
    process.terminate()
    process.wait()


async def test_nginx_is_understood(kind: Transport, authority: Authority, nginx: int) -> None:
    transport = kind(tls=authority.client)
    for _ in range(3):
        assert await ask(transport, get(f"https://localhost:{nginx}/"), PATIENT) == (200, b"from nginx")
    await transport.close()
