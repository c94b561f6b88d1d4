"""From a call and a channel to an upstream request: exactly the documented edits, and nothing smuggled in."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from tollway.adapters.call import Call
from tollway.adapters.errors import BadRequest, UpstreamError
from tollway.adapters.operations import BY_PATH
from tollway.adapters.requests.json_splice import Duplicate
from tollway.adapters.requests.multipart_form import read_form
from tollway.adapters.requests.upstream_request import CACHED_ROUTES, UpstreamRequest, UpstreamRequestBuilder
from tollway.config.channel import Channel, ChannelType
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.secret import Secret

CHAT = BY_PATH["/v1/chat/completions"]
CHANNEL = Channel(1, "one", ChannelType.OPENAI, ("gpt-4o",), keys=(Secret("sk-first"), Secret("sk-second")))
HELLO = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}'


def call(body: bytes = HELLO, *, path: str = "/v1/chat/completions", **more: Any) -> Call:
    document = orjson.loads(body)
    model = document.get("model", "dall-e-2")
    facts = {"base_model": model, "stream": document.get("stream") is True, "content_type": b"application/json", **more}
    return Call(BY_PATH[path], model, body=body, document=document, **facts)


def build(channel: Channel = CHANNEL, asked: Call | None = None, *, key: int = 0) -> UpstreamRequest:
    return UpstreamRequestBuilder().build(asked or call(), channel, key)


def value_of(request: UpstreamRequest, name: bytes) -> list[bytes]:
    return [value for header, value in request.outgoing.headers if header == name]


# What JSON parsers and writers are known to change on the way.
AWKWARD = [
    pytest.param(b'{"z":1,"model":"gpt-4o","a":2,"messages":[]}', id="the order of keys"),
    pytest.param(b'{ "model" :\t"gpt-4o" ,\r\n "messages":[ ] }\n', id="white space"),
    pytest.param(
        b'{"model":"gpt-4o","seed":340282366920938463463374607431768211456,"n":-0}', id="integers beyond 64 bits"
    ),
    pytest.param(
        b'{"model":"gpt-4o","t":1.0,"p":1E+2,"q":0.10000000000000000000000001,"r":-0.0}', id="spellings of numbers"
    ),
    pytest.param(rb'{"model":"gpt-4o","a":"\u00e9\u4f60\ud83d\ude00\/\u002f\b\f"}', id="escapes"),
    pytest.param('{"model":"gpt-4o","a":"é你😀\u2028\x7f"}'.encode(), id="letters without escapes"),
    pytest.param(
        rb'{"model":"gpt-4o","a":"\"model\":\"gpt-4o\"","b":"model","c":{"model":"gpt-4o"}}',
        id="the model in other places",
    ),
    pytest.param(rb'{"model":"gpt-4o","a":"x\"model","b":"\\\"model\\\": "}', id="what ends like the model's key"),
    pytest.param(rb'{"\u006dodel":"gpt-4o","messages":[]}', id="a key with an escape"),
    pytest.param(b'{"model":"gpt-4o","x":{"b":1,"a":{"b":null}},"tools":[],"":0}', id="unknown fields"),
    pytest.param(rb'{"model":"gpt-4o\u002dmini","messages":[]}', id="a model with an escape"),
    pytest.param(b'{"messages":[{"content":"' + b"]}{[\\\\" * 400 + b'"}],"model":"gpt-4o"}', id="brackets in a text"),
]


@pytest.mark.parametrize("body", AWKWARD)
def test_a_body_that_needs_no_edit_keeps_every_byte(body: bytes) -> None:
    assert build(asked=call(body)).outgoing.body == body


@pytest.mark.parametrize("body", AWKWARD)
def test_an_edit_that_is_undone_gives_the_body_back(body: bytes) -> None:
    """The model as the first channel calls it, and as a second one calls it again, in the client's spelling."""
    name = orjson.loads(body)["model"]
    channel = replace(CHANNEL, model_mapping={name: "other-model-name"})
    edited = build(channel, call(body)).outgoing.body
    assert edited.count(b'"other-model-name"') == 1
    spelled = next(text for text in (b'"gpt-4o"', rb'"gpt-4o\u002dmini"') if orjson.loads(text) == name)
    assert edited.replace(b'"other-model-name"', spelled) == body


STREAMED = [pytest.param(p.values[0].replace(b"{", b'{"stream":true,', 1), id=p.id) for p in AWKWARD]  # pyright: ignore


@pytest.mark.parametrize("body", STREAMED)
def test_the_wish_for_usage_is_all_that_a_stream_gains(body: bytes) -> None:
    request = build(asked=call(body))
    assert request.strip_usage
    assert request.outgoing.body.replace(b'"stream_options":{"include_usage":true},', b"", 1) == body


def test_other_operations_are_not_asked_for_usage() -> None:
    body = b'{"model":"gpt-image-1","stream":true,"prompt":"x"}'
    request = build(asked=call(body, path="/v1/images/generations"))
    assert (request.outgoing.body, request.strip_usage) == (body, False)


def test_deep_options_are_kept_without_being_written_again() -> None:
    inside = b"[" * 600 + b"]" * 600
    body = b'{"model":"gpt-4o","stream":true,"stream_options":{"x":' + inside + b"}}"
    assert build(asked=call(body)).outgoing.body == body.replace(b'{"x"', b'{"include_usage":true,"x"')


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
        b'{"model":"gpt-4o","stream":true,"stream_options":{"x":1},"stream_options":{}, "stream_options":{"x":2}}',
    ],
)
def test_options_that_contradict_each_other_are_refused(body: bytes) -> None:
    with pytest.raises(Duplicate):
        build(asked=call(body))


class TestHeaders:
    def test_each_key_has_its_own(self) -> None:
        builder = UpstreamRequestBuilder()
        sent = [value_of(builder.build(call(), CHANNEL, key), b"authorization") for key in (0, 1, 0)]
        assert sent == [[b"Bearer sk-first"], [b"Bearer sk-second"], [b"Bearer sk-first"]]

    @pytest.mark.parametrize("name", ["accept", "Content-Type", "OPENAI-BETA", "user-agent", "Authorization"])
    def test_an_override_replaces_and_never_doubles(self, name: str) -> None:
        channel = replace(CHANNEL, header_override={name: "mine"})
        sent = build(channel, call(headers=((b"accept", b"*/*"), (b"openai-beta", b"x"))))
        assert value_of(sent, name.lower().encode()) == [b"mine"]

    def test_what_the_caller_may_say_goes_along(self) -> None:
        sent = build(asked=call(headers=((b"accept", b"text/event-stream"), (b"openai-beta", b"x"))))
        assert value_of(sent, b"accept") == [b"text/event-stream"]
        assert value_of(sent, b"openai-beta") == [b"x"]

    @pytest.mark.parametrize(
        "override",
        [
            pytest.param({"x-a": "1\r\nx-evil: 1"}, id="a line break in a value"),
            pytest.param({"x-a": "1\n"}, id="a line feed at the end"),
            pytest.param({"x-a": "a\rb"}, id="a carriage return"),
            pytest.param({"x-a": "a\0b"}, id="a NUL"),
            pytest.param({"x-a\r\nx-evil": "1"}, id="a line break in a name"),
            pytest.param({"x a": "1"}, id="a blank in a name"),
            pytest.param({"x-a:": "1"}, id="a colon in a name"),
            pytest.param({"": "1"}, id="no name"),
            pytest.param({"ünlaut": "1"}, id="a name beyond ASCII"),
            pytest.param({"x-a": "\ud800"}, id="half a character"),
            pytest.param({"Content-Length": "3"}, id="the length"),
            pytest.param({"Transfer-Encoding": "chunked"}, id="the framing"),
            pytest.param({"Host": "example.com"}, id="the host"),
            pytest.param({"connection": "close"}, id="the connection"),
        ],
    )
    def test_an_override_that_is_no_header_is_the_channels_fault(self, override: dict[str, str]) -> None:
        with pytest.raises(UpstreamError) as failed:
            build(replace(CHANNEL, header_override=override))
        assert (failed.value.code, failed.value.fault, failed.value.retryable) == (
            "channel_misconfigured",
            "channel",
            True,
        )

    @pytest.mark.parametrize("key", ["sk-a\r\nx-evil: 1", "sk-a\n", "sk-\0", "sk-\udcff"])
    @pytest.mark.parametrize("type", [ChannelType.OPENAI, ChannelType.AZURE])
    def test_a_key_that_no_header_can_carry_is_the_keys_fault(self, type: ChannelType, key: str) -> None:
        channel = replace(CHANNEL, type=type, base_url="https://one.example.com", keys=(Secret(key), Secret("sk-good")))
        with pytest.raises(UpstreamError) as failed:
            build(channel)
        assert failed.value.fault == "key"
        assert "sk-" not in failed.value.message
        assert build(channel, key=1).outgoing.url

    def test_a_key_does_not_slip_in_through_an_override(self) -> None:
        channel = replace(CHANNEL, keys=(Secret("a\r\nx-evil: 1"),), header_override={"authorization": "Key {api_key}"})
        with pytest.raises(UpstreamError):
            build(channel)

    def test_an_organization_cannot_break_the_line(self) -> None:
        with pytest.raises(UpstreamError):
            build(replace(CHANNEL, organization="org\r\nx-evil: 1"))

    def test_without_a_key_there_is_no_authorization(self) -> None:
        assert value_of(build(replace(CHANNEL, keys=())), b"authorization") == []


class TestChannels:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param({"type": ChannelType.NEW_API}, "no base URL", id="no base URL"),
            pytest.param({"model_mapping": {"gpt-4o": "a", "a": "gpt-4o"}}, "circle", id="a mapping that goes round"),
            pytest.param({"base_url": "https://a b.example.com"}, "base URL", id="a blank in the base URL"),
            pytest.param({"base_url": "https://a.example.com\r\nx"}, "base URL", id="a line break in the base URL"),
            pytest.param({"base_url": "https://模型.example.com"}, "base URL", id="a base URL beyond ASCII"),
            pytest.param({"base_url": "file:///etc/passwd"}, "base URL", id="another scheme"),
            pytest.param({"base_url": "api.example.com"}, "base URL", id="no scheme"),
            pytest.param(
                {"param_override": {"seed": 2**70}}, "param_override", id="a number that JSON's writer has not"
            ),
            pytest.param({"param_override": {"a": {1}}}, "param_override", id="a value that is no JSON"),
        ],
    )
    def test_a_channel_that_cannot_be_asked(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(UpstreamError, match=words) as failed:
            build(replace(CHANNEL, **change))
        assert (failed.value.code, failed.value.fault) == ("channel_misconfigured", "channel")
        assert "sk-first" not in failed.value.message

    def test_a_changed_channel_takes_effect_at_once(self) -> None:
        builder = UpstreamRequestBuilder()
        assert builder.build(call(), CHANNEL, 0).outgoing.url == "https://api.openai.com/v1/chat/completions"
        moved = replace(
            CHANNEL,
            base_url="https://two.example.com",
            keys=(Secret("sk-new"),),
            model_mapping={"gpt-4o": "new"},
            param_override={"n": 1},
        )
        request = builder.build(call(), moved, 0)
        assert request.outgoing.url == "https://two.example.com/v1/chat/completions"
        assert value_of(request, b"authorization") == [b"Bearer sk-new"]
        assert request.upstream_model == "new"
        assert request.outgoing.body == HELLO.replace(b"{", b'{"n":1,', 1).replace(b"gpt-4o", b"new")

    def test_a_changed_option_takes_effect_at_once(self) -> None:
        options = Live(Options())
        builder = UpstreamRequestBuilder(options=options)
        asked = call(b'{"stream":true,"model":"gpt-4o"}')
        assert builder.build(asked, CHANNEL, 0).strip_usage
        options.current = Options(force_stream_usage=False)
        assert not builder.build(asked, CHANNEL, 0).strip_usage

    def test_two_channels_and_models_do_not_meet(self) -> None:
        builder = UpstreamRequestBuilder()
        second = replace(CHANNEL, id=2, base_url="https://two.example.com")
        other = call(HELLO.replace(b"gpt-4o", b"gpt-5"))
        for _ in range(2):
            assert builder.build(call(), CHANNEL, 0).upstream_model == "gpt-4o"
            assert builder.build(other, CHANNEL, 0).upstream_model == "gpt-5"
            assert builder.build(call(), second, 0).outgoing.url == "https://two.example.com/v1/chat/completions"

    def test_many_routes_and_queries_are_still_built_right(self) -> None:
        builder = UpstreamRequestBuilder(api_version="v0")
        azure = replace(CHANNEL, type=ChannelType.AZURE, base_url="https://a.example.com")
        for number in range(CACHED_ROUTES + 50):
            asked = call(b'{"model":"m%d"}' % number, query=f"api-version={number}")
            assert builder.build(asked, azure, 0).outgoing.url.endswith(
                f"/m{number}/chat/completions?api-version={number}"
            )
        assert builder.build(call(), azure, 0).outgoing.url.endswith("api-version=v0")

    def test_the_proxy_goes_along(self) -> None:
        outgoing = build(replace(CHANNEL, proxy="socks5://127.0.0.1:1080")).outgoing
        assert (outgoing.proxy, outgoing.user_url) == ("socks5://127.0.0.1:1080", False)


TYPE = b"Multipart/Form-Data; boundary=XX"
FILE = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00whisper-1\r\n'
MODEL = b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'


def form_call(body: bytes, path: str = "/v1/audio/transcriptions", *, default: str = "") -> Call:
    form = read_form(body, TYPE)
    model = form.fields.get("model", default)
    facts: dict[str, Any] = {"document": form.fields, "model_span": form.spans.get("model")}
    return Call(BY_PATH[path], model, model, body=body, content_type=TYPE, **facts)


class TestForms:
    @pytest.mark.parametrize("parts", [MODEL + FILE, FILE + MODEL], ids=["the model first", "the model last"])
    @pytest.mark.parametrize("lead", [b"", b"\r\n"], ids=["at once", "behind a line break"])
    def test_the_model_is_edited_and_every_other_byte_stays(self, parts: bytes, lead: bytes) -> None:
        body = lead + parts + b"--XX--"
        channel = replace(CHANNEL, model_mapping={"whisper-1": "other"}, param_override={"n": 1})
        sent = build(channel, form_call(body))
        assert sent.outgoing.body == body.replace(b"\r\n\r\nwhisper-1\r\n", b"\r\n\r\nother\r\n")
        assert value_of(sent, b"content-type") == [TYPE]
        assert build(asked=form_call(body)).outgoing.body == body

    @pytest.mark.parametrize("lead", [b"", b"\r\n"], ids=["at once", "behind a line break"])
    def test_a_model_that_is_left_out_is_said(self, lead: bytes) -> None:
        body = lead + FILE + b"--XX--"
        sent = build(asked=form_call(body, "/v1/images/edits", default="dall-e-2")).outgoing.body
        assert read_form(sent, TYPE).fields == {"model": "dall-e-2"}
        assert sent.endswith(FILE + b"--XX--")

    def test_a_model_that_cannot_be_placed_is_refused(self) -> None:
        asked = form_call(MODEL + FILE + b"--XX--")
        with pytest.raises(BadRequest):
            build(asked=Call(asked.operation, "m", "m", body=asked.body, content_type=TYPE, document={"model": "m"}))
