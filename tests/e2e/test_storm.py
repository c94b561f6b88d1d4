"""Everything at once, good and bad: when it is over nothing is held, nothing is open, and the money adds up."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from .conftest import UpstreamOf
from .gateway import DOLLAR, Gateway
from .scripted import Peer
from .waiting import until
from .wire import CHAT, DONE, LAST_CHUNK, SERVER_ERROR, chunk, completion, delta, sse_head, usage_event, whole

KINDS = ("fine", "stream", "refused", "broken", "cut", "left early", "left late")
ROUNDS = 20
CHARGED = {"fine", "stream", "cut", "left early", "left late"}


ASKED: set[str] = set()
"""The names of the callers whose request has come here."""


async def script(peer: Peer) -> None:
    """Does what the message says."""
    while True:
        document = json.loads((await peer.request()).body)
        kind = document["messages"][0]["content"]
        ASKED.add(document["user"])
        match kind:
            case "fine":
                await peer.send(whole(completion()))
            case "stream":
                events = chunk(delta("Hel")), chunk(delta("lo")), chunk(usage_event()), chunk(DONE)
                await peer.send(sse_head(), *events, LAST_CHUNK)
            case "refused":
                await peer.send(whole(SERVER_ERROR, 400))
            case "broken":
                await peer.send(whole(SERVER_ERROR, 500))
            case "cut":
                await peer.send(sse_head(), chunk(delta("Hel")))
                return peer.writer.close()
            case "left early":
                return await peer.gone()
            case _:
                await peer.send(sse_head(), chunk(delta("Hel")))
                return await peer.gone()


def test_after_a_storm_everything_adds_up(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(quota=DOLLAR, remain_quota=DOLLAR)
    server = upstream(script)
    # A model for each kind, or the breakers of the bad ones would open for the good ones.
    models = {kind: f"echo-{kind.replace(' ', '-')}" for kind in KINDS}
    gateway.channel(account, server.url, models=tuple(models.values()))
    seen: dict[str, int] = dict.fromkeys(KINDS, 0)
    lock = threading.Lock()

    def ask_one(number: int) -> None:
        kind = KINDS[number % len(KINDS)]
        caller = f"caller {number}"
        body = CHAT | {"model": models[kind], "messages": [{"role": "user", "content": kind}], "user": caller}
        body["stream"] = kind not in ("fine", "refused", "broken")
        if not kind.startswith("left"):
            answer = gateway.chat(account, body, timeout=20)
            done = answer.status == 200
        else:
            with gateway.open_chat(account, body) as client:
                if kind == "left late":
                    done = b" 200 " in client.read_until(b"\r\n")
                    if done:
                        client.read_until(b"Hel")
                else:
                    until(lambda: caller in ASKED, 20)
                    done = True
        with lock:
            seen[kind] += done

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(ask_one, range(ROUNDS * len(KINDS))))
    until(lambda: not gateway.app.metrics.in_flight, 20)
    assert gateway.held(account) == (0, 0)
    charges = gateway.charges(account)
    by_kind = {kind: [charge for charge in charges if charge.model == models[kind]] for kind in KINDS}
    for kind in KINDS:
        assert len(by_kind[kind]) == (seen[kind] if kind in CHARGED else 0), kind
    assert seen["fine"] == seen["stream"] == ROUNDS
    charged = sum(charge.quota for charge in charges)
    balance = gateway.balance(account)
    assert (balance.quota, balance.used, balance.requests) == (DOLLAR - charged, charged, len(charges))
    assert (balance.token_remains, balance.token_used) == (DOLLAR - charged, charged)
    assert gateway.balance(account).quota == DOLLAR - charged
    assert gateway.balance(account).token_remains == DOLLAR - charged
