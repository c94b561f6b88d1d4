"""What the tests of both transports share."""

from tollway.adapters.errors import UpstreamError
from tollway.adapters.outgoing import Headers, Outgoing
from tollway.gateway.upstream.port import Incoming, Timeouts, Upstream

PATIENT = Timeouts(connect=5, first_byte=5, idle=5, total=10)


def post(url: str, body: bytes = b'{"a": 1}', headers: Headers | None = None, *, user_url: bool = False) -> Outgoing:
    return Outgoing("POST", url, headers or [(b"content-type", b"application/json")], body, user_url=user_url)


def get(url: str, method: str = "GET") -> Outgoing:
    return Outgoing(method, url, [], b"")


def wire(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, headers: tuple[bytes, ...] = ()) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"transfer-encoding: chunked", *headers]) + b"\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def body_of(incoming: Incoming) -> bytes:
    parts: list[bytes] = []
    while data := await incoming.read():
        parts.append(data)
    return b"".join(parts)


async def body_before_error(incoming: Incoming) -> tuple[bytes, UpstreamError | None]:
    """What can be read, and what comes instead of the end."""
    got = b""
    try:
        while data := await incoming.read():
            got += data
    except UpstreamError as error:
        return got, error
    return got, None


async def ask(transport: Upstream, outgoing: Outgoing, timeouts: Timeouts = PATIENT) -> tuple[int, bytes]:
    """Status and whole body."""
    incoming = await transport.send(outgoing, timeouts)
    return incoming.status, await body_of(incoming)
