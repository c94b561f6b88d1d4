"""A server that runs takes over every kind of change within a second, as the manual says."""

import socket
import time
from pathlib import Path
from typing import Any

from .test_serving import CHAT, ask, once, running

SEEN_WITHIN_S = 2.0
"""The promised second, and one for a machine that has other things to do."""
PRICE = ("price", "set", "echo", "--input", "1", "--output", "1")

STEPS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("token", "update", "t", "--quota", "0"), 402),
    (("token", "update", "t", "--unlimited"), 200),
    (("token", "update", "t", "--models", "other"), 403),
    (("token", "update", "t", "--models", ""), 200),
    (("user", "update", "ann", "--group", "staff"), 404),
    (("channel", "update", "e", "--group", "staff"), 200),
    (("channel", "disable", "e"), 503),
    (("channel", "enable", "e"), 200),
    (("price", "unset", "echo"), 200),
    (("user", "disable", "ann"), 403),
    (("user", "enable", "ann"), 200),
    (("user", "delete", "ann"), 401),
)


def test_a_server_takes_over_what_is_changed_beside_it(tmp_path: Path) -> None:
    def done(*argv: str) -> Any:
        return once(*argv, "--data-dir", str(tmp_path / "data"), cwd=tmp_path)

    done("user", "create", "--username", "ann", "--quota", "500000")
    done("channel", "create", "--name", "e", "--type", "echo", "--models", "echo")
    done(*PRICE)
    key = done("token", "create", "--user", "ann", "--name", "t")["key"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with running("serve", "--port", str(port), "--data-dir", str(tmp_path / "data"), cwd=tmp_path):
        assert ask(f"{address}/readyz", "") == 200
        for argv, status in STEPS:
            done(*argv)
            changed = time.monotonic()
            while (seen := ask(f"{address}/v1/chat/completions", key, CHAT)) != status:
                assert time.monotonic() - changed < SEEN_WITHIN_S, (argv, seen, status)
                time.sleep(0.05)
