"""What an adapter decides: one HTTP request for an upstream. Sending it is the gateway's business."""

import re
from typing import Literal

from msgspec import Struct

Headers = list[tuple[bytes, bytes]]

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FORBIDDEN = re.compile(rb"[\r\n\0]")
TRANSPORTS_OWN = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""How a message is framed and to whom it goes is the transport's to say; in a header it would be smuggling."""


def can_be_sent(headers: Headers) -> bool:
    """Whether these are headers (RFC 9110, 5) that an `Outgoing` may carry: no line breaks, no framing."""
    return all(
        TOKEN.fullmatch(name) and name not in TRANSPORTS_OWN and not FORBIDDEN.search(value) for name, value in headers
    )


Transport = Literal["http", "echo"]
"""How an outgoing request is performed: over the network, or by the built-in upstream that needs none."""


class Outgoing(Struct, frozen=True):
    """
    A request to an upstream, complete but for `Host`, `Content-Length`, `Connection` and `Accept-Encoding`.

    `url` is absolute and percent-encoded ASCII. Header names are lower case. `proxy` is the egress proxy's URL or "".
    `user_url`: the address came from a caller, so private networks are refused.
    """

    method: str
    url: str
    headers: Headers
    body: bytes
    proxy: str = ""
    transport: Transport = "http"
    user_url: bool = False
