"""Random traffic on small balances, against an upstream that uses all that it may: nobody gets more than he has."""

import http.client
import json
import random
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tollway.adapters.call import Call
from tollway.adapters.media.vendor_rules import image_tokens
from tollway.adapters.operations import BY_PATH
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.config.tariff import Tariff
from tollway.gateway.data_dir import DataDir
from tollway.gateway.store import logs, options, users
from tollway.middleware.reservation import reservation

from .conftest import UpstreamOf
from .gateway import Account, new_account, new_channel, now_ms
from .nodes import Installation
from .scripted import Peer
from .wire import DONE, completion, delta, stream, usage_event, whole

REQUESTS, USERS, AT_ONCE = 1000, 6, 4
"""`AT_ONCE`: requests that each user has open."""
DEFAULT = 500
MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-5.4", "claude-haiku-4-5")
CHAT = BY_PATH["/v1/chat/completions"]
BOOK = PriceBook.builtin()


async def greedy(peer: Peer) -> None:
    """
    Uses what the request tells it to, in the field `user`; writes all that it may, and twice the default where there is
    no limit; writes its whole prompt to a cache; searches as often as it may.
    """
    while True:
        asked = json.loads((await peer.request()).body)
        prompt, searches = json.loads(asked["user"])
        written = asked.get("max_tokens") or asked.get("max_completion_tokens") or 2 * DEFAULT
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written * asked.get("n", 1),
            "cache_creation_input_tokens": prompt,
            "server_tool_use": {"web_search_requests": searches},
        }
        if asked.get("stream"):
            await peer.send(stream(delta("Hello!"), usage_event(usage), DONE))
        else:
            await peer.send(whole(completion(usage=usage)))


def picture(chance: random.Random, model: str) -> tuple[dict[str, Any], int]:
    """One in the request or elsewhere, and what it counts for."""
    size = chance.choice([(64, 64), (1024, 1024), (768, 2048), (3000, 2000)])
    data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size[0].to_bytes(4) + size[1].to_bytes(4) + b"\x08\x02\0\0\0"
    url = chance.choice(["https://example.com/a.png", f"data:image/png;base64,{b64encode(data).decode()}"])
    return {"type": "image_url", "image_url": {"url": url}}, image_tokens(model, size)


def request(chance: random.Random) -> tuple[dict[str, Any], int]:
    """A request whose usage is the most that its bounds allow, and what is held for it at most."""
    model, text = chance.choice(MODELS), "word " * chance.randrange(400)
    pictures = [picture(chance, model) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
    parts = [{"type": "text", "text": text}, *(part for part, _ in pictures)]
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": parts if pictures else text}]}
    if chance.random() < 0.8:
        body["max_tokens"] = chance.randrange(1, 1500)
    if chance.random() < 0.2:
        body["n"] = chance.randrange(1, 4)
    if chance.random() < 0.4:
        body["stream"] = True
    searches = 0
    if chance.random() < 0.1:
        searches = body["web_search_options"] = 3
    prompt = len(text) // 3 + sum(tokens for _, tokens in pictures) + 8_000 * bool(searches)
    body["user"] = json.dumps([prompt, searches])
    call = Call(
        CHAT,
        model,
        model,
        body=json.dumps(body).encode(),
        document=body,
        output_limit=body.get("max_tokens"),
        choices=body.get("n", 1),
    )
    price = BOOK.price_for(model, model)
    assert price is not None
    return body, reservation(call, Tariff(price, Decimal(1)), Options(default_max_tokens=DEFAULT))


class Traffic:
    """So many requests of all users, in random order; remembers what each held."""

    def __init__(self, address: str, accounts: list[Account]) -> None:
        self.host, _, port = address.removeprefix("http://").partition(":")
        self.port = int(port)
        self.accounts = accounts
        self.held: dict[str, int] = {}
        self.statuses: Counter[int] = Counter()
        self.numbers: Iterator[int] = iter(range(REQUESTS))
        self.lock = threading.Lock()

    def go_on(self, client: int) -> None:
        chance = random.Random(client)
        account = self.accounts[client % len(self.accounts)]
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as connection:
            while True:
                with self.lock:
                    number = next(self.numbers, None)
                if number is None:
                    return
                body, held = request(chance)
                headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
                connection.request("POST", CHAT.path, json.dumps(body), headers | {"x-request-id": f"r-{number}"})
                answer = connection.getresponse()
                answer.read()
                with self.lock:
                    self.statuses[answer.status] += 1
                    self.held[f"r-{number}"] = held

    def run(self) -> None:
        clients = USERS * AT_ONCE
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(self.go_on, range(clients)))


@pytest.mark.parametrize("clamp", [False, True], ids=["refused", "clamped"])
def test_a_thousand_requests_leave_no_balance_below_zero(clamp: bool, tmp_path: Path, upstream: UpstreamOf) -> None:
    installation = Installation("", [tmp_path / "node"], ("--workers", "2"))
    url = upstream(greedy).url
    granted = [30_000 * 2**number for number in range(USERS)]

    async def prepare(opened: DataDir) -> list[Account]:
        store, vault = opened.store, opened.vault
        chosen = {"clamp_max_tokens": str(clamp).lower(), "default_max_tokens": str(DEFAULT)}
        await options.set_many(store, chosen, now_ms=now_ms())
        accounts = [await new_account(store, vault, quota=quota, remain_quota=quota) for quota in granted]
        groups = tuple(account.group for account in accounts)
        await new_channel(store, vault, groups[0], url, models=MODELS, groups=groups)
        return accounts

    accounts = installation.run(prepare)
    with installation.serving() as (process,):
        traffic = Traffic(process.address, accounts)
        traffic.run()
        process.terminate()
        assert process.ended() == 0, process.err
    assert traffic.statuses.keys() == {200, 402}
    assert traffic.statuses.total() == REQUESTS

    async def balances(opened: DataDir) -> tuple[list[int], dict[str, int], list[int]]:
        rows = [await users.by_id(opened.store, account.user_id) for account in accounts]
        charges = await logs.find(opened.store, logs.LogFilter(), limit=REQUESTS)
        used = [row.used_quota for row in rows if row is not None]
        return [row.quota for row in rows if row is not None], {row.request_id: row.quota for row in charges}, used

    left, charges, used = installation.run(balances)
    assert [a + b for a, b in zip(left, used, strict=True)] == granted
    assert len(charges) == traffic.statuses[200]
    beyond = [charge - traffic.held[name] for name, charge in charges.items()]
    if clamp:
        assert min(left) >= 0
        assert max(beyond) <= 0
    else:
        # Only an answer without a limit costs more than was held for it: here twice as much, at most.
        assert all(over <= traffic.held[name] for over, name in zip(beyond, charges, strict=True))
        assert min(left) >= -AT_ONCE * max(beyond)
    assert installation.audit(installation.folders[0])["clean"]
