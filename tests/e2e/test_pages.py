"""What is for operators and browsers: health, metrics, CORS, and paths and methods that are not served."""

import re
from pathlib import Path

import pytest
from tollway.config.channel import ChannelType
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.app import create_app
from tollway.gateway.store import options

from .conftest import UpstreamOf
from .gateway import Account, Gateway, now_ms
from .running import served
from .scripted import always, ends
from .wire import CHAT, HELLO, JSON, MODEL, SERVER_ERROR, ask, chunk, completion, delta, sse_head, whole


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health/liveliness", "/health/readiness", "/", "/metrics"])
def test_a_page_needs_no_key(path: str, gateway: Gateway) -> None:
    assert ask(gateway.address, path).status == 200


def series(gateway: Gateway, name: str) -> dict[str, float]:
    """A metric's series with their values, by labels."""
    text = ask(gateway.address, "/metrics").body.decode()
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def one_series(gateway: Gateway, name: str, *labels: str) -> float:
    (value,) = (value for key, value in series(gateway, name).items() if all(label in key for label in labels))
    return value


def test_traffic_is_counted(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    first = gateway.channel(account, upstream(always(whole(SERVER_ERROR, 500))).url, priority=10)
    second = gateway.channel(account, upstream(always(HELLO)).url)
    assert gateway.chat(account, CHAT | {"stream": True}).headers["x-tollway-attempts"] == "2"
    channel = f'channel="{second.id}"'
    labels = channel, 'dialect="openai_chat"', f'model="{MODEL}"', 'operation="chat_completions"', 'status="200"'
    assert one_series(gateway, "tollway_requests_total", *labels) == 1
    assert one_series(gateway, "tollway_retries_total", channel) == 1
    for histogram in ("tollway_request_duration_seconds", "tollway_overhead_seconds"):
        assert one_series(gateway, f"{histogram}_count", 'operation="chat_completions"') >= 1
    for histogram in ("tollway_time_to_first_token_seconds", "tollway_inter_token_seconds"):
        assert one_series(gateway, f"{histogram}_count", f'model="{MODEL}"') >= 1
    assert one_series(gateway, "tollway_tokens_total", 'kind="input"', f'model="{MODEL}"') >= 1000
    assert one_series(gateway, "tollway_quota_total", f'model="{MODEL}"') >= 225
    assert one_series(gateway, "tollway_breaker_state", f'channel="{first.id}"') == 0
    assert one_series(gateway, "tollway_streams_open") == 0
    for name in ("tollway_upstream_connections_open", "tollway_charges_pending", "tollway_resident_bytes"):
        assert one_series(gateway, name) >= 0


def test_a_truncated_stream_is_counted(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    channel = gateway.channel(account, upstream(ends(sse_head(), chunk(delta("x")))).url)
    gateway.chat(account, CHAT | {"stream": True})
    assert one_series(gateway, "tollway_truncated_streams_total", f'channel="{channel.id}"') == 1


def test_an_open_breaker_is_shown(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    limited = whole(SERVER_ERROR, 429, JSON, b"retry-after: 20")
    channel = gateway.channel(account, upstream(always(limited)).url)
    gateway.chat(account, CHAT)
    assert one_series(gateway, "tollway_breaker_state", f'channel="{channel.id}"') == 1


def test_names_that_clients_make_up_are_no_series(gateway: Gateway, account: Account) -> None:
    gateway.channel(account)
    before = len(series(gateway, "tollway_requests_total"))
    for number in range(20):
        gateway.chat(account, CHAT | {"model": f"made-up-{number}"})
        ask(gateway.address, f"/made/up/{number}")
    assert len(series(gateway, "tollway_requests_total")) <= before + 2
    assert "made-up" not in ask(gateway.address, "/metrics").body.decode()


def test_metrics_can_want_a_token(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, access_log=False, metrics_token=Secret("a-token-for-prometheus"))
    with served(create_app(settings)) as server:
        assert ask(server.address, "/metrics").status == 401
        assert ask(server.address, "/metrics", "another-token").status == 401
        assert ask(server.address, "/metrics", "a-token-for-prometheus").status == 200
        assert ask(server.address, "/healthz").status == 200


BROWSER = {"Origin": "https://app.example"}


def test_a_preflight_needs_no_key(gateway: Gateway) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
    answer = ask(gateway.address, "/v1/chat/completions", method="OPTIONS", headers=BROWSER | asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] in ("*", BROWSER["Origin"])
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]


def test_a_browser_may_read_answers_and_errors(gateway: Gateway, upstream: UpstreamOf) -> None:
    account = gateway.account(unlimited=True, requests_per_minute=1000, tokens_per_minute=1_000_000)
    gateway.channel(account, upstream(always(whole(completion()))).url)
    for status, key in ((200, account.key), (401, "sk-nobody")):
        answer = ask(gateway.address, "/v1/chat/completions", key, CHAT, headers=BROWSER)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert "x-request-id" in exposed
        assert {name for name in answer.headers if name.startswith("x-")} <= {*exposed}


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/", "/v1/chat/completions/", "/v1/models/", "//v1/models"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path(method: str, path: str, gateway: Gateway, account: Account) -> None:
    answer = ask(gateway.address, path, account.key, method=method)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/gpt-4o-mini", "GET"),
        ("HEAD", "/v1/chat/completions", "POST"),
    ],
)
def test_another_method(method: str, path: str, allowed: str, gateway: Gateway, account: Account) -> None:
    answer = ask(gateway.address, path, account.key, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert answer.error["code"] == "method_not_allowed"


def test_only_models_that_would_be_served_are_listed(gateway: Gateway, account: Account) -> None:
    gateway.channel(account, models=(MODEL, "o3-mini-high", "mystery"), type=ChannelType.ECHO)

    def listed() -> list[str]:
        return [each["id"] for each in gateway.ask("/v1/models", account).json["data"]]

    priced = [MODEL, "o3-mini-high"]
    assert listed() == priced
    assert gateway.ask("/v1/models/mystery", account).status == 404
    gateway.change(lambda store, vault: options.set_many(store, {"accept_unknown_models": "true"}, now_ms=now_ms()))
    try:
        assert listed() == sorted([*priced, "mystery"])
    finally:
        gateway.change(lambda store, vault: options.unset(store, "accept_unknown_models", now_ms=now_ms()))
