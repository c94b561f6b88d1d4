"""Changing CRYPTO_SECRET under two servers, one of which was not told of it, on every engine."""

from pathlib import Path

from .running import Process, serving_process
from .test_engines import Operator, key_made
from .waiting import until
from .wire import CHAT, ask

OLD, NEW = "the first secret ever", "the second secret now"


def status(server: Process, key: str, model: str = "") -> int:
    return ask(server.address, "/v1/chat/completions", key, CHAT | ({"model": model} if model else {})).status


def operator(data_dir: Path, url: str, secret: str, former: str = "") -> Operator:
    found = Operator(data_dir, url)
    found.environ |= {"CRYPTO_SECRET": secret, "CRYPTO_SECRET_FORMER": former}
    return found


def test_servers_that_know_both_secrets_go_on(empty_database_url: str, data_dir: Path) -> None:
    before = operator(data_dir, empty_database_url, OLD)
    both = operator(data_dir, empty_database_url, NEW, OLD)
    after = operator(data_dir, empty_database_url, NEW)
    key = key_made(before)
    with (
        serving_process(data_dir, **both.environ) as server,
        serving_process(data_dir.with_name("late"), **before.environ) as late,
    ):
        assert status(server, key) == status(late, key) == 200
        (done,) = both.done("db", "rotate-secret")
        assert (done["changed"], done["channels"]) == (True, 1)

        after.done("channel", "create", "--name", "new", "--type", "echo", "--models", "gpt-4o")
        (token,) = after.done("token", "create", "--user", "ann", "--name", "desktop", "--unlimited")
        until(lambda: status(server, token["key"], "gpt-4o") == 200)
        assert status(server, key) == 200

        until(lambda: status(late, key) == 404)
        assert ask(late.address, "/readyz", "").status == 200
        for process in (server, late):
            process.terminate()
            assert process.ended() == 0, process.err
    assert "is left out" not in server.err
    assert "channel 1 is left out: the secret of channel:1 was encrypted under another CRYPTO_SECRET" in late.err
    assert "Traceback" not in late.err

    refused = before.run("serve", "--port", "0")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "CRYPTO_SECRET is not the one under which the database's keys are stored" in refused.stderr
    with serving_process(data_dir, **after.environ) as server:
        assert status(server, key) == status(server, token["key"], "gpt-4o") == 200
    assert after.done("audit")[0]["clean"]
