"""Clients without a key against `tollway serve`: what they may send before anybody has asked who they are."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .gateway import Account
from .running import Process, serving_process
from .test_waiting_charges import made
from .wire import CHAT, ask

MIB = 1024 * 1024
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ENDLESS = {
    "header lines": (POST, b"x-a: " + b"b" * 8000 + b"\r\n"),
    "a header": (POST + b"x-a: ", b"b" * 8000),
    "a path": (b"GET /", b"a" * 8000),
    "blank lines": (b"", b"\r\n" * 4000),
    "trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"x-a: " + b"b" * 8000 + b"\r\n"),
}
MOST_SENT = 32 * MIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "data"


@pytest.fixture(scope="module")
def caller(folder: Path) -> Account:
    return made(folder)


@pytest.fixture(scope="module")
def process(folder: Path, caller: Account) -> Iterator[Process]:
    with serving_process(folder) as process:
        yield process


def connected(process: Process) -> socket.socket:
    host, _, port = process.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def answer_of(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    seen = b""
    while data := client.recv(65536):
        seen += data
    return seen


@pytest.mark.parametrize(("first", "rest"), ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_not_taken_and_not_kept(first: bytes, rest: bytes, process: Process) -> None:
    ask(process.address, "/healthz")
    before = process.resident_bytes
    sent = 0
    with connected(process) as client:
        client.sendall(first)
        with suppress(OSError):  # the server has closed the connection
            while sent < MOST_SENT:
                client.sendall(rest * 16)
                sent += len(rest) * 16
    assert sent < MOST_SENT, "it is still read"
    assert process.resident_bytes - before < 4 * MIB
    assert ask(process.address, "/healthz").status == 200


def test_a_head_that_is_too_large_is_told_so(process: Process) -> None:
    with connected(process) as client:
        client.sendall(POST + b"x-a: " + b"b" * 70_000 + b"\r\n\r\n")
        head, _, body = answer_of(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert error.keys() >= {"message", "type", "param", "code", "request_id"}
    assert error["code"] == "request_header_too_large"


def test_a_large_head_and_a_large_body_are_served(process: Process) -> None:
    answer = ask(
        process.address,
        "/v1/chat/completions",
        "sk-nobody",
        b" " * (2 * MIB),
        headers={"x-a": "b" * 60_000},
    )
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("upgrade", [b"h2c", b"tls/1.0"])
def test_an_offer_of_another_protocol_is_passed_over_with_its_body(
    upgrade: bytes, process: Process, caller: Account
) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: " + upgrade + b"\r\n"
    key = b"Authorization: Bearer " + caller.key.encode() + b"\r\n"
    body = json.dumps(CHAT).encode()
    with connected(process) as client:
        client.sendall(POST + offer + key + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        seen = answer_of(client)
    assert seen.startswith(b"HTTP/1.1 200 ")
    assert seen.count(b"HTTP/1.1") == 1
    assert b"chat.completion" in seen


def test_a_websocket_is_refused(process: Process) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = ask(process.address, "/v1/realtime", headers=headers | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert 400 <= answer.status < 500


def test_what_is_no_http_is_told_so(process: Process) -> None:
    with connected(process) as client:
        client.sendall(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03")
        seen = answer_of(client)
    assert seen.startswith(b"HTTP/1.1 400 ")
    assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_a_half_sent_head_holds_up_no_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving_process(tmp_path_factory.mktemp("ending") / "data") as process, connected(process) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        time.sleep(0.2)
        since = time.monotonic()
        process.terminate()
        assert process.ended() == 0
        assert time.monotonic() - since < 3
        assert "Traceback" not in process.err
