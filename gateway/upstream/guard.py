"""
Which addresses may be connected to, judged after DNS, on the very address that is then used.

A name is never judged: `2130706433`, `0177.0.0.1` and a name that an attacker points at 127.0.0.1 all look harmless
until they are resolved, and a second look-up may answer differently (DNS rebinding). Ranges: the IANA registries of
special-purpose addresses (RFC 6890), IPv6 outside 2000::/3, and the clouds' metadata services that lie elsewhere.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ...adapters.errors import Fault, UpstreamRefused

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to numeric addresses, best first. Raises `OSError` when there are none."""

REFUSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT; also Alibaba's metadata service
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's metadata service
            "169.254.0.0/16",  # link-local; the other clouds' metadata services
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
GLOBAL_V6 = IPv6Network("2000::/3")
REFUSED_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo, benchmarking, ORCHID and other protocol assignments
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address inside, routed by whoever feels like it
            "3fff::/20",
        ),
    )
)
NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """
    Whether a numeric address is one of the public internet's.

    IPv4 inside IPv6 (mapped, or NAT64's well-known prefix) is judged as the IPv4 address that it leads to.
    """
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return _is_public_v4(found.ipv4_mapped)
        if found in NAT64:
            return _is_public_v4(IPv4Address(int(found) & 0xFFFFFFFF))
        return found in GLOBAL_V6 and not any(found in network for network in REFUSED_V6)
    return _is_public_v4(found)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in REFUSED_V4)


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives, in its order, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class SharedLookups:
    """
    A `Resolve` that asks `resolve` for a name once at a time, for all who wait for it.

    Few look-ups run at once (uvloop: two), and none can be called off: requests to one name that DNS is silent about
    would keep every other name waiting for minutes, long after they have been given up.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._running: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        key = (host, port)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(_note_failure)
        return await asyncio.shield(task)

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        try:
            return await self._resolve(host, port)
        finally:
            del self._running[host, port]


def _note_failure(task: asyncio.Task[Sequence[str]]) -> None:
    """All who waited may be gone: a failure that nobody hears of is no defect."""
    if not task.cancelled():
        task.exception()


async def addresses_of(
    host: str, port: int, resolve: Resolve, *, public_only: bool, fault: Fault = "channel"
) -> Sequence[str]:
    """
    The addresses to connect to.

    Raises `UpstreamRefused`: the name does not resolve, or with `public_only` one of its addresses is not public. One
    is enough: an honest name does not lead to both sides. `fault`: whose address it is.
    """
    try:
        addresses = await resolve(host, port)
    # UnicodeError: a label that is empty or too long for DNS.
    except (OSError, UnicodeError) as error:
        raise UpstreamRefused(f"The upstream's name {host} does not resolve.") from error
    if not addresses:
        raise UpstreamRefused(f"The upstream's name {host} has no address.")
    if public_only and not all(map(is_public, addresses)):
        message = f"{host} is not on the public internet."
        raise UpstreamRefused(message, code="upstream_address_refused", retryable=fault == "channel", fault=fault)
    return addresses
