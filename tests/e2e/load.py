"""Clients that go on asking while something happens to the servers, and what must be true once it is over."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import logs, prices, users
from tollway.gateway.store.records import UserRow
from tollway.gateway.store.schema import holders, leases

from .gateway import Account, new_account, new_channel, now_ms
from .nodes import Installation
from .running import Process
from .wire import CHAT, DONE, OpenRequest, ask

FLAT = 1_000
"""What one call of the model "flat" costs, whatever it uses; it is held and charged."""
FLAT_PRICE = '[models.flat]\nper_call = 0.002\nsource = "these tests"\nchecked = 2026-11-01\n'
BODY = CHAT | {"model": "flat"}


def made(installation: Installation, url: str, quota: int) -> Account:
    async def work(opened: DataDir) -> Account:
        await prices.put(opened.store, "flat", FLAT_PRICE, now_ms=now_ms())
        account = await new_account(opened.store, opened.vault, quota=quota, remain_quota=10 * quota)
        await new_channel(opened.store, opened.vault, account.group, url, models=("flat", CHAT["model"]))
        return account

    return installation.run(work)


def user_of(installation: Installation, account: Account) -> UserRow:
    async def work(opened: DataDir) -> UserRow:
        row = await users.by_id(opened.store, account.user_id)
        assert row is not None
        return row

    return installation.run(work)


def left_behind(installation: Installation) -> tuple[int, int]:
    """Leases and processes that the database still knows."""

    async def work(opened: DataDir) -> tuple[int, int]:
        return len(await opened.store.all(select(leases))), len(await opened.store.all(select(holders)))

    return installation.run(work)


def charged(installation: Installation) -> Counter[str]:
    """How often each request was charged."""

    async def work(opened: DataDir) -> Counter[str]:
        rows = await logs.find(opened.store, logs.LogFilter(), limit=10_000_000)
        return Counter(row.request_id for row in rows if row.quota)

    return installation.run(work)


def terminated(processes: Sequence[Process]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.ended() == 0, process.err


class Client:
    """
    Goes on asking until it is told to stop, every second time for a stream; remembers whose ends it has seen, and what
    became of the others.
    """

    def __init__(self, processes: Sequence[Process], account: Account) -> None:
        self.addresses = [process.address for process in processes]
        self.account = account
        self.ended: list[str] = []
        self.refused = 0
        """Connections that nobody accepted."""
        self.failed: list[str] = []
        """What became of those that were begun and not ended."""
        self.stop = False

    def go_on(self, name: str) -> None:
        number = 0
        while not self.stop:
            number += 1
            request_id = f"{name}-{number}"
            address = self.addresses[number % len(self.addresses)]
            try:
                self.ask_one(address, request_id, stream=number % 2 == 0)
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(0.01)
            except (OSError, AssertionError, http.client.HTTPException) as error:
                self.failed.append(f"{request_id}: {error!r}")
                time.sleep(0.01)
            else:
                self.ended.append(request_id)

    def ask_one(self, address: str, request_id: str, *, stream: bool) -> None:
        """Returns when the end of the answer was seen."""
        if stream:
            with OpenRequest(address, self.account.key, BODY | {"stream": True}, request_id=request_id) as request:
                request.read_until(DONE)
        else:
            headers = {"x-request-id": request_id}
            answer = ask(address, "/v1/chat/completions", self.account.key, BODY, headers=headers, timeout=20)
            assert answer.status == 200, answer.body
            assert answer.json["choices"]


@contextmanager
def asking(
    processes: Sequence[Process], account: Account, *, name: str = "client", clients: int = 6
) -> Iterator[Client]:
    """So many clients at once, until the block ends and their last answers are there."""
    client = Client(processes, account)
    threads = [threading.Thread(target=client.go_on, args=(f"{name}-{number}",)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield client
    finally:
        client.stop = True
        for thread in threads:
            thread.join()


def adds_up(installation: Installation, account: Account, ended: Sequence[str] = ()) -> None:
    """When nothing serves any more: who saw an end is charged, nobody twice, and nothing is held, waiting or stuck."""
    found = charged(installation)
    assert set(ended) <= set(found)
    assert set(found.values()) == {1}
    assert user_of(installation, account).used_quota == FLAT * len(found)
    assert left_behind(installation) == (0, 0)
    for folder in installation.folders:
        assert installation.audit(folder) == {
            "clean": True,
            "waiting": 0,
            "differences": [],
            "damages": [],
            "notes": [],
        }
        assert not list((folder / "journal").glob("*.journal"))
