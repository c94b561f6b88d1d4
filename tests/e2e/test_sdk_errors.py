"""Each kind of refusal and failure, as the exception that OpenAI's Python SDK makes of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from tollway.gateway.store import tokens, users
from tollway.gateway.store.records import TokenStatus, UserStatus

from .conftest import MOST_BYTES, ClientOf, UpstreamOf
from .gateway import Account, Gateway, now_ms
from .scripted import always, holds
from .wire import CHAT, MODEL, SERVER_ERROR, ask, whole

HI = [{"role": "user", "content": "hi"}]


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HI, **fields})


@pytest.fixture
def served(gateway: Gateway, account: Account) -> Account:
    """An account with a channel that answers."""
    gateway.channel(account)
    return account


@pytest.mark.parametrize("key", ["sk-nobody-has-this-key", "rubbish", "x" * 4000])
def test_an_unknown_key(key: str, client_of: ClientOf) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client_of(key).models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
    assert key not in caught.value.message


def test_a_key_beyond_ascii(gateway: Gateway) -> None:
    answer = ask(gateway.address, "/v1/models", "sk-\xfcnknown")
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


def test_no_key(client_of: ClientOf) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client_of("x").models.list(extra_headers={"Authorization": openai.Omit()})
    assert (caught.value.status_code, caught.value.code) == (401, "missing_api_key")
    assert caught.value.response.headers["www-authenticate"] == "Bearer"


@dataclass(frozen=True)
class Refusal:
    """A token or user that may not, and what the caller is told. `token`: fields of the token."""

    exception: type[openai.APIStatusError]
    status: int
    code: str
    quota: int = 500_000
    token: tuple[tuple[str, Any], ...] = (("unlimited", True),)


REFUSALS = {
    "an expired key": Refusal(
        openai.AuthenticationError, 401, "expired_api_key", token=(("unlimited", True), ("expires_at", 1000))
    ),
    "an empty balance": Refusal(openai.APIStatusError, 402, "insufficient_quota", quota=0),
    "a balance that does not cover the request": Refusal(openai.APIStatusError, 402, "insufficient_quota", quota=3),
    "a key without quota": Refusal(openai.APIStatusError, 402, "token_quota_exhausted", token=(("remain_quota", 0),)),
    "a key whose quota does not cover the request": Refusal(
        openai.APIStatusError, 402, "token_quota_exhausted", token=(("remain_quota", 3),)
    ),
    "another address": Refusal(
        openai.PermissionDeniedError, 403, "ip_not_allowed", token=(("unlimited", True), ("allow_ips", ["10.0.0.0/8"]))
    ),
    "another model": Refusal(
        openai.PermissionDeniedError, 403, "model_not_allowed", token=(("unlimited", True), ("models", ["gpt-4o"]))
    ),
    "a group that is not the user's": Refusal(
        openai.PermissionDeniedError,
        403,
        "group_not_allowed",
        token=(("unlimited", True), ("token_group", "elsewhere")),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_caller_who_may_not(refusal: Refusal, gateway: Gateway, client_of: ClientOf) -> None:
    account = gateway.account(quota=refusal.quota, **dict(refusal.token))
    gateway.channel(account)
    with pytest.raises(refusal.exception) as caught:
        chat(client_of(account.key))
    assert type(caught.value) is refusal.exception
    assert (caught.value.status_code, caught.value.code) == (refusal.status, refusal.code)
    assert gateway.charges(account) == []
    assert gateway.held(account) == (0, 0)


SWITCHED_OFF: dict[str, tuple[str, Callable[..., Any]]] = {
    "a disabled key": (
        "disabled_api_key",
        lambda store, of: tokens.set_status(store, of.token_id, TokenStatus.DISABLED, now_ms=now_ms()),
    ),
    "a disabled user": (
        "user_disabled",
        lambda store, of: users.set_status(store, of.user_id, UserStatus.DISABLED, now_ms=now_ms()),
    ),
}


@pytest.mark.parametrize("case", SWITCHED_OFF.values(), ids=SWITCHED_OFF)
def test_what_is_switched_off(
    case: tuple[str, Callable[..., Any]], gateway: Gateway, served: Account, client_of: ClientOf
) -> None:
    code, switch_off = case
    gateway.change(lambda store, vault: switch_off(store, served))
    with pytest.raises(openai.PermissionDeniedError) as caught:
        chat(client_of(served.key))
    assert (caught.value.status_code, caught.value.code) == (403, code)


def test_a_deleted_key_is_an_unknown_one(gateway: Gateway, served: Account, client_of: ClientOf) -> None:
    gateway.change(lambda store, vault: tokens.delete(store, served.token_id, now_ms=now_ms()))
    with pytest.raises(openai.AuthenticationError):
        chat(client_of(served.key))


def test_an_unknown_model(served: Account, client_of: ClientOf) -> None:
    client = client_of(served.key)
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-9")
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_a_model_of_another_group(gateway: Gateway, served: Account, client_of: ClientOf) -> None:
    stranger = gateway.account()
    assert list(client_of(stranger.key).models.list()) == []
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client_of(stranger.key))
    assert caught.value.code == "model_not_found"


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": ""}, "model"),
    "a model that is null": ({"extra_body": {"model": None}}, "model"),
    "a model that is a number": ({"extra_body": {"model": 4}}, "model"),
    "no message": ({"messages": []}, "messages"),
    "messages that are a text": ({"messages": "hi"}, "messages"),
    "a message that is a text": ({"messages": [*HI, "hi"]}, "messages[1]"),
    "a limit that is negative": ({"max_tokens": -1}, "max_tokens"),
    "a limit that is a text": ({"max_completion_tokens": "9"}, "max_completion_tokens"),
    "no choice": ({"n": 0}, "n"),
    "a thousand choices": ({"n": 1000}, "n"),
    "a stream that is a text": ({"extra_body": {"stream": "yes"}}, "stream"),
    "stream options that are a list": ({"stream_options": []}, "stream_options"),
}


@pytest.mark.parametrize("case", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_bad_field_is_named(
    case: tuple[dict[str, Any], str], gateway: Gateway, served: Account, client_of: ClientOf
) -> None:
    fields, param = case
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client_of(served.key), **fields)
    assert (caught.value.status_code, caught.value.param) == (400, param)
    assert caught.value.type == "invalid_request_error"
    assert gateway.charges(served) == []


def test_a_body_that_is_too_large(gateway: Gateway, served: Account, client_of: ClientOf) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client_of(served.key), messages=[{"role": "user", "content": "x" * MOST_BYTES}])
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


def test_another_media_type(served: Account, client_of: ClientOf) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client_of(served.key), extra_headers={"Content-Type": "text/plain"})
    assert (caught.value.status_code, caught.value.code) == (415, "unsupported_media_type")


def test_another_method(served: Account, client_of: ClientOf) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client_of(served.key).get("/chat/completions", cast_to=object)
    assert (caught.value.status_code, caught.value.code) == (405, "method_not_allowed")
    assert caught.value.response.headers["allow"] == "POST"


def test_another_path(served: Account, client_of: ClientOf) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client_of(served.key).post("/chat/completion", cast_to=object, body=CHAT)
    assert caught.value.code == "unknown_url"


def test_too_many_requests(gateway: Gateway, client_of: ClientOf) -> None:
    account = gateway.account(unlimited=True, requests_per_minute=2)
    gateway.channel(account)
    client = client_of(account.key)
    first = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    chat(client)
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client)
    assert (caught.value.status_code, caught.value.code) == (429, "rate_limit_exceeded")
    headers = caught.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert len(gateway.charges(account)) == 2


def test_no_healthy_channel(gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf) -> None:
    limited = whole(SERVER_ERROR, 429, b"application/json", b"retry-after: 30")
    gateway.channel(account, upstream(always(limited)).url)
    client = client_of(account.key)
    with pytest.raises(openai.RateLimitError) as first:
        chat(client)
    assert int(first.value.response.headers["retry-after"]) == 30
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client)
    assert (caught.value.status_code, caught.value.code) == (503, "no_healthy_channel")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30


def test_an_answer_that_is_a_web_page(
    gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(whole(b"<html>Welcome</html>", 200, b"text/html"))).url)
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client_of(account.key))
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_bad_response")
    assert "Welcome" not in caught.value.message


def test_an_upstream_that_says_nothing(
    gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    silent = upstream(holds())
    gateway.channel(account, silent.url)
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client_of(account.key))
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_first_byte_timeout")
    assert time.monotonic() - began < 2
    assert len(silent.requests) == 1
    assert gateway.charges(account) == []


def test_the_sdks_own_retries_do_not_come_on_top(
    gateway: Gateway, account: Account, client_of: ClientOf, upstream: UpstreamOf
) -> None:
    """All channels were tried: an SDK that is told to retry does not, and the upstream has peace."""
    broken = upstream(always(whole(SERVER_ERROR, 500)))
    gateway.channel(account, broken.url)
    with pytest.raises(openai.InternalServerError):
        chat(client_of(account.key, max_retries=3))
    assert len(broken.requests) == 2


def test_every_error_names_its_request(served: Account, client_of: ClientOf) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client_of(served.key), model="gpt-9", extra_headers={"x-request-id": "mine-2"})
    assert caught.value.request_id == "mine-2"
    body = caught.value.response.json()["error"]
    assert body.keys() == {"message", "type", "param", "code", "request_id"}
    assert (body["type"], body["request_id"]) == ("invalid_request_error", "mine-2")


def test_a_key_for_some_models_sees_only_those(gateway: Gateway, client_of: ClientOf) -> None:
    account = gateway.account(unlimited=True, models=["gpt-4o"])
    gateway.channel(account, models=("gpt-4o", MODEL))
    client = client_of(account.key)
    assert [model.id for model in client.models.list()] == ["gpt-4o"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(MODEL)
