"""The nginx of `deploy/`, really run before two nodes: streams flow, big bodies pass, and a node may go."""

import inspect
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest
import trustme
import uvicorn
from tollway.config.settings import Settings

from tests.e2e.running import LoopThread
from tests.e2e.scripted import Peer, ScriptedUpstream, scripted_upstream
from tests.e2e.wire import CHAT, DONE, LAST_CHUNK, OpenRequest, ask, chunk, completion, delta, sse_head, whole
from tests.packaging.behind_nginx import Front, configured, free_ports, front, seconds

Tool = Callable[[str, str], str]

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
PATH = "/v1/chat/completions"
STREAM = CHAT | {"stream": True}
FLOOD = "as much as you can"
MOST_SENT = 128 * MIB


@dataclass
class Upstream:
    """Answers at once; a stream's first event at once, too, and the two others when the test says so."""

    second: threading.Event = field(default_factory=threading.Event)
    last: threading.Event = field(default_factory=threading.Event)
    wire: ScriptedUpstream = field(default_factory=ScriptedUpstream)

    async def play(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if b'"stream": true' not in request.body:
                await peer.send(whole(completion()))
                continue
            await peer.send(sse_head() + chunk(delta("first")))
            if FLOOD.encode() in request.body:
                for _ in range(MOST_SENT // MIB):
                    await peer.send(chunk(delta("x" * MIB)))
            await peer.wait(self.second)
            await peer.send(chunk(delta("second")))
            await peer.wait(self.last)
            await peer.send(chunk(delta("last") + DONE) + LAST_CHUNK)

    def hold(self) -> None:
        self.second.clear()
        self.last.clear()

    def let_go(self) -> None:
        self.second.set()
        self.last.set()


@pytest.fixture(scope="module")
def nginx(tool: Tool) -> str:
    return tool("nginx", "nginx-light")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    threads, upstream = LoopThread(), Upstream()
    with scripted_upstream(threads, upstream.play) as upstream.wire:
        yield upstream
        upstream.let_go()
    threads.stop()


@pytest.fixture(scope="module")
def gateway(nginx: str, deploy: Path, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(nginx, deploy, tmp_path_factory.mktemp("front"), upstream.wire.url) as found:
        yield found


@pytest.fixture
def mortal(nginx: str, deploy: Path, upstream: Upstream, tmp_path: Path) -> Iterator[Front]:
    """One whose nodes the test may end."""
    with front(nginx, deploy, tmp_path, upstream.wire.url) as found:
        yield found


def test_a_stream_is_not_held_back(gateway: Front, upstream: Upstream) -> None:
    upstream.hold()
    with OpenRequest(gateway.address, gateway.account.key, STREAM) as request:
        # The upstream waits for this test: what is here has not waited for what comes next.
        request.read_until(b"first")
        upstream.second.set()
        request.read_until(b"second")
        upstream.last.set()
        assert b"[DONE]" in request.read_until(b"[DONE]")


def test_a_client_that_does_not_read_holds_its_upstream_back(gateway: Front, upstream: Upstream) -> None:
    """Where nginx takes a stream in for its client, a client that has left is charged for what it never got."""
    upstream.let_go()
    flood = STREAM | {"messages": [{"role": "user", "content": FLOOD}]}
    with OpenRequest(gateway.address, gateway.account.key, flood) as request:
        request.read_until(b"first")
        peer = max(upstream.wire.peers, key=lambda peer: peer.sent)
        sent = -1
        while sent != peer.sent:
            sent = peer.sent
            time.sleep(0.5)
        assert sent < MOST_SENT // 4


@pytest.mark.parametrize("size", [MIB // 2, 8 * MIB, 31 * MIB], ids=["in memory", "in a file", "almost too big"])
def test_a_big_body_arrives_whole(size: int, gateway: Front, upstream: Upstream) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "x" * size}], "max_tokens": 1}
    answer = ask(gateway.address, PATH, gateway.account.key, body, timeout=30)
    assert answer.status == 200, answer.body
    assert len(upstream.wire.requests[-1].body) > size


def test_a_body_that_is_too_big_is_refused_before_it_is_sent(gateway: Front) -> None:
    size = Settings().max_request_bytes + 1
    with OpenRequest(gateway.address, gateway.account.key, CHAT, declared=size) as request:
        seen = request.read_until(b"}}")
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b" 413 " in head.splitlines()[0]
    assert b"application/json" in head
    assert json.loads(body)["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/v1/../metrics", "/metrics?x"])
def test_figures_are_not_for_clients(path: str, gateway: Front) -> None:
    assert ask(gateway.address, path).status == 404
    assert ask(gateway.nodes[0].address, "/metrics").status == 200


def test_what_a_client_says_of_its_own_address_is_not_believed(gateway: Front) -> None:
    account = gateway.make_account(allow_ips=("127.0.0.2/32",), unlimited=True)
    headers = {**JSON, "Authorization": f"Bearer {account.key}", "X-Forwarded-For": "127.0.0.2"}

    def status(source: str) -> int:
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=10, source_address=(source, 0))
        with closing(connection):
            connection.request("POST", PATH, json.dumps(CHAT), headers)
            return connection.getresponse().status

    assert status("127.0.0.1") == 403
    assert status("127.0.0.2") == 404  # the key is good there; no channel serves its group


def test_no_key_gets_into_the_log(gateway: Front) -> None:
    answer = ask(gateway.address, "/v1/models?key=sk-in-the-query", gateway.account.key)
    logged = gateway.logged(answer.headers["x-request-id"])
    assert (logged["path"], logged["status"]) == ("/v1/models", 200)
    assert not [line for line in gateway.log.read_text().splitlines() if "sk-" in line]


def test_both_nodes_serve_and_connections_to_them_are_used_again(gateway: Front) -> None:
    answers = [ask(gateway.address, "/v1/models", gateway.account.key) for _ in range(6)]
    assert {answer.status for answer in answers} == {200}
    served = {gateway.logged(answer.headers["x-request-id"])["node"] for answer in answers}
    assert served == {node.address.removeprefix("http://") for node in gateway.nodes}


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_when_a_node_ends_the_other_one_answers(how: str, mortal: Front) -> None:
    assert ask(mortal.address, PATH, mortal.account.key, CHAT).status == 200
    gone = mortal.nodes[0]
    getattr(gone, how)()
    gone.ended()
    assert [ask(mortal.address, PATH, mortal.account.key, CHAT).status for _ in range(6)] == [200] * 6
    mortal.nodes[1].kill()
    mortal.nodes[1].ended()
    answer = ask(mortal.address, PATH, mortal.account.key, CHAT)
    assert (answer.status, answer.error["code"]) == (502, "unavailable")


def test_a_request_that_was_sent_is_not_sent_again(mortal: Front, upstream: Upstream) -> None:
    upstream.hold()
    before = len(upstream.wire.requests)
    with OpenRequest(mortal.address, mortal.account.key, STREAM) as request:
        request.read_until(b"first")
        busy = mortal.busy_node()
        busy.kill()
        busy.ended()
        request.socket.settimeout(10)
        while request.socket.recv(65536):
            pass
    upstream.let_go()
    assert len(upstream.wire.requests) == before + 1


def test_nginx_leaves_an_idle_connection_before_tollway_does(deploy: Path) -> None:
    text = (deploy / "nginx/tollway.conf").read_text(encoding="utf-8")
    default = inspect.signature(uvicorn.Config).parameters["timeout_keep_alive"].default
    assert seconds(text, "keepalive_timeout") < default


def test_nginx_waits_longer_than_tollway_does(deploy: Path) -> None:
    text = (deploy / "nginx/tollway.conf").read_text(encoding="utf-8")
    assert seconds(text, "proxy_read_timeout") > Settings().relay_timeout
    process = (deploy / "nginx/nginx.conf").read_text(encoding="utf-8")
    assert seconds(process, "worker_shutdown_timeout") > Settings().shutdown_timeout


def test_the_certificate_of_the_readme_goes_into_the_server(nginx: str, deploy: Path, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```nginx\n(.*?)```", (deploy / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    trustme.CA().issue_cert("tollway.example.com").private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    for name in ("tls.crt", "tls.key"):
        snippet = snippet.replace(f"/etc/nginx/tls/{name}", str(tmp_path / "tls.pem"))
    listen, *nodes = free_ports(3)
    config = configured(deploy, tmp_path, listen=listen, nodes=nodes)
    site = tmp_path / "tollway.conf"
    site.write_text(site.read_text().replace("server {\n", f"server {{\n{snippet}", 1))
    subprocess.run([nginx, "-t", "-q", "-p", str(tmp_path), "-c", str(config)], check=True)
