"""
A proxy with nothing but the work that cannot be left out: read the body, look at its model, check a key, forward,
pass the answer on as it comes, read the usage from its end. An ASGI app; BENCH_UPSTREAM is host:port.
"""

import hashlib
import os
from typing import Any

import orjson
from raw_client import Connection, Pool

HOST, _, PORT = os.environ["BENCH_UPSTREAM"].partition(":")
KEYS = {hashlib.sha256(b"Bearer " + os.environ["BENCH_KEY"].encode()).digest()}
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nhost: {HOST}:{PORT}\r\ncontent-type: application/json\r\n"
    "authorization: Bearer sk-upstream\r\naccept-encoding: identity\r\n"
).encode()
NOT_PASSED_ON = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"content-encoding"}
TAIL_BYTES = 600
OPENING, CLOSING = b"{}"

pools: list[Pool] = []
seen = {"requests": 0, "tokens": 0}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        pools.append(Pool(HOST, int(PORT)))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    else:
        await proxy(scope, receive, send)


async def proxy(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    authorize(scope)
    orjson.loads(body)["model"]
    answer = await pools[0].request(HEAD, body)
    headers = [header for header in answer.headers if header[0] not in NOT_PASSED_ON]
    if answer.ended:
        # The whole answer came with its head: one write, and its length is known.
        data = await answer.read()
        headers.append((b"content-length", b"%d" % len(data)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": data})
    else:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        data = await stream(answer, send)
    answer.release()
    note_usage(data)


async def stream(answer: Connection, send: Any) -> bytes:
    """Pass on what comes; return the last bytes of it."""
    tail = b""
    more = True
    while more:
        data = await answer.read()
        more = not answer.ended or bool(answer.chunks)
        tail = data if len(data) > TAIL_BYTES else tail[-TAIL_BYTES:] + data
        await send({"type": "http.response.body", "body": data, "more_body": more})
    return tail


async def read_body(receive: Any) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        return message["body"]
    parts = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        parts.append(message["body"])
    return b"".join(parts)


def authorize(scope: Any) -> None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            if hashlib.sha256(value).digest() not in KEYS:
                raise PermissionError
            return


def note_usage(tail: bytes) -> None:
    seen["requests"] += 1
    start = tail.find(b"{", tail.rfind(b'"usage"'))
    depth = 0
    for index in range(start, len(tail)):
        byte = tail[index]
        if byte == OPENING:
            depth += 1
        elif byte == CLOSING:
            depth -= 1
            if not depth:
                seen["tokens"] += orjson.loads(tail[start : index + 1])["total_tokens"]
                return
