"""Which addresses are connected to: judged after DNS, and the address judged is the address used."""

import asyncio

import pytest
from tollway.adapters.errors import UpstreamRefused
from tollway.gateway.upstream.fast import FastTransport
from tollway.gateway.upstream.guard import Resolve, SharedLookups, is_public, resolve_by_system
from tollway.gateway.upstream.httpx_transport import HttpxTransport

from .helpers import PATIENT, ask, post, wire
from .scripted import answers, holds, upstream

pytestmark = pytest.mark.anyio

Transport = type[FastTransport] | type[HttpxTransport]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.0.1",
    "172.32.0.1",
    "192.167.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
]
PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "2001::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.fixture(params=[FastTransport, HttpxTransport], ids=["fast", "httpx"])
def kind(request: pytest.FixtureRequest) -> Transport:
    return request.param


def resolver(*rounds: list[str]) -> tuple[Resolve, list[str]]:
    """A resolver that gives one list after the other, and the names it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return rounds[min(len(asked), len(rounds)) - 1]

    return resolve, asked


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.1", id="the address itself"),
        pytest.param("127.1", id="a short form"),
        pytest.param("2130706433", id="a decimal number"),
        pytest.param("0x7f000001", id="a hexadecimal number"),
        pytest.param("0177.0.0.1", id="octal"),
        pytest.param("0", id="zero"),
        pytest.param("localhost", id="a name"),
        pytest.param("LOCALHOST.", id="the same name, otherwise"),
        pytest.param("[::1]", id="IPv6"),
        pytest.param("[::ffff:7f00:1]", id="IPv4 inside IPv6"),
        pytest.param("[0:0:0:0:0:ffff:127.0.0.1]", id="the same, in full"),
    ],
)
async def test_a_callers_url_reaches_nothing_private(kind: Transport, host: str) -> None:
    transport = kind()
    async with upstream(holds()) as server:
        with pytest.raises(UpstreamRefused) as refused:
            await transport.send(post(f"http://{host}:{server.port}/", user_url=True), PATIENT)
        assert server.peers == []
    if refused.value.code != "upstream_unreachable":  # a libc may not know a form at all
        assert (refused.value.code, refused.value.fault) == ("upstream_address_refused", "caller")
        assert not refused.value.retryable
    await transport.close()


async def test_an_operators_url_may_be_private_unless_the_option_says_no(kind: Transport) -> None:
    async with upstream(answers(wire(b"ok"))) as server:
        open_to_all, strict = kind(), kind(allow_private=False)
        assert await ask(open_to_all, post(server.url)) == (200, b"ok")
        with pytest.raises(UpstreamRefused) as refused:
            await strict.send(post(server.url), PATIENT)
        assert (refused.value.code, refused.value.fault) == ("upstream_address_refused", "channel")
        await open_to_all.close()
        await strict.close()


async def test_one_private_address_among_public_ones_is_enough_to_refuse(kind: Transport) -> None:
    resolve, _ = resolver(["1.1.1.1", "10.0.0.1"])
    transport = kind(resolve=resolve)
    with pytest.raises(UpstreamRefused) as refused:
        await transport.send(post("http://mixed.example/", user_url=True), PATIENT)
    assert refused.value.code == "upstream_address_refused"
    await transport.close()


async def test_the_name_is_resolved_once_and_the_address_judged_is_the_one_used(
    kind: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DNS rebinding: harmless when asked first, 127.0.0.1 ever after. Loopback plays the public address here.
    resolve, asked = resolver(["127.0.0.1"], ["10.0.0.1"])
    monkeypatch.setattr("tollway.gateway.upstream.guard.is_public", lambda address: address == "127.0.0.1")
    transport = kind(resolve=resolve)
    async with upstream(answers(wire(b"ok"))) as server:
        url = f"http://rebinding.example:{server.port}/"
        assert await ask(transport, post(url, user_url=True)) == (200, b"ok")
        assert asked == ["rebinding.example"]
        assert b"host: rebinding.example:%d\r\n" % server.port in server.requests[0].lower()
    await transport.close()


async def test_a_callers_url_does_not_ride_on_an_operators_connection(kind: Transport) -> None:
    transport = kind()
    async with upstream(answers(wire(b"1"), wire(b"2"))) as server:
        assert await ask(transport, post(server.url)) == (200, b"1")
        with pytest.raises(UpstreamRefused):
            await transport.send(post(server.url, user_url=True), PATIENT)
        assert len(server.requests) == 1
    await transport.close()


async def test_an_address_that_does_not_answer_gives_way_to_the_next(anyio_backend: object) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    transport = FastTransport(resolve=resolve)
    async with upstream(answers(wire(b"ok"))) as server:
        assert await ask(transport, post(f"http://two.example:{server.port}/")) == (200, b"ok")
    await transport.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_a_name_that_dns_cannot_carry_is_refused(kind: Transport, host: str) -> None:
    transport = kind()
    with pytest.raises(UpstreamRefused) as refused:
        await transport.send(post(f"http://{host}/"), PATIENT)
    assert refused.value.code == "upstream_unreachable"
    await transport.close()


async def test_the_systems_resolver_gives_numeric_addresses_each_once(anyio_backend: object) -> None:
    assert await resolve_by_system("127.0.0.1", 80) == ["127.0.0.1"]


async def test_a_name_that_dns_is_silent_about_is_asked_for_once_though_those_who_wait_give_up() -> None:
    asked: list[str] = []
    answer = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        await answer.wait()
        return ["127.0.0.1"]

    look_up = SharedLookups(resolve)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(look_up("silent.example", 443), 0.01)
    assert asked == ["silent.example"]
    last = asyncio.create_task(look_up("silent.example", 443))
    await asyncio.sleep(0)
    answer.set()
    assert await last == ["127.0.0.1"]
    assert await look_up("silent.example", 443) == ["127.0.0.1"]
    assert asked == ["silent.example"] * 2


async def test_those_who_wait_for_the_same_name_fail_together_and_the_next_asks_again() -> None:
    answers_of: list[list[str] | OSError] = [OSError("no such name"), ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        found = answers_of.pop(0)
        await asyncio.sleep(0)
        if isinstance(found, OSError):
            raise found
        return found

    look_up = SharedLookups(resolve)
    both = await asyncio.gather(look_up("a.example", 1), look_up("a.example", 1), return_exceptions=True)
    assert [type(each) for each in both] == [OSError, OSError]
    assert await look_up("a.example", 1) == ["127.0.0.1"]
