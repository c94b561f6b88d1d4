"""Clients that leave in the middle of a stream: the commonest way to leak a task or a connection."""

import socket
from contextlib import suppress
from threading import Event

from loads import Load, body_of

PAUSE_S = 0.2


def hang_up_now_and_then(port: int, key: str, load: Load, ended: Event) -> None:
    """Until `ended`: ask for a stream, read its first bytes, close."""
    body = body_of(load)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    while not ended.wait(PAUSE_S):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            connection.recv(1_000)
