"""What the port promises, whichever transport keeps it."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollway.adapters.errors import InternalError, UpstreamError, UpstreamGarbage, UpstreamRefused, UpstreamTruncated
from tollway.adapters.outgoing import Outgoing
from tollway.gateway.upstream.port import Timeouts, Upstream

from .helpers import PATIENT, ask, body_before_error, body_of, chunked, get, post, wire
from .scripted import Peer, answers, ends, holds, upstream

pytestmark = pytest.mark.anyio

WHOLE = [
    pytest.param(wire(b"hello"), b"hello", id="a body with a length"),
    pytest.param(wire(b""), b"", id="an empty body"),
    pytest.param(chunked(b"he", b"llo"), b"hello", id="chunks"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;name=value;x\r\nhello\r\n0;last\r\nx-sum: 1\r\n\r\n",
        b"hello",
        id="chunks with extensions and trailers",
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", id="a body that ends with the connection"),
    pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", id="HTTP/1.0"),
    pytest.param(wire(b"hello", b"connection: close"), b"hello", id="Connection: close"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + wire(b"hello"), b"hello", id="100 before the answer"),
    pytest.param(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + wire(b"hello"),
        b"hello",
        id="102 and 103 before the answer",
    ),
    pytest.param(wire(b"hello") + b"and more", b"hello", id="more bytes than the length says"),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
    pytest.param(
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"", id="304 with the length of what it is not"
    ),
    pytest.param(wire(b"no", status=b"599 Odd"), b"no", id="an error status"),
]


@pytest.mark.parametrize(("answer", "body"), WHOLE)
async def test_whole_answers_arrive_whole(transport: Upstream, answer: bytes, body: bytes) -> None:
    async with upstream(ends(answer)) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        assert await body_of(incoming) == body
        assert incoming.complete
        assert await incoming.read() == b""


async def test_the_request_arrives_as_it_was_given(transport: Upstream) -> None:
    async with upstream(answers(wire(b"ok"))) as server:
        headers = [
            (b"content-type", b"application/json"),
            (b"authorization", b"Bearer k"),
            (b"x-a", b"1"),
            (b"x-a", b"2"),
        ]
        await ask(transport, post(f"{server.url}?q=a%20b&r=%2F", b'{"x": "\xc3\xa9"}', headers))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/thing?q=a%20b&r=%2F HTTP/1.1"
        names = {line.split(b": ", 1)[0].lower(): line.split(b": ", 1)[1] for line in lines[1:]}
        assert names[b"host"] == b"127.0.0.1:%d" % server.port
        assert names[b"content-length"] == b"%d" % len(body)
        assert names[b"accept-encoding"] == b"identity"
        assert names[b"authorization"] == b"Bearer k"
        assert [line for line in lines if line.startswith(b"x-a")] == [b"x-a: 1", b"x-a: 2"]
        assert set(names) == {b"host", b"content-length", b"accept-encoding", b"authorization", b"x-a", b"content-type"}
        assert body == b'{"x": "\xc3\xa9"}'


async def test_a_get_has_no_body_and_says_no_length(transport: Upstream) -> None:
    async with upstream(answers(wire(b"ok"))) as server:
        assert await ask(transport, get(server.url)) == (200, b"ok")
        assert b"content-length" not in server.requests[0].lower()


async def test_an_empty_post_says_so(transport: Upstream) -> None:
    async with upstream(answers(wire(b"ok"))) as server:
        await ask(transport, post(server.url, b""))
        assert b"content-length: 0\r\n" in server.requests[0].lower()


async def test_a_head_request_has_no_body_whatever_the_length_says(transport: Upstream) -> None:
    async with upstream(holds(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\nx-a: 1\r\n\r\n")) as server:
        incoming = await transport.send(get(server.url, "HEAD"), PATIENT)
        assert (incoming.status, incoming.headers) == (200, [(b"x-a", b"1")])
        assert await incoming.read() == b""


async def test_headers_of_the_wire_are_gone_and_the_rest_is_in_lower_case(transport: Upstream) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Connection: Keep-Alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    async with upstream(ends(answer)) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        assert incoming.headers == [(b"content-type", b"text/plain"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
        await body_of(incoming)


async def test_redirects_and_cookies_are_left_to_the_caller(transport: Upstream) -> None:
    redirect = wire(b"", b"location: http://127.0.0.1:1/", b"set-cookie: a=b", status=b"302 Found")
    async with upstream(answers(redirect, wire(b"ok"))) as server:
        assert await ask(transport, post(server.url)) == (302, b"")
        assert await ask(transport, post(server.url)) == (200, b"ok")
        assert len(server.requests) == 2
        assert b"cookie" not in server.requests[1].lower()


async def test_a_connection_serves_one_request_after_the_other(transport: Upstream) -> None:
    async with upstream(answers(wire(b"1"), chunked(b"2"), b"HTTP/1.1 204 x\r\n\r\n", wire(b"4"))) as server:
        assert [(await ask(transport, post(server.url)))[1] for _ in range(4)] == [b"1", b"2", b"", b"4"]
        assert len(server.peers) == 1


async def test_a_connection_that_the_upstream_closes_is_not_used_again(transport: Upstream) -> None:
    async with upstream(answers(wire(b"1", b"connection: close"), wire(b"2"))) as server:
        assert await ask(transport, post(server.url)) == (200, b"1")
        assert await ask(transport, post(server.url)) == (200, b"2")
        assert len(server.peers) == 2


GARBAGE = [
    pytest.param(b"<html>no</html>\r\n\r\n", id="HTML without HTTP"),
    pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another protocol"),
    pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="a status of letters"),
    pytest.param(b"HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n", id="a status below 100"),
    pytest.param(b"HTTP/1.1 700 High\r\ncontent-length: 0\r\n\r\n", id="a status above 599"),
    pytest.param(b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", id="HTTP/2 that nobody negotiated"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", id="a negative length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n", id="an endless length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", id="two lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n", id="a blank in a header's name"),
    pytest.param(b"HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n", id="a header without colon"),
    pytest.param(b"HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n", id="NUL in a header"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc", id="an unasked transfer coding"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="two transfer codings"),
    pytest.param(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", id="a switch of protocols"
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", id="a chunk size that is no number"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", id="a negative chunk size"),
    pytest.param(wire(b"abc", b"content-encoding: br"), id="an encoding that is not known"),
    pytest.param(wire(b"abc", b"content-encoding: gzip, deflate"), id="two encodings"),
    pytest.param(wire(b"abc", b"x-long: " + b"a" * 66_000), id="a header of more than 64 KiB"),
    pytest.param(wire(b"abc", *[b"x-a: 1"] * 300), id="300 header lines"),
]


@pytest.mark.parametrize("answer", GARBAGE)
async def test_garbage_is_called_garbage(transport: Upstream, answer: bytes) -> None:
    async with upstream(holds(answer)) as server:
        with pytest.raises(UpstreamGarbage):
            await ask(transport, post(server.url))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"no HTTP, sk-upstream\r\n\r\n", id="in place of a status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno header, sk-upstream\r\n\r\n", id="in place of a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsk-upstream\r\n", id="in place of a chunk"),
    ],
)
async def test_garbage_is_not_quoted(transport: Upstream, answer: bytes) -> None:
    """The message reaches the client and the log, and an upstream may repeat the channel's key."""
    async with upstream(holds(answer)) as server:
        with pytest.raises(UpstreamGarbage) as caught:
            await ask(transport, post(server.url))
    assert "sk-upstream" not in caught.value.message


CUT = [
    pytest.param(b"", id="no byte"),
    pytest.param(b"HTTP/1.1 20", id="half a status line"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", id="half a head"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="an interim answer only"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", id="a body shorter than its length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", id="no last chunk"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe", id="half a chunk"),
]


@pytest.mark.parametrize("answer", CUT)
async def test_an_answer_that_ends_too_early_is_truncated(transport: Upstream, answer: bytes) -> None:
    async with upstream(ends(answer)) as server:
        with pytest.raises(UpstreamTruncated):
            await ask(transport, post(server.url))


async def test_what_came_before_the_cut_is_read_before_the_error(transport: Upstream) -> None:
    async with upstream(ends(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel", b"lo")) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        got, error = await body_before_error(incoming)
        assert got == b"hello"
        assert isinstance(error, UpstreamTruncated)


async def test_a_port_nobody_listens_on_is_refused(transport: Upstream) -> None:
    async with upstream(holds()) as server:
        port = server.port
    with pytest.raises(UpstreamRefused) as refused:
        await ask(transport, post(f"http://127.0.0.1:{port}/"))
    assert refused.value.code == "upstream_unreachable"


async def test_a_name_that_does_not_exist_is_refused(transport: Upstream) -> None:
    with pytest.raises(UpstreamRefused) as refused:
        await ask(transport, post("http://no-such-host.invalid/"))
    assert refused.value.code == "upstream_unreachable"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("ftp://host/", UpstreamRefused, id="another scheme"),
        pytest.param("/v1/models", UpstreamRefused, id="no scheme and host"),
        pytest.param("http:///path", UpstreamRefused, id="no host"),
        pytest.param("http://host:0/", UpstreamRefused, id="port 0"),
        pytest.param("http://host:99999/", UpstreamRefused, id="a port beyond 65535"),
        pytest.param("http://user:pass@host/", UpstreamRefused, id="credentials in the URL"),
        pytest.param("http://good\\@evil/", UpstreamRefused, id="a backslash before the at"),
        pytest.param("http://[::1/", UpstreamRefused, id="half an IPv6 address"),
        pytest.param("http://a%2eb/", UpstreamRefused, id="a percent in the host"),
        pytest.param("http://host/a b", InternalError, id="a blank"),
        pytest.param("http://host/a\r\nx-evil: 1", InternalError, id="a line break"),
        pytest.param("http://host/a\0", InternalError, id="NUL"),
        pytest.param("http://host/é", InternalError, id="not ASCII"),
    ],
)
async def test_a_url_that_cannot_be_sent_is_not_sent(transport: Upstream, url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await transport.send(post(url), PATIENT)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((b"x-a", b"1\r\nx-evil: 1"), id="CRLF in a value"),
        pytest.param((b"x-a", b"1\nx-evil: 1"), id="LF in a value"),
        pytest.param((b"x-a", b"1\rx-evil: 1"), id="CR in a value"),
        pytest.param((b"x-a", b"1\0"), id="NUL in a value"),
        pytest.param((b"x-a\r\nx-evil", b"1"), id="CRLF in a name"),
        pytest.param((b"x-a: 1, x", b"1"), id="a colon in a name"),
        pytest.param((b"x a", b"1"), id="a blank in a name"),
        pytest.param((b"", b"1"), id="no name"),
        pytest.param((b"host", b"evil"), id="a second host"),
        pytest.param((b"Content-Length", b"5"), id="a second length"),
        pytest.param((b"transfer-encoding", b"chunked"), id="another framing"),
        pytest.param((b"connection", b"upgrade"), id="a word about the connection"),
    ],
)
async def test_a_header_that_would_change_the_request_is_not_sent(
    transport: Upstream, header: tuple[bytes, bytes]
) -> None:
    async with upstream(holds()) as server:
        for _ in range(2):  # a name that was refused is not remembered as good
            with pytest.raises(InternalError):
                await transport.send(post(server.url, headers=[header]), PATIENT)
        assert server.peers == []


@pytest.mark.parametrize(
    "outgoing",
    [
        pytest.param(Outgoing("GET / HTTP/1.1\r\nx:", "http://host/", [], b""), id="a request line"),
        pytest.param(Outgoing("", "http://host/", [], b""), id="nothing"),
    ],
)
async def test_a_method_that_is_none_is_not_sent(transport: Upstream, outgoing: Outgoing) -> None:
    with pytest.raises(InternalError):
        await transport.send(outgoing, PATIENT)


@pytest.mark.parametrize(
    ("pieces", "timeouts", "code"),
    [
        pytest.param((), Timeouts(first_byte=0.05), "upstream_first_byte_timeout", id="no answer"),
        pytest.param(
            (b"HTTP/1.1 100 Continue\r\n\r\n",),
            Timeouts(first_byte=0.05),
            "upstream_first_byte_timeout",
            id="interim only",
        ),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",),
            Timeouts(idle=0.05),
            "upstream_idle_timeout",
            id="silence",
        ),
        pytest.param((), Timeouts(total=0.05), "upstream_total_timeout", id="no answer in all the time there is"),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",),
            Timeouts(total=0.05),
            "upstream_total_timeout",
            id="no end",
        ),
    ],
)
async def test_each_timeout_has_its_code(
    transport: Upstream, pieces: tuple[bytes, ...], timeouts: Timeouts, code: str
) -> None:
    async with upstream(holds(*pieces)) as server:
        with pytest.raises(UpstreamError) as failure:
            await ask(transport, post(server.url), timeouts)
        assert (failure.value.code, failure.value.status) == (code, 504)
        await asyncio.wait_for(server.peers[0].over.wait(), 1)


async def test_the_connect_timeout_has_its_code(transport: Upstream) -> None:
    # A full backlog: the kernel drops further attempts to connect without a word.
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            with pytest.raises(UpstreamError) as failure:
                await ask(transport, post(f"http://127.0.0.1:{address[1]}/"), Timeouts(connect=0.1))
        finally:
            for filler in fillers:
                filler.close()
    assert failure.value.code == "upstream_connect_timeout"


async def test_a_stream_may_last_as_long_as_it_speaks(transport: Upstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.04)
            await peer.send(b"1\r\nx\r\n")
        await peer.send(b"0\r\n\r\n")

    async with upstream(script) as server:
        _, body = await ask(transport, post(server.url), Timeouts(first_byte=0.2, idle=0.2))
        assert body == b"x" * 8


async def test_the_first_bytes_patience_is_not_that_of_the_body(transport: Upstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
        await asyncio.sleep(0.2)
        await peer.send(b"b")

    async with upstream(script) as server:
        assert await ask(transport, post(server.url), Timeouts(first_byte=0.1, idle=1)) == (200, b"ab")


async def test_a_slow_reader_is_not_the_upstreams_silence(transport: Upstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na")
        await asyncio.sleep(0.2)
        await peer.send(b"b")
        await asyncio.sleep(0.2)
        await peer.send(b"c")

    async with upstream(script) as server:
        incoming = await transport.send(post(server.url), Timeouts(first_byte=0.1, idle=0.1))
        await asyncio.sleep(0.18)
        assert await incoming.read() == b"a"
        assert await incoming.read() == b"b"
        await asyncio.sleep(0.18)
        assert await body_of(incoming) == b"c"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((), id="while waiting for the head"),
        pytest.param((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",), id="while reading"),
    ],
)
async def test_cancelling_closes_the_upstreams_socket_at_once(transport: Upstream, pieces: tuple[bytes, ...]) -> None:
    async with upstream(holds(*pieces)) as server:
        task = asyncio.create_task(ask(transport, post(server.url)))
        await asyncio.wait_for(server.asked.wait(), 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.peers[0].over.wait(), 0.1)


async def test_closing_an_answer_early_drops_the_connection(transport: Upstream) -> None:
    async with upstream(holds(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")) as server:
        incoming = await transport.send(post(server.url), PATIENT)
        incoming.close()
        incoming.close()
        await asyncio.wait_for(server.peers[0].over.wait(), 0.1)


async def test_closing_after_the_end_keeps_the_connection(transport: Upstream) -> None:
    async with upstream(answers(wire(b"1"), wire(b"2"))) as server:
        for expected in (b"1", b"2"):
            incoming = await transport.send(post(server.url), PATIENT)
            assert await body_of(incoming) == expected
            incoming.close()
        assert len(server.peers) == 1


async def test_an_idle_connection_that_the_upstream_closed_is_replaced(transport: Upstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire(b"%d" % peer.number))

    async with upstream(script) as server:
        for expected in (b"0", b"1"):
            assert await ask(transport, post(server.url)) == (200, expected)
            await asyncio.sleep(0.02)


async def test_a_large_body_arrives_whole(transport: Upstream) -> None:
    body = bytes(range(256)) * 16384  # 4 MiB: more than the sockets' buffers hold

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(wire(b"same" if request.endswith(body) and request.count(b"\r\n\r\n") >= 1 else b"other"))

    async with upstream(script) as server:
        assert await ask(transport, post(server.url, body)) == (200, b"same")


async def test_ipv6_addresses_stand_in_brackets(transport: Upstream) -> None:
    try:
        async with upstream(answers(wire(b"six")), host="::1") as server:
            assert await ask(transport, post(f"http://[::1]:{server.port}/")) == (200, b"six")
            assert b"host: [::1]:%d\r\n" % server.port in server.requests[0].lower()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(min_size=1, max_size=3000), max_size=12), size=st.integers(1, 5000))
async def test_any_body_in_any_chunks_arrives_whole(transport: Upstream, chunks: list[bytes], size: int) -> None:
    answer = chunked(*chunks)
    pieces = [answer[i : i + size] for i in range(0, len(answer), size)]
    async with upstream(ends(*pieces)) as server:
        assert await ask(transport, post(server.url)) == (200, b"".join(chunks))
