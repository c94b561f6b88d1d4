"""The same dialect on both sides: bytes go through as they are, but for the edits that are promised."""

import threading

import pytest

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import Peer, always, ends
from .wire import DONE, HELLO, LAST_CHUNK, MODEL, chunk, completion, delta, sse_head, stream, whole

# Nothing a decoder and encoder would leave as it is: order, blanks, escapes, numbers beyond doubles, unknown fields.
ODD = (
    b' {\r\n\t"zeta" : 1.0e+2 ,"model":"gpt-4o-mini", "messages":[ {"role":"user",'
    b'"content":"\\u00e9\\/ \xc3\xa9 \\ud83d\\ude00","cache_control":{"type" :"ephemeral"}} ] , '
    b'"seed":12345678901234567890123, "tiny":1E-400,"empty":{ }, "alpha":null\n}\n'
)
ODD_STREAM = ODD.replace(b'"zeta"', b'"stream" : true , "zeta"')
ODD_STREAM_WITH_USAGE = ODD.replace(
    b'"zeta"', b'"stream":true,"stream_options" : { "include_usage" :true, "x":1.50 } , "zeta"'
)
ODD_ANSWER = (
    b'\n{ "id":"x", "big":98765432109876543210, "choices" : [ ],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":4} ,\r\n"esc":"\\u003c\\/a>"}  \n'
)
JSON_UTF8 = b"application/json; charset=utf-8"


def test_a_body_reaches_the_upstream_as_it_was_sent(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url)
    assert gateway.chat(account, ODD).status == 200
    (request,) = seen.requests
    assert request.body == ODD
    assert request.path == b"/v1/chat/completions"
    assert request.headers[b"content-type"] == b"application/json"
    assert request.headers[b"authorization"] == b"Bearer sk-upstream"


def test_only_the_models_name_is_mapped(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url, model_mapping={MODEL: "théo/inner"})
    assert gateway.chat(account, ODD).status == 200
    assert seen.requests[0].body == ODD.replace(b'"gpt-4o-mini"', '"théo/inner"'.encode())


def test_a_suffix_becomes_an_effort(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url, models=("o3-mini",))
    body = b'{"model" : "o3-mini-high","messages":[{"role":"user","content":"hi"}] }'
    assert gateway.chat(account, body).status == 200
    assert seen.requests[0].body == (
        b'{"reasoning_effort":"high","model" : "o3-mini","messages":[{"role":"user","content":"hi"}] }'
    )
    assert gateway.charge(account).model == "o3-mini-high"


def test_a_stream_is_asked_for_its_usage(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(HELLO))
    gateway.channel(account, seen.url)
    assert gateway.chat(account, ODD_STREAM).status == 200
    assert seen.requests[0].body == ODD_STREAM.replace(b" {", b' {"stream_options":{"include_usage":true},', 1)


def test_a_stream_that_asks_for_usage_is_left_alone(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(HELLO))
    gateway.channel(account, seen.url)
    assert gateway.chat(account, ODD_STREAM_WITH_USAGE).status == 200
    assert seen.requests[0].body == ODD_STREAM_WITH_USAGE


def test_other_stream_options_keep_their_bytes(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    seen = upstream(always(HELLO))
    gateway.channel(account, seen.url)
    sent = ODD_STREAM_WITH_USAGE.replace(b'"include_usage" :true', b'"include_usage" :false')
    assert gateway.chat(account, sent).status == 200
    assert seen.requests[0].body == sent.replace(b'"include_usage" :false', b'"include_usage" :true')


def test_the_clients_own_headers_stay_with_the_gateway(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(whole(completion())))
    gateway.channel(account, seen.url)
    private = {"Cookie": "private=1", "X-Forwarded-For": "203.0.113.7", "User-Agent": "private", "x-api-key": "private"}
    assert gateway.chat(account, ODD, headers={**private, "OpenAI-Beta": "new=v2"}).status == 200
    head = seen.requests[0].head
    assert b"private" not in head
    assert b"203.0.113.7" not in head
    assert account.key.encode() not in head
    assert seen.requests[0].headers[b"openai-beta"] == b"new=v2"


def test_a_json_answer_reaches_the_client_as_it_was_sent(
    gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    own = (
        b"openai-processing-ms: 12",
        b"set-cookie: private=1",
        b"openai-organization: private",
        b"x-request-id: theirs",
    )
    gateway.channel(account, upstream(always(whole(ODD_ANSWER, 200, JSON_UTF8, *own))).url)
    answer = gateway.chat(account, ODD)
    assert (answer.status, answer.body) == (200, ODD_ANSWER)
    assert answer.headers["content-type"] == JSON_UTF8.decode()
    assert answer.headers["content-length"] == str(len(ODD_ANSWER))
    assert answer.headers["openai-processing-ms"] == "12"
    assert answer.headers["x-request-id"] != "theirs"
    assert "private" not in str(answer.headers)
    charge = gateway.charge(account)
    assert (charge.input_tokens, charge.output_tokens) == (3, 4)


CRLF = delta("Hel").replace(b"\n", b"\r\n"), delta("lo").replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")
STREAMS = {
    "plain events": (delta("Hel"), delta("lo"), DONE),
    "lines that end in CR LF": CRLF,
    "comments, names and numbers of events": (
        b": OPENROUTER PROCESSING\n\n",
        b"event: message\nid: 7\nretry: 10\n" + delta("Hel"),
        b": again\n\n" + delta("lo"),
        DONE,
    ),
    "no blank behind the colon": (delta("Hel").replace(b"data: ", b"data:"), DONE.replace(b"data: ", b"data:")),
    "an event over several lines": (b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"Hi"}}]}\n\n', DONE),
    "odd numbers and escapes": (b'data: {"choices":[],"big":98765432109876543210,"e":"\\u00e9\\/"  }\n\n', DONE),
    "three events in one chunk": (delta("a") + delta("b") + delta("c"), DONE),
    "an end mark in a model's own words": (delta("data: [DONE]"), delta("\n\ndata: [DONE]\n\n"), delta("x"), DONE),
}


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
def test_a_stream_reaches_the_client_as_it_was_sent(
    events: tuple[bytes, ...], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    gateway.channel(account, upstream(always(stream(*events))).url)
    answer = gateway.chat(account, ODD_STREAM_WITH_USAGE)
    assert (answer.status, answer.body) == (200, b"".join(events))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert gateway.charge(account).outcome == "completed"


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_stream_in_pieces_that_cut_events_anywhere(
    size: int, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    events = delta("Hé") + CRLF[1] + delta("lo") + DONE
    pieces = [chunk(events[at : at + size]) for at in range(0, len(events), size)]
    gateway.channel(account, upstream(ends(sse_head(), *pieces, LAST_CHUNK)).url)
    assert gateway.chat(account, ODD_STREAM_WITH_USAGE).body == events


def test_each_event_goes_out_when_it_comes(gateway: Gateway, account: Account, upstream: UpstreamOf) -> None:
    """The upstream waits for the client to have seen each event before it sends the next one."""
    seen = [threading.Event() for _ in range(3)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sse_head())
        for number, event in enumerate(seen):
            await peer.send(chunk(delta(f"word{number}")))
            await peer.wait(event)
        await peer.send(chunk(DONE), LAST_CHUNK)

    gateway.channel(account, upstream(script).url)
    with gateway.open_chat(
        account, {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    ) as client:
        for number, event in enumerate(seen):
            client.read_until(b"word%d" % number)
            event.set()
        client.read_until(DONE)


def form(boundary: bytes, model: bytes, sound: bytes) -> bytes:
    return (
        b'--%b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nA  name\xc3\xa9\r\n'
        b"--%b\r\ncontent-type: audio/wav\r\n"
        b'Content-Disposition: form-data; filename="a b.wav"; name="file"\r\n\r\n%b\r\n'
        b'--%b\r\nContent-Disposition:form-data;name="model"\r\n\r\n%b\r\n'
        b"--%b--\r\nepilogue"
    ) % (boundary, boundary, sound, boundary, model, boundary)


@pytest.mark.parametrize("mapping", [{}, {"whisper-1": "inner-whisper"}], ids=["as it is", "with a mapped model"])
def test_a_form_reaches_the_upstream_as_it_was_sent(
    mapping: dict[str, str], gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    seen = upstream(always(whole(b'{ "text":"hi" }')))
    gateway.channel(account, seen.url, models=("whisper-1",), model_mapping=mapping)
    sound = bytes(range(256)) * 400 + b"\r\n--X\r\nwhisper-1\r\n--"
    kind = 'multipart/form-data; boundary="XyZ 9"'
    answer = gateway.ask("/v1/audio/transcriptions", account, form(b"XyZ 9", b"whisper-1", sound), content_type=kind)
    assert (answer.status, answer.body) == (200, b'{ "text":"hi" }')
    (request,) = seen.requests
    assert request.headers[b"content-type"] == kind.encode()
    assert request.body == form(b"XyZ 9", mapping.get("whisper-1", "whisper-1").encode(), sound)


@pytest.mark.parametrize("kind", [b"audio/mpeg", b"text/plain; charset=utf-8", b"text/vtt"])
def test_sound_and_text_reach_the_client_as_they_were_sent(
    kind: bytes, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    sound = bytes(range(256)) * 2000
    gateway.channel(account, upstream(always(whole(sound, 200, kind))).url, models=("tts-1",))
    answer = gateway.ask("/v1/audio/speech", account, {"model": "tts-1", "voice": "alloy", "input": "hello"})
    assert (answer.status, answer.body) == (200, sound)
    assert answer.headers["content-type"] == kind.decode()
    assert gateway.charge(account).quota == 38  # 5 characters at 15 dollars a million, rounded half up
