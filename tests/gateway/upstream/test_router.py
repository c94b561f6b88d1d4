"""The way a request takes: built-in upstream, proxy, or straight to the network."""

import subprocess
import sys

import pytest
from tollway.adapters.errors import UpstreamError, UpstreamRefused
from tollway.adapters.outgoing import Outgoing
from tollway.gateway.upstream.port import Timeouts
from tollway.gateway.upstream.router import Upstreams

from .helpers import PATIENT, ask, body_of, get, post, wire
from .scripted import Peer, answers, holds, upstream

pytestmark = pytest.mark.anyio

ACCEPTED = b"\x05\x00\x00\x01" + bytes(6)
"""A SOCKS proxy has connected."""


def through(proxy: str, url: str = "http://upstream.example/v1/x?y=1", *, user_url: bool = False) -> Outgoing:
    headers = [(b"content-type", b"application/json")]
    return Outgoing("POST", url, headers, b"{}", proxy=proxy, user_url=user_url)


async def test_without_a_proxy_the_request_goes_straight_and_is_counted(anyio_backend: object) -> None:
    upstreams = Upstreams()
    async with upstream(answers(wire(b"ok"))) as server:
        assert await ask(upstreams, post(server.url)) == (200, b"ok")
        assert upstreams.stats().idle == 1
        await upstreams.close()
        assert upstreams.stats().open == 0


async def test_a_proxy_is_asked_for_the_whole_url(anyio_backend: object) -> None:
    upstreams = Upstreams()
    async with upstream(answers(wire(b"by proxy"))) as proxy:
        assert await ask(upstreams, through(f"http://127.0.0.1:{proxy.port}")) == (200, b"by proxy")
        assert proxy.requests[0].startswith(b"POST http://upstream.example/v1/x?y=1 HTTP/1.1\r\n")
        assert b"\r\nhost: upstream.example\r\n" in proxy.requests[0].lower()
        assert upstreams.stats().open == 0
    await upstreams.close()


async def test_a_proxy_is_shown_its_own_credentials(anyio_backend: object) -> None:
    upstreams = Upstreams()
    async with upstream(answers(wire(b"ok"))) as proxy:
        await ask(upstreams, through(f"http://user:word@127.0.0.1:{proxy.port}"))
        assert b"proxy-authorization: basic dxnlcjp3b3jk" in proxy.requests[0].lower()
    await upstreams.close()


async def test_a_proxy_that_refuses_a_tunnel_is_a_failure_to_connect(anyio_backend: object) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(wire(b"", status=b"407 Proxy Authentication Required"))
        await peer.gone()

    upstreams = Upstreams()
    async with upstream(script) as proxy:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(upstreams, through(f"http://127.0.0.1:{proxy.port}", "https://upstream.example/"))
        assert refused.value.code == "upstream_unreachable"
    await upstreams.close()


async def test_a_callers_url_is_judged_before_the_proxy_is_asked(anyio_backend: object) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.1"] if host == "inside.example" else ["1.1.1.1"]

    upstreams = Upstreams(resolve=resolve)
    async with upstream(answers(wire(b"ok"))) as proxy:
        at = f"http://127.0.0.1:{proxy.port}"
        with pytest.raises(UpstreamRefused) as refused:
            await ask(upstreams, through(at, "http://inside.example/", user_url=True))
        assert refused.value.code == "upstream_address_refused"
        assert await ask(upstreams, through(at, "http://outside.example/", user_url=True)) == (200, b"ok")
        assert proxy.requests[0].startswith(b"POST http://1.1.1.1/ HTTP/1.1\r\n")
        assert b"\r\nhost: outside.example\r\n" in proxy.requests[0].lower()
    await upstreams.close()


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param("ftp://127.0.0.1:1", id="another scheme"),
        pytest.param("not a url", id="no URL"),
        pytest.param("http://127.0.0.1:99999", id="an impossible port"),
        pytest.param("http://127.0.0.1:1", id="nobody listens"),
        pytest.param("socks5://127.0.0.1:1", id="SOCKS"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_refused_without_showing_it(anyio_backend: object, proxy: str) -> None:
    upstreams = Upstreams()
    with pytest.raises(UpstreamRefused) as refused:
        await ask(upstreams, through(proxy))
    assert "127.0.0.1" not in refused.value.message
    await upstreams.close()


async def test_a_socks_proxy_is_given_the_name_and_the_request(anyio_backend: object) -> None:
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        """RFC 1928, with user and password as in RFC 1929; the rest of the connection is the upstream's."""
        for size, reply in [(3, b"\x05\x02"), (11, b"\x01\x00"), (7 + len("upstream.example"), ACCEPTED)]:
            asked.append(await peer.reader.readexactly(size))
            await peer.send(reply)
        await answers(wire(b"by SOCKS"))(peer)

    upstreams = Upstreams()
    async with upstream(script) as proxy:
        assert await ask(upstreams, through(f"socks5://user:word@127.0.0.1:{proxy.port}")) == (200, b"by SOCKS")
        assert asked == [b"\x05\x01\x02", b"\x01\x04user\x04word", b"\x05\x01\x00\x03\x10upstream.example\x00\x50"]
        assert proxy.requests[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
    await upstreams.close()


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([], id="it hangs up"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n\r\n"], id="it is none"),
        pytest.param([b"\x05\xff"], id="it takes no way to sign in"),
        pytest.param([b"\x05\x00", b"\x05\x02\x00\x01" + b"\0" * 6], id="it does not allow it"),
        pytest.param([b"\x05\x00", b"\x05"], id="it hangs up later"),
    ],
)
async def test_a_socks_proxy_that_lets_nothing_through_is_a_failure_to_connect(
    anyio_backend: object, replies: list[bytes]
) -> None:
    async def script(peer: Peer) -> None:
        for reply in replies:
            await peer.reader.read(1024)
            await peer.send(reply)
        peer.close()

    upstreams = Upstreams()
    async with upstream(script) as proxy:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(upstreams, through(f"socks5://127.0.0.1:{proxy.port}"))
        assert refused.value.code == "upstream_unreachable"
    await upstreams.close()


async def test_a_proxy_that_says_nothing_runs_into_a_timeout(anyio_backend: object) -> None:
    upstreams = Upstreams()
    async with upstream(holds()) as proxy:
        with pytest.raises(UpstreamError) as failure:
            await ask(upstreams, through(f"http://127.0.0.1:{proxy.port}"), Timeouts(first_byte=0.05))
        assert failure.value.code == "upstream_first_byte_timeout"
    await upstreams.close()


async def test_the_built_in_upstream_needs_no_network(anyio_backend: object) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    url = "http://echo.invalid/v1/chat/completions"
    upstreams = Upstreams()
    incoming = await upstreams.send(Outgoing("POST", url, [], body, proxy="http://x", transport="echo"), PATIENT)
    assert b'"content":"hi"' in await body_of(incoming)
    await upstreams.close()


async def test_get_requests_go_through_proxies_too(anyio_backend: object) -> None:
    upstreams = Upstreams()
    async with upstream(answers(wire(b"ok"))) as proxy:
        outgoing = get("http://upstream.example/")
        at = f"http://127.0.0.1:{proxy.port}"
        assert await ask(upstreams, Outgoing(outgoing.method, outgoing.url, [], b"", proxy=at)) == (200, b"ok")
    await upstreams.close()


def test_httpx_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, tollway.gateway.upstream.router; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"httpx", "httpx2", "httpcore", "httpcore2"} & set(done.stdout.split())
