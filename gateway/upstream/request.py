"""Outgoing requests as bytes: the URL parsed once and kept, the head built with one join, nothing smuggled in."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from ...adapters.errors import InternalError, UpstreamRefused
from ...adapters.outgoing import TOKEN, TRANSPORTS_OWN, Headers

MOST_KEPT = 1024

PRINTABLE = re.compile(r"[!-~]+")
HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}")


class Origin(NamedTuple):
    """
    What a connection is good for.

    `public_only` is part of it: a connection made to a private address for an operator's channel must not serve a
    URL that a caller gave.
    """

    tls: bool
    host: str
    port: int
    public_only: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A method and URL, taken apart. `start` is the request line and the headers that never change."""

    start: bytes
    origin: Origin
    public_origin: Origin


def read_target(method: str, url: str) -> Target:
    """
    Raises `InternalError` when method or URL hold what must never reach the wire (blanks, controls, non-ASCII), and
    `UpstreamRefused` when the URL is not an absolute http or https one.
    """
    if not TOKEN.fullmatch(method.encode("utf-8", "replace")):
        raise InternalError("An outgoing request has a malformed method.")
    if not PRINTABLE.fullmatch(url):
        raise InternalError("An outgoing URL is not percent-encoded ASCII.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _host(parts)
    except ValueError:
        raise _no_url() from None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0:
        raise _no_url()
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, default) else f"{shown}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    start = f"{method} {path} HTTP/1.1\r\nhost: {authority}\r\naccept-encoding: identity"
    return Target(
        start.encode("ascii"), Origin(tls, host, port or default, False), Origin(tls, host, port or default, True)
    )


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if "[" in parts.netloc:
        return str(IPv6Address(host))
    if not HOST_NAME.fullmatch(host):
        raise ValueError("not a host name")
    return host


def _no_url() -> UpstreamRefused:
    return UpstreamRefused("The upstream's address is not an http or https URL.")


class RequestWriter:
    """Builds heads. Remembers up to 1,024 targets and header names, so that a known one costs a look-up."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str], Target] = {}
        self._prefixes: dict[bytes, bytes] = {}

    def target(self, method: str, url: str) -> Target:
        key = (method, url)
        target = self._targets.get(key)
        if target is None:
            target = read_target(method, url)
            if len(self._targets) >= MOST_KEPT:
                self._targets.clear()
            self._targets[key] = target
        return target

    def head(self, target: Target, headers: Headers, body_size: int, *, has_body: bool) -> bytes:
        """
        The request's head. `has_body`: say `Content-Length`, be it 0.

        Raises `InternalError` for a header whose name is no token, whose name is the transport's own business, or that
        holds a line break or NUL.
        """
        parts = [target.start]
        prefixes = self._prefixes
        for name, value in headers:
            parts.append(prefixes.get(name) or self._prefix(name))
            parts.append(value)
        lines = len(headers) + 4
        if has_body:
            parts.append(b"\r\ncontent-length: %d\r\n\r\n" % body_size)
            lines += 1
        else:
            parts.append(b"\r\n\r\n")
        head = b"".join(parts)
        # Counting the line breaks of the whole is one pass in C, where a check of each value costs a call a header.
        if head.count(b"\n") != lines or head.count(b"\r") != lines or 0 in head:
            raise InternalError("An outgoing header holds a line break or NUL.")
        return head

    def _prefix(self, name: bytes) -> bytes:
        if not TOKEN.fullmatch(name):
            raise InternalError("An outgoing header has a malformed name.")
        if name.lower() in TRANSPORTS_OWN:
            raise InternalError(f"The header {name.decode('ascii')} of an outgoing request is the transport's to set.")
        prefix = b"\r\n" + name + b": "
        if len(self._prefixes) < MOST_KEPT:
            self._prefixes[name] = prefix
        return prefix
