"""Clients that leave, and clients that stay and take nothing: who is told of them, and how soon."""

import asyncio
from dataclasses import dataclass, field

import pytest
from tollway.gateway.relay import hang_up as hang_up_module
from tollway.gateway.relay.hang_up import GRACE, HangUps

pytestmark = pytest.mark.anyio

SOON_S = 2 * GRACE + 0.1
"""60 ms are promised; the rest is for a busy machine."""
PATIENCE_S = 0.2
STALL_S = 0.05
STALLED_S = 2 * PATIENCE_S + STALL_S + 0.2


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long pause, shortened."""
    monkeypatch.setattr(hang_up_module, "PATIENCE", PATIENCE_S)


class Line:
    """A client's line: `receive` waits until the client leaves."""

    def __init__(self) -> None:
        self.cut = asyncio.Event()
        self.asked = 0

    async def receive(self) -> dict[str, str]:
        self.asked += 1
        await self.cut.wait()
        return {"type": "http.disconnect"}


@dataclass
class Request:
    """Notes what it is told."""

    told: list[str] = field(default_factory=list[str])

    def client_left(self) -> None:
        self.told.append("left")

    def stop(self) -> None:
        self.told.append("stop")


async def test_a_client_that_leaves_is_noticed_soon_and_told_of_once() -> None:
    line, request, hang_ups = Line(), Request(), HangUps()
    hang_up = hang_ups.watch(line.receive, request)
    line.cut.set()
    await asyncio.sleep(SOON_S)
    assert request.told == ["left"]
    await asyncio.sleep(SOON_S)
    assert request.told == ["left"]
    hang_ups.stop(hang_up)


async def test_one_that_leaves_later_is_noticed_at_once() -> None:
    line, request, hang_ups = Line(), Request(), HangUps()
    hang_up = hang_ups.watch(line.receive, request)
    await asyncio.sleep(SOON_S)
    line.cut.set()
    await asyncio.sleep(0.01)
    assert request.told == ["left"]
    hang_ups.stop(hang_up)


async def test_a_request_that_is_soon_over_is_never_listened_for() -> None:
    line, request, hang_ups = Line(), Request(), HangUps()
    hang_ups.stop(hang_ups.watch(line.receive, request))
    line.cut.set()
    await asyncio.sleep(SOON_S)
    assert (line.asked, request.told) == (0, [])


async def test_after_its_end_a_request_is_told_nothing() -> None:
    line, request, hang_ups = Line(), Request(), HangUps(stall=2 * SOON_S)
    hang_up = hang_ups.watch(line.receive, request)
    hang_up.sending = b"a piece"
    await asyncio.sleep(SOON_S)
    hang_ups.stop(hang_up)
    line.cut.set()
    await asyncio.sleep(2 * SOON_S + PATIENCE_S)
    assert request.told == []


async def test_a_request_is_watched_soon_though_others_have_been_watched_for_long() -> None:
    """The long pause between two looks at old requests is not waited for by a new one."""
    old, new, request, hang_ups = Line(), Line(), Request(), HangUps()
    first = hang_ups.watch(old.receive, Request())
    await asyncio.sleep(SOON_S)
    second = hang_ups.watch(new.receive, request)
    new.cut.set()
    await asyncio.sleep(SOON_S)
    assert request.told == ["left"]
    hang_ups.stop(first)
    hang_ups.stop(second)


async def test_a_client_that_takes_nothing_for_too_long_is_given_up_once() -> None:
    line, request, hang_ups = Line(), Request(), HangUps(stall=STALL_S)
    hang_up = hang_ups.watch(line.receive, request)
    hang_up.sending = b"a piece"
    await asyncio.sleep(STALLED_S)
    assert request.told == ["stop"]
    await asyncio.sleep(STALLED_S)
    assert request.told == ["stop"]
    hang_ups.stop(hang_up)


async def test_one_that_takes_nothing_is_given_up_though_new_requests_keep_coming() -> None:
    request, hang_ups = Request(), HangUps(stall=STALL_S)
    hang_up = hang_ups.watch(Line().receive, request)
    hang_up.sending = b"a piece"
    for _ in range(int(STALLED_S / 0.02)):
        other = hang_ups.watch(Line().receive, Request())
        await asyncio.sleep(0.02)
        hang_ups.stop(other)
    assert request.told == ["stop"]
    hang_ups.stop(hang_up)


@pytest.mark.parametrize(
    ("stall", "sending"),
    [
        pytest.param(STALL_S, None, id="nothing is being sent: the upstream is waited for"),
        pytest.param(60.0, b"a piece", id="it has not been long"),
        pytest.param(0.0, b"a piece", id="there is no limit"),
    ],
)
async def test_a_client_is_not_given_up_while(stall: float, sending: bytes | None) -> None:
    request, hang_ups = Request(), HangUps(stall=stall)
    hang_up = hang_ups.watch(Line().receive, request)
    hang_up.sending = sending
    await asyncio.sleep(STALLED_S)
    assert request.told == []
    hang_ups.stop(hang_up)


async def test_a_client_that_takes_a_little_now_and_then_is_not_given_up() -> None:
    request, hang_ups = Request(), HangUps(stall=0.5)
    hang_up = hang_ups.watch(Line().receive, request)
    for _ in range(int((PATIENCE_S + 0.8) / 0.1)):
        hang_up.sending = bytes(bytearray(b"the same words, in a piece of their own"))
        await asyncio.sleep(0.1)
    assert request.told == []
    hang_ups.stop(hang_up)


async def test_nothing_is_left_running_when_the_last_request_is_over() -> None:
    before, hang_ups = asyncio.all_tasks(), HangUps(stall=STALL_S)
    watched = [hang_ups.watch(Line().receive, Request()) for _ in range(3)]
    await asyncio.sleep(SOON_S)
    for hang_up in watched:
        hang_ups.stop(hang_up)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
