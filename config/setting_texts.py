"""How the text of a setting is read. Each raises `ValueError` with what is wrong, and none of them shows a secret."""

import base64
import binascii
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from .secret import Secret

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
CREDENTIALS = re.compile(r"(?![A-Za-z]:[/\\])[^/\\]*:.*@", re.DOTALL)  # but no drive's letter
ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
SHORTEST_SECRET = 16
GO_MYSQL_HOST = re.compile(r"@(tcp)?\([^)]*\)/")


def number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("it is no number") from None
        if not low <= value <= high:
            raise ValueError(f"it must lie between {low:g} and {high:g}")
        return value

    return parse


def whole(low: int, high: int, unit: int = 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("it is no whole number") from None
        if not low <= value <= high:
            raise ValueError(f"it must lie between {low} and {high}")
        return value * unit

    return parse


def switch(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("say true or false") from None


def listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def networks(text: str) -> tuple[str, ...]:
    import ipaddress

    parts = listed(text)
    for part in parts:
        ipaddress.ip_network(part, strict=False)
    return parts


def origins(text: str) -> tuple[str, ...]:
    """As browsers write them, which is what they are compared with (RFC 6454, 6.2): no path and no slash at the end."""
    parts = listed(text)
    for part in parts:
        if part != "*" and not ORIGIN.fullmatch(part):
            raise ValueError(f"{part!r} is not * and not like https://app.example.com or http://localhost:5173")
    return parts


def secret(text: str) -> Secret:
    if len(text) < SHORTEST_SECRET:
        raise ValueError(f"it needs at least {SHORTEST_SECRET} characters")
    return Secret(text)


def secret_list(text: str) -> tuple[Secret, ...]:
    """
    One, or several between commas. A comma may also be a part of a secret: then the whole text is one, beside its
    parts, which are none if one of them is too short to be one.
    """
    whole, parts = secret(text), listed(text)
    if parts == (text,):
        return (whole,)
    return (whole, *map(Secret, parts)) if all(len(part) >= SHORTEST_SECRET for part in parts) else (whole,)


def database_url(text: str) -> str:
    """As it is. What only looks like one is refused here, before it is taken for a file's name and shown as that."""
    scheme, separator, _ = text.partition("://")
    if separator and not SCHEME.fullmatch(scheme):
        raise ValueError("what stands before :// is no scheme")
    if not separator and CREDENTIALS.match(text) and not GO_MYSQL_HOST.search(text):
        raise ValueError("it holds a user and a password but no scheme, such as mysql://")
    return text


def redis_url(text: str) -> Secret:
    if text.partition("://")[0] not in {"redis", "rediss", "unix"}:
        raise ValueError("it begins with redis://, rediss:// or unix://")
    return Secret(text)


def webhook_url(text: str) -> Secret:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:  # its message shows what stands in the port's place, which may be a part of a password
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it is https:// or http://, a host, and no user, in ASCII with the rest percent-encoded")
    return Secret(text)


def webhook_secret(text: str) -> Secret:
    """As https://www.standardwebhooks.com has them."""
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except binascii.Error:
        raise ValueError("what may follow whsec_ is base64") from None
    if not 24 <= size <= 64:
        raise ValueError("it has 24 to 64 bytes")
    return Secret(text)


SECRETS = frozenset({secret, secret_list, database_url, redis_url, webhook_url, webhook_secret})
"""Those of texts that no message may show: they are secrets, or may hold one."""
