"""
From a call and a channel to the request that goes upstream.

The same dialect on both sides is not converted: the body keeps its bytes but for the model's name, the effort that a
suffix asked for, `stream_options`, and what the channel overrides. What would change the price behind the gateway's
back goes: `service_tier`, and other models to answer in place of the one that was asked for (`models`, `fallbacks` and
the like, which routers such as OpenRouter and LiteLLM know). A channel that wants one sets it in its `param_override`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from ...config.channel import Channel, MappingCycle, mapped_model
from ...config.live import Live
from ...config.options import Options
from ...config.secret import Secret
from ..call import Call
from ..errors import BadRequest, Fault, UpstreamError
from ..operations import Operation
from ..outgoing import Headers, Outgoing, can_be_sent
from ..providers.provider import Provider, Target
from ..providers.registry import PROVIDERS
from .json_splice import REMOVE, fields_of, splice
from .output_limit import limit_of

NO_KEY = Secret("")
CHANGES_THE_PRICE = frozenset(
    {"service_tier", "models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks"}
)
NAMES_OR_TALKS = frozenset({"model", "messages"})
CACHED_ROUTES = 4096
URL = re.compile(r"https?://[!-~]+")
USER_AGENT = (b"user-agent", b"tollway")


class UpstreamRequest(Struct, frozen=True):
    """A request on its way: what is sent, the upstream's name of the model, what must be undone on the way back."""

    operation: Operation
    outgoing: Outgoing
    upstream_model: str
    strip_usage: bool
    """The usage chunk was asked for by us: the client did not, and does not get it."""


@dataclass(frozen=True, slots=True)
class _Route:
    """Everything about a (channel, key, operation, model) that is the same for each request."""

    channel: Channel
    provider: Provider
    upstream_model: str
    spelled_model: bytes
    """The same in JSON."""
    url: str
    headers: Headers
    overridden: frozenset[bytes]
    """Names of headers that the channel sets itself, whatever the caller says."""


class UpstreamRequestBuilder:
    """
    Builds them, keeping what is the same for each request of a route.

    `api_version` is the site's default for providers that want one. The option `force_stream_usage` asks every stream
    for its usage.
    """

    def __init__(self, *, api_version: str = "", options: Live[Options] | None = None) -> None:
        self.api_version = api_version
        self.options = options or Live(Options())
        self._routes: dict[tuple[int, int, str, str], _Route] = {}

    def build(self, call: Call, channel: Channel, key_index: int) -> UpstreamRequest:
        """
        Raises `UpstreamError` (fault of the channel or its key) for a channel that cannot be asked: a mapping that goes
        round, no base URL or one that is none, a key or an override that no header can carry. Raises `BadRequest` for a
        body that cannot be edited without guessing.
        """
        route = self._route(call, channel, key_index)
        if call.is_form:
            body, strip = _form_body(call, route.upstream_model), False
        else:
            body, strip = self._json_body(call, route)
        headers = [(b"content-type", call.content_type), *call.headers]
        if route.overridden:
            headers = [header for header in headers if header[0] not in route.overridden]
        headers += route.headers
        outgoing = Outgoing(call.operation.method, route.url, headers, body, channel.proxy, route.provider.transport)
        return UpstreamRequest(call.operation, outgoing, route.upstream_model, strip)

    def _route(self, call: Call, channel: Channel, key_index: int) -> _Route:
        if call.query:  # the caller's own words: kept, they would fill the memory
            return self._new_route(call, channel, key_index)
        key = (channel.id, key_index, call.operation.name, call.model)
        route = self._routes.get(key)
        if route is None or route.channel is not channel:
            if len(self._routes) >= CACHED_ROUTES:
                self._routes.clear()
            route = self._routes[key] = self._new_route(call, channel, key_index)
        return route

    def _new_route(self, call: Call, channel: Channel, key_index: int) -> _Route:
        provider = PROVIDERS[channel.type]
        base_url = channel.base_url or provider.base_url
        if not base_url:
            raise misconfigured("The channel has no base URL.")
        try:
            upstream_model = upstream_name(channel, call)
        except MappingCycle:
            raise misconfigured("The channel's model_mapping goes round in a circle.") from None
        target = Target(base_url, call.operation, upstream_model, channel.api_version or self.api_version, call.query)
        secret = channel.keys[key_index] if channel.keys else NO_KEY
        url = provider.address(target)
        if not URL.fullmatch(url):
            raise misconfigured("The channel's base URL is not an http or https URL in plain ASCII.")
        headers = auth_headers(provider, secret, channel)
        own = own_headers(channel, secret)
        overridden = frozenset(name for name, _ in own)
        headers = [header for header in headers if header[0] not in overridden] + own
        if b"user-agent" not in overridden:
            headers.append(USER_AGENT)
        try:
            spelled = orjson.dumps(upstream_model)
        except orjson.JSONEncodeError:
            raise misconfigured("The channel's model_mapping cannot be written as JSON.") from None
        return _Route(channel, provider, upstream_model, spelled, url, headers, overridden)

    def _json_body(self, call: Call, route: _Route) -> tuple[bytes, bool]:
        document: Mapping[str, Any] = call.document or {}
        edits: dict[str, Any] = {}
        strip = False
        rename = document.get("model") != route.upstream_model
        if call.effort is not None and call.operation.dialect == "openai_chat":
            edits["reasoning_effort"] = call.effort
        if (
            call.stream
            and call.operation.asks_usage
            and route.provider.stream_usage
            and self.options.current.force_stream_usage
        ):
            strip = not call.asked_for_usage
            if strip:
                edits["stream_options"] = _with_usage(call.body, document)
        if not CHANGES_THE_PRICE.isdisjoint(document):
            edits |= dict.fromkeys(CHANGES_THE_PRICE & document.keys(), REMOVE)
        for name in route.provider.unsupported:
            if name in document:
                edits[name] = REMOVE
        if route.channel.param_override:
            edits.update(route.channel.param_override)
        span = call.model_span
        if not edits:
            if not rename:
                return call.body, strip
            if span is not None:
                return b"".join((call.body[: span[0]], route.spelled_model, call.body[span[1] :])), strip
        if rename:
            edits = {"model": route.upstream_model, **edits}
        try:
            return splice(call.body, document, edits, model_span=span), strip
        except orjson.JSONEncodeError:
            raise misconfigured("The channel's param_override or model_mapping cannot be written as JSON.") from None


def as_sent(call: Call, channel: Channel | None) -> Call:
    """
    The call with what the channel's `param_override` sets, for whoever asks what it costs: a longer answer, more of
    them, a better picture. Its model and its messages stay. Raises `BadRequest` as `UpstreamRequestBuilder.build` does.
    """
    document = call.document
    if channel is None or not channel.param_override or document is None or call.is_form:
        return call
    edits = {name: value for name, value in channel.param_override.items() if name not in NAMES_OR_TALKS}
    try:
        body = splice(call.body, document, edits)
    except orjson.JSONEncodeError:
        return call  # nobody will be asked
    document = {**document, **edits}
    choices = document.get("n")
    return replace(
        call,
        body=body,
        document=document,
        output_limit=limit_of(document),
        choices=choices if type(choices) is int and choices > 0 else 1,
    )


def upstream_name(channel: Channel, call: Call) -> str:
    """What this channel calls the model: its mapping of the name as sent, else of the name without its suffix."""
    name = call.model if call.model in channel.model_mapping else call.base_model
    return mapped_model(channel.model_mapping, name)


def misconfigured(message: str, *, fault: Fault = "channel") -> UpstreamError:
    return UpstreamError(message, code="channel_misconfigured", fault=fault)


def auth_headers(provider: Provider, key: Secret, channel: Channel) -> Headers:
    """How the provider is shown the key. Raises `UpstreamError`, of the key's fault, when no header can carry it."""
    try:
        headers = provider.auth(key, channel)
    except UnicodeEncodeError:
        headers = None
    if headers is None or not can_be_sent(headers):
        raise misconfigured("The channel's key or organization holds what a header cannot.", fault="key")
    return headers


def own_headers(channel: Channel, key: Secret) -> Headers:
    """
    The channel's `header_override`; `{api_key}` in a value is the channel's key.

    Raises `UpstreamError` for what is no header, or is the transport's to set.
    """
    try:
        headers = [
            (name.lower().encode(), value.replace("{api_key}", key.reveal()).encode())
            for name, value in channel.header_override.items()
        ]
    except UnicodeEncodeError:
        headers = None
    if headers is None or not can_be_sent(headers):
        raise misconfigured("The channel's header_override holds what cannot be sent as a header.")
    return headers


def _with_usage(body: bytes, document: Mapping[str, Any]) -> object:
    """`stream_options` that ask for usage, with the caller's other options in his own bytes."""
    options = document.get("stream_options")
    if not options:
        return {"include_usage": True}
    field = fields_of(body)["stream_options"]
    return orjson.Fragment(splice(body[field.value : field.end], options, {"include_usage": True}))


def _form_body(call: Call, upstream_model: str) -> bytes:
    if call.model_span is not None:
        start, end = call.model_span
        if upstream_model == call.model:
            return call.body
        return call.body[:start] + upstream_model.encode() + call.body[end:]
    form = call.body.lstrip(b"\r\n")
    opening, _, _ = form.partition(b"\r\n")
    if not opening.startswith(b"--") or "model" in (call.document or {}):
        raise BadRequest("The form's model field cannot be read.", param="model", code="invalid_form")
    part = b'%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (opening, upstream_model.encode())
    return part + form
