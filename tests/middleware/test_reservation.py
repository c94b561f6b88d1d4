"""A hold covers what a call can cost, whatever it asks for."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.call import Call
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.chargeable import settled_usage
from tollway.config.options import Options
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, Usage
from tollway.config.tariff import Tariff
from tollway.middleware.reservation import is_mostly_output, reservation

D = Decimal
BOOK = PriceBook.builtin()
OPTIONS = Options()


def call(path: str, document: dict[str, Any], *, body: bytes | None = None, **more: Any) -> Call:
    content_type = b"application/json" if body is None else b"multipart/form-data; boundary=B"
    written = orjson.dumps(document) if body is None else body
    return Call(BY_PATH[path], "m", "m", body=written, content_type=content_type, document=document, **more)


def form(files: int, size: int, name: str = "file") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
    return (head + b"x" * size + b"\r\n") * files + b"--B--\r\n"


def tariff(model: str) -> Tariff:
    price = BOOK.price_for(model, model)
    assert price is not None
    return Tariff(price, D(1))


def message(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


CHAT, COMPLETIONS, SPEECH = "/v1/chat/completions", "/v1/completions", "/v1/audio/speech"
DRAW, EDIT, TRANSCRIBE = "/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions"
SOUND = {"type": "input_audio", "input_audio": {"data": "A" * 3_000_000, "format": "mp3"}}
RECORDING = call(TRANSCRIBE, {}, body=form(1, 800_000))


@pytest.mark.parametrize(
    ("model", "asked", "used", "most"),
    [
        pytest.param("gpt-4o", call(CHAT, message("hi")), Usage(8, 4096), 1.1, id="chat"),
        pytest.param("gpt-4o", call(CHAT, message("hi"), output_limit=9, choices=3), Usage(8, 27), 1.5, id="choices"),
        pytest.param(
            "gpt-3.5-turbo-instruct",
            call(COMPLETIONS, {"prompt": ["a"] * 100}, output_limit=1000),
            Usage(100, 100_000),
            1.1,
            id="a hundred prompts",
        ),
        pytest.param(
            "gpt-3.5-turbo-instruct",
            call(COMPLETIONS, {"prompt": "a", "best_of": 20}, output_limit=1000),
            Usage(1, 20_000),
            1.1,
            id="best of 20",
        ),
        pytest.param(
            "gpt-3.5-turbo-instruct",
            call(COMPLETIONS, {"prompt": list(range(100))}, output_limit=1000),
            Usage(100, 1000),
            1.1,
            id="one prompt of token numbers",
        ),
        pytest.param("tts-1-hd", call(SPEECH, {"input": "a" * 4096}), Usage(4096), 1, id="speech by characters"),
        pytest.param(
            "gpt-4o-mini-tts", call(SPEECH, {"input": "word " * 800}), Usage(801, 6000), 2, id="speech by tokens"
        ),
        pytest.param("whisper-1", RECORDING, Usage(seconds=D(250)), 1.1, id="a recording by the minute"),
        pytest.param(
            "gpt-4o-transcribe", RECORDING, Usage(2500, 700, input_audio_tokens=2500), 2, id="a recording by tokens"
        ),
        pytest.param(
            "gpt-4o-audio-preview",
            call(CHAT, message("hi") | {"modalities": ["text", "audio"]}, output_limit=4096),
            Usage(8, 4096, output_audio_tokens=4096),
            1.1,
            id="an answer in sound",
        ),
        pytest.param(
            "gpt-4o-audio-preview", call(CHAT, message("hi"), output_limit=4096), Usage(8, 4096), 1.1, id="one in text"
        ),
        pytest.param(
            "gpt-4o-audio-preview",
            call(CHAT, message([SOUND]), output_limit=10),
            Usage(7500, 10, input_audio_tokens=7490),
            1.1,
            id="a question in sound",
        ),
        pytest.param(
            "gpt-4o",
            call(CHAT, message("hi") | {"functions": [{"name": "f", "description": "word " * 200_000}]}),
            Usage(200_000, 4096),
            2,
            id="functions",
        ),
        pytest.param(
            "gpt-4o",
            call(CHAT, message([{"type": "file", "file": {"file_data": "A" * 3_000_000}}])),
            Usage(128_000, 4096),
            2.5,
            id="a file",
        ),
        pytest.param(
            "gpt-image-1",
            call(DRAW, {"prompt": "a cat", "quality": "high", "size": "1536x1024"}, choices=10),
            Usage(50, 62_400, output_image_tokens=62_400),
            2,
            id="ten pictures",
        ),
        pytest.param("gpt-image-1", call(DRAW, {"prompt": "a cat"}), Usage(5, 6240), 2, id="a picture of any kind"),
        pytest.param(
            "gpt-image-1",
            call(EDIT, {"prompt": "x"}, body=form(5, 1000, "image[]")),
            Usage(8000, 6240, input_image_tokens=8000),
            3,
            id="five pictures to edit",
        ),
        pytest.param(
            "dall-e-3",
            call(DRAW, {"prompt": "a cat", "quality": "hd", "size": "1792x1024"}, choices=2),
            Usage(images=2, image_size="1792x1024", image_quality="hd"),
            1,
            id="pictures by the piece",
        ),
        pytest.param(
            "gemini-2.5-flash-image",
            call(CHAT, message("draw"), output_limit=1290),
            Usage(10, 1290, output_image_tokens=1290),
            1.1,
            id="a picture in a conversation",
        ),
        pytest.param(
            "text-embedding-3-large", call("/v1/embeddings", {"input": ["word " * 100] * 9}), Usage(909), 3, id="texts"
        ),
    ],
)
def test_a_hold_covers_the_price_and_not_much_more(model: str, asked: Call, used: Usage, most: float) -> None:
    cost = tariff(model).quota(used)
    assert cost <= reservation(asked, tariff(model), OPTIONS) <= most * cost + 10


def test_a_flat_price_is_held() -> None:
    assert reservation(call(CHAT, message("hi")), Tariff(Price("m", per_call=D("0.01")), D(1)), OPTIONS) == 5000


TEXTS = st.text(st.sampled_from("aZ 中é😀"), max_size=400)
PARTS = st.sampled_from(
    [
        {"type": "text", "text": "word " * 50},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 4000}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "unknown", "field": "word " * 50},
    ]
)
USD = st.sampled_from([D(0), D("0.15"), D("2.5"), D(40)])
PRICES = st.builds(
    Price,
    st.just("m"),
    input=USD,
    output=USD,
    input_audio=st.none() | st.just(D(40)),
    output_audio=st.none() | st.just(D(80)),
    input_image=st.none() | st.just(D(10)),
    output_image=st.none() | st.just(D(60)),
    per_minute=st.sampled_from([D(0), D("0.006")]),
    per_call=st.sampled_from([D(0), D("0.01")]),
    per_image=st.sampled_from([{}, {"default": D("0.04"), "1024x1024/high": D("0.08")}]),
)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    path = draw(st.sampled_from([path for path, operation in BY_PATH.items() if operation.relayed]))
    choices = draw(st.integers(1, 5))
    if path in (TRANSCRIBE, EDIT, "/v1/audio/translations", "/v1/images/variations"):
        body = form(draw(st.integers(1, 3)), draw(st.integers(0, 50_000)))
        return call(path, {"prompt": draw(TEXTS)}, body=body, choices=choices)
    if path == DRAW:
        fields = {"size": ["1024x1024", "1536x1024", "auto", "9x9"], "quality": ["low", "high", "hd", ""]}
        return call(
            path, {"prompt": draw(TEXTS), **{k: draw(st.sampled_from(v)) for k, v in fields.items()}}, choices=choices
        )
    if path == SPEECH:
        return call(path, {"input": draw(TEXTS), "speed": draw(st.sampled_from([None, 0.25, 1, 4]))})
    limit = draw(st.none() | st.integers(0, 5000))
    if path == CHAT:
        fields = draw(
            st.fixed_dictionaries({}, optional={"modalities": st.just(["audio"]), "functions": st.lists(TEXTS)})
        )
        content = draw(TEXTS | st.lists(PARTS, max_size=5))
        return call(path, message(content) | fields, output_limit=limit, choices=choices)
    fields = {"best_of": draw(st.none() | st.integers(1, 9))} if path == COMPLETIONS else {}
    prompt = draw(TEXTS | st.lists(TEXTS, max_size=5) | st.lists(st.integers(100, 9999), max_size=50))
    return call(path, {"prompt": prompt, "input": prompt} | fields, output_limit=limit, choices=choices)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(asked=calls(), price=PRICES, ratio=st.sampled_from([D(1), D("0.37")]), share=st.floats(0, 1))
def test_a_hold_covers_what_is_charged_where_nothing_is_reported(
    asked: Call, price: Price, ratio: Decimal, share: float
) -> None:
    """As long as no more text comes than was asked for, and no more pictures."""
    tariff = Tariff(price, ratio)
    delivered = 0
    if asked.operation.generates and not asked.operation.name.startswith("images_"):
        limit = OPTIONS.default_max_tokens if asked.output_limit is None else asked.output_limit
        delivered = int(limit * asked.choices * share)
    usage = settled_usage(
        asked,
        None,
        delivered_tokens=delivered,
        images=int(asked.choices * share),
        audio_bytes=int(10**6 * share) if asked.operation.name == "audio_speech" else 0,
        price=price,
    )
    # What costs anything costs at least 1.
    assert tariff.quota(usage) <= max(reservation(asked, tariff, OPTIONS), 1)


@pytest.mark.parametrize(
    ("prompt", "limit", "mostly"), [("short", None, True), ("x" * 400_000, None, False), ("x" * 400_000, 100_000, True)]
)
def test_whether_a_smaller_limit_would_help_is_known(prompt: str, limit: int | None, mostly: bool) -> None:
    asked = call(CHAT, message(prompt), output_limit=limit)
    price = tariff("gpt-4o-mini")
    assert is_mostly_output(asked, reservation(asked, price, OPTIONS), price) == mostly
