"""Metering alone around apps that compress their answers, as FastAPI's apps do with GZipMiddleware."""

import json
import zlib
from typing import Any

import pytest
from starlette.middleware.gzip import GZipMiddleware
from tollway.config.price_book import PriceBook
from tollway.middleware.metering import MeteringMiddleware
from tollway.middleware.state import Charge

from .inner import Client, Inside, Message, scope_of

pytestmark = pytest.mark.anyio

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hello! " * 200}, "finish_reason": "stop"}
ANSWER = json.dumps({"model": "gpt-4o", "choices": [CHOICE], "usage": USAGE}).encode()
EVENTS = [
    b'data: {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hello!"}}]}\n\n',
    b'data: {"model": "gpt-4o", "choices": [], "usage": %b}\n\n' % json.dumps(USAGE).encode(),
    b"data: [DONE]\n\n",
]
WINDOWS = {b"gzip": 31, b"deflate": 15}


def packed(coding: bytes, pieces: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=WINDOWS[coding])
    flushed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*flushed, packer.flush()]


async def metered(app: Any) -> tuple[Charge, Client]:
    charges: list[Charge] = []
    client = Client.sending(b"{}")
    scope: Message = scope_of("/v1/chat/completions", (b"accept-encoding", b"gzip"))
    await MeteringMiddleware(app, prices=PriceBook.builtin(), on_charge=charges.append)(
        scope, client.receive, client.send
    )
    (charge,) = charges
    return charge, client


async def test_an_answer_behind_a_gzip_layer_costs_what_it_reports() -> None:
    charge, client = await metered(GZipMiddleware(Inside(ANSWER)))
    assert client.headers[b"content-encoding"] == b"gzip"
    assert zlib.decompress(client.body, 31) == ANSWER
    assert (charge.quota, charge.model, charge.ending) == (3750, "gpt-4o", "completed")


@pytest.mark.parametrize("coding", WINDOWS)
@pytest.mark.parametrize(
    ("pieces", "content_type"),
    [
        pytest.param(EVENTS, b"text/event-stream", id="events"),
        pytest.param([ANSWER[:100], ANSWER[100:]], b"application/json", id="a document"),
    ],
)
async def test_pieces_are_read_as_they_pass(coding: bytes, pieces: list[bytes], content_type: bytes) -> None:
    inside = Inside(*packed(coding, pieces), content_type=content_type)
    inside.start["headers"].append((b"content-encoding", coding))
    charge, client = await metered(inside)
    assert client.body == b"".join(inside.pieces)
    assert (charge.quota, charge.model, charge.usage.estimated) == (3750, "gpt-4o", False)


@pytest.mark.parametrize("coding", [b"br", b"gzip", b"gzip, br"], ids=["not known", "not true", "several"])
async def test_what_cannot_be_read_passes_all_the_same(coding: bytes) -> None:
    inside = Inside(b"\x8b\x03\x80")
    inside.start["headers"].append((b"content-encoding", coding))
    charge, client = await metered(inside)
    assert client.body == b"\x8b\x03\x80"
    assert charge.usage.estimated
