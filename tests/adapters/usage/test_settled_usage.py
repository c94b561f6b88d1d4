"""What is charged: what the upstream reports where that can be true, and never nothing for something."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from tollway.adapters.call import Call
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.chargeable import settled_usage
from tollway.adapters.usage.token_estimates import estimate_input, most_sent
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, Usage, quota_for

D = Decimal
BOOK = PriceBook.builtin()
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Say something."}]}
INPUT = estimate_input(CHAT)


def call(path: str, document: dict[str, Any], *, body: bytes | None = None, **more: Any) -> Call:
    content_type = b"application/json" if body is None else b"multipart/form-data; boundary=B"
    written = orjson.dumps(document) if body is None else body
    return Call(BY_PATH[path], "m", "m", body=written, content_type=content_type, document=document, **more)


def chat(**more: Any) -> Call:
    return call("/v1/chat/completions", CHAT, **more)


def form(files: int, size: int, name: str = "file") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
    return (head + b"x" * size + b"\r\n") * files + b"--B--\r\n"


def settle(asked: Call, reported: Usage | None, *, delivered: int = 0, images: int = 0, **more: Any) -> Usage:
    return settled_usage(asked, reported, delivered_tokens=delivered, images=images, **more)


def charged(model: str, asked: Call, reported: Usage | None = None, **more: Any) -> tuple[int, bool]:
    price = BOOK.price_for(model, model)
    assert price is not None
    usage = settle(asked, reported, price=price, **more)
    return quota_for(usage, price, D(1))[0], usage.estimated


@pytest.mark.parametrize("reported", [Usage(10, 5), Usage(10, 5, cached_tokens=10), Usage(1000, 1), Usage(10, 0)])
def test_a_report_that_can_be_true_is_charged_as_it_is(reported: Usage) -> None:
    assert settle(chat(), reported) is reported


@pytest.mark.parametrize(
    ("reported", "delivered", "usage"),
    [
        pytest.param(None, 7, Usage(INPUT, 7, estimated=True), id="no report"),
        pytest.param(Usage(), 7, Usage(INPUT, 7, estimated=True, suspicious=True), id="zeros"),
        pytest.param(Usage(0, 5), 5, Usage(INPUT, 5, estimated=True, suspicious=True), id="no input"),
        pytest.param(Usage(10, 0), 5, Usage(10, 5, estimated=True), id="no output, but text was delivered"),
        pytest.param(Usage(10, 1), 900, Usage(10, 900, estimated=True), id="the report of a stream's beginning"),
        pytest.param(Usage(10, 800), 900, Usage(10, 800), id="an estimate above the report is only an estimate"),
        pytest.param(
            Usage(seconds=D(1)), 5, Usage(INPUT, 5, estimated=True, suspicious=True), id="seconds of a conversation"
        ),
        pytest.param(Usage(10, 5, seconds=D(1)), 5, Usage(10, 5), id="seconds beside tokens"),
    ],
)
def test_a_report_of_nothing_is_not_charged_as_nothing(reported: Usage | None, delivered: int, usage: Usage) -> None:
    assert settle(chat(), reported, delivered=delivered) == usage


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations"])
def test_what_generates_nothing_has_no_output(path: str) -> None:
    asked = call(path, {"input": "1234567"})
    assert settle(asked, None, delivered=5) == Usage(5, 0, estimated=True)
    assert settle(asked, Usage(9, 0), delivered=5) == Usage(9, 0)


def test_input_beyond_what_was_sent_is_cut() -> None:
    usage = settle(chat(), Usage(2**31, 5, cached_tokens=2**31, input_audio_tokens=2**31))
    assert usage.estimated
    assert usage.input_tokens == usage.cached_tokens == usage.input_audio_tokens == len(chat().body) + 131_072


def test_input_that_media_may_make_is_believed() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    asked = call("/v1/chat/completions", {"messages": [{"role": "user", "content": [picture] * 10}]})
    assert settle(asked, Usage(400_000, 5)) == Usage(400_000, 5)


@pytest.mark.parametrize(
    ("asked", "reported", "output"),
    [
        pytest.param(chat(output_limit=100), 131_172, 131_172, id="reasoning beyond the limit is believed"),
        pytest.param(chat(output_limit=100), 2**31, 131_172, id="but not any number"),
        pytest.param(chat(output_limit=100, choices=3), 2**31, 3 * 131_172, id="for each choice"),
        pytest.param(chat(), 2**31, 1_048_576, id="nor without a limit"),
    ],
)
def test_output_beyond_the_limit_is_cut(asked: Call, reported: int, output: int) -> None:
    usage = settle(asked, Usage(10, reported, reasoning_tokens=reported))
    assert (usage.output_tokens, usage.reasoning_tokens, usage.estimated) == (output, output, reported != output)


def test_sound_that_was_sent_is_estimated_at_its_own_rate() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 400_000}}
    asked = call("/v1/chat/completions", {"messages": [{"role": "user", "content": [sound]}]})
    usage = settle(asked, None, delivered=3, audio_bytes=48_000)
    assert (usage.input_audio_tokens, usage.output_tokens, usage.output_audio_tokens) == (1000, 23, 20)


@pytest.mark.parametrize(
    ("audio", "tokens"),
    [({}, 20), ({"format": "pcm16"}, 20), ({"format": "wav"}, 20), ({"format": "opus"}, 120), ({"format": "mp3"}, 60)],
)
def test_sound_that_was_heard_counts_by_its_format(audio: dict[str, Any], tokens: int) -> None:
    asked = call("/v1/chat/completions", {"messages": [], "modalities": ["audio"], "audio": audio})
    usage = settle(asked, None, audio_bytes=48_000)
    assert (usage.output_tokens, usage.output_audio_tokens) == (tokens, tokens)


PAINT: dict[str, Any] = {"prompt": "a cat", "n": 2, "size": "1024x1792", "quality": "hd"}


@pytest.mark.parametrize(
    ("reported", "images", "expected"),
    [
        pytest.param(None, 2, (120_000, False), id="as they came"),
        pytest.param(None, 0, (120_000, True), id="as they were asked for, when nobody counted"),
        pytest.param(None, 1, (60_000, False), id="one that came of two"),
        pytest.param(Usage(), 2, (120_000, False), id="beside a report of nothing"),
    ],
)
def test_pictures_by_the_piece(reported: Usage | None, images: int, expected: tuple[int, bool]) -> None:
    asked = call("/v1/images/generations", PAINT, choices=2)
    assert charged("dall-e-3", asked, reported, images=images) == expected


def test_no_answer_has_a_million_pictures() -> None:
    usage = settle(call("/v1/images/generations", PAINT, choices=2), None, images=10**6)
    assert (usage.images, usage.suspicious) == (128, True)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"size": "1024x1024", "quality": "low"}, 272),
        ({"size": "1024x1536", "quality": "low"}, 408),
        ({"size": "1024x1024", "quality": "medium"}, 1056),
        ({"size": "1536x1024", "quality": "medium"}, 1584),
        ({"size": "1024x1024", "quality": "high"}, 4160),
        ({"size": "1024x1536", "quality": "high"}, 6240),
        ({}, 6240),
        ({"size": "auto", "quality": "auto"}, 6240),
        ({"size": "1024x1024", "quality": "low", "partial_images": 3}, 572),
    ],
)
def test_pictures_by_their_tokens(fields: dict[str, Any], tokens: int) -> None:
    asked = call("/v1/images/generations", {"prompt": "1234567"} | fields)
    usage = settle(asked, None, images=2)
    assert (usage.input_tokens, usage.output_tokens, usage.output_image_tokens) == (2, 2 * tokens, 2 * tokens)
    assert usage.estimated
    assert charged("gpt-image-1", asked, Usage(50, 100, output_image_tokens=100), images=1) == (125 + 2000, False)


def test_the_output_of_a_report_that_does_not_say_its_kind_is_pictures() -> None:
    asked = call("/v1/images/generations", PAINT)
    # Of gpt-image-1.5 a million tokens of text cost $10, of pictures $32.
    assert charged("gpt-image-1.5", asked, Usage(50, 100)) == (125 + 1600, False)
    assert charged("gpt-image-1.5", asked, Usage(50, 100, output_image_tokens=90)) == (125 + 1440 + 50, False)


def test_pictures_to_edit_are_input() -> None:
    asked = call("/v1/images/edits", {"prompt": "x"}, body=form(5, 1000, "image[]"))
    usage = settle(asked, None, images=1)
    assert (usage.input_image_tokens, usage.input_tokens) == (5 * 1105, 5 * 1105 + 1)


@pytest.mark.parametrize("field", ["image", "images"])
def test_pictures_to_edit_may_be_addresses(field: str) -> None:
    picture = "data:image/png;base64," + "A" * 100_000
    asked = call("/v1/images/edits", {"prompt": "x", field: picture if field == "image" else [picture]})
    assert settle(asked, None, images=1).input_tokens == 1106
    assert most_sent(asked, "m").tokens == 6693


SPEAK = {"input": "word " * 800, "voice": "alloy"}


def test_speech_by_characters() -> None:
    asked = call("/v1/audio/speech", SPEAK)
    assert charged("tts-1", asked, audio_bytes=2_000_000) == (30_000, False)
    assert charged("tts-1-hd", asked, Usage(9, 0)) == (60_000, False)


@pytest.mark.parametrize(
    ("fields", "audio_bytes", "tokens"),
    [
        pytest.param({}, 2_000_000, 2500, id="MP3"),
        pytest.param({"response_format": "pcm"}, 4_800_000, 2000, id="PCM"),
        pytest.param({}, 10**12, 8000, id="more sound than the text can fill"),
        pytest.param({}, 0, 6667, id="nobody counted"),
        pytest.param({"speed": 0.5}, 0, 13334, id="spoken slowly"),
        pytest.param({"speed": 0}, 0, 26667, id="a speed that is none"),
    ],
)
def test_speech_by_tokens(fields: dict[str, Any], audio_bytes: int, tokens: int) -> None:
    asked = call("/v1/audio/speech", SPEAK | fields)
    price = BOOK.price_for("gpt-4o-mini-tts", "gpt-4o-mini-tts")
    usage = settle(asked, None, audio_bytes=audio_bytes, price=price)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (1143, tokens, True)


def test_speech_that_reports_its_usage() -> None:
    asked = call("/v1/audio/speech", SPEAK)
    assert settle(asked, Usage(900, 5000)) == Usage(900, 5000, output_audio_tokens=5000)
    assert settle(asked, Usage(900, 5000, output_audio_tokens=4900)).output_audio_tokens == 4900


RECORDED = call("/v1/audio/transcriptions", {}, body=form(1, 800_000))


@pytest.mark.parametrize(
    ("reported", "seconds", "expected"),
    [
        pytest.param(Usage(seconds=D(60)), None, (3000, False), id="seconds in the usage"),
        pytest.param(None, D(3600), (180_000, False), id="seconds beside it"),
        pytest.param(None, None, (5000, True), id="by the size of the file"),
        pytest.param(Usage(500, 100), None, (5000, True), id="tokens, of a price by the minute"),
        pytest.param(None, D("NaN"), (5000, True), id="seconds that are no number"),
        pytest.param(Usage(seconds=D(2**31)), None, (350_000, True), id="seconds beyond reason"),
    ],
)
def test_transcripts_by_the_minute(reported: Usage | None, seconds: Decimal | None, expected: tuple[int, bool]) -> None:
    assert charged("whisper-1", RECORDED, reported, delivered=200, seconds=seconds) == expected


@pytest.mark.parametrize(
    ("reported", "delivered", "usage"),
    [
        pytest.param(None, 700, Usage(1000, 700, input_audio_tokens=1000, estimated=True), id="no report"),
        pytest.param(Usage(), 7, Usage(1000, 7, input_audio_tokens=1000, estimated=True), id="zeros"),
        pytest.param(Usage(800, 90), 700, Usage(800, 90), id="a report"),
        pytest.param(
            Usage(seconds=D(60)),
            7,
            Usage(600, 7, input_audio_tokens=600, seconds=D(60), estimated=True),
            id="seconds, of a price by tokens",
        ),
        pytest.param(
            Usage(seconds=D("6.01")),
            7,
            Usage(61, 7, input_audio_tokens=61, seconds=D("6.01"), estimated=True),
            id="a part of a token, rounded up",
        ),
    ],
)
def test_transcripts_by_tokens(reported: Usage | None, delivered: int, usage: Usage) -> None:
    price = BOOK.price_for("gpt-4o-transcribe", "gpt-4o-transcribe")
    assert settle(RECORDED, reported, delivered=delivered, price=price) == usage


@pytest.mark.parametrize(
    ("reported", "estimated"), [(Usage(seconds=D(9)), False), (Usage(800, 90), False), (None, True), (Usage(), True)]
)
def test_without_a_price_the_report_says_what_is_charged(reported: Usage | None, estimated: bool) -> None:
    usage = settle(RECORDED, reported, delivered=20)
    assert usage.estimated is estimated
    assert usage == reported or (usage.seconds == 100 and usage.input_audio_tokens == 1000)


@pytest.mark.parametrize(
    ("length", "quota"),
    [
        pytest.param("60." + "0" * 300 + "1", 3001, id="hundreds of digits"),
        pytest.param("60.000000000000000001", 3001, id="eighteen decimals"),
        pytest.param("1e-300", 1, id="next to nothing"),
    ],
)
def test_a_length_of_any_digits_has_a_price(length: str, quota: int) -> None:
    price = Price("m", per_minute=D("0.006"), per_call=D("0.000001"))
    for seconds, reported in ((D(length), None), (None, Usage(seconds=D(length)))):
        usage = settle(RECORDED, reported, seconds=seconds, price=price)
        assert quota_for(usage, price, D(1))[0] == quota


OPERATIONS = [path for path, operation in BY_PATH.items() if operation.relayed]


@pytest.mark.parametrize("path", OPERATIONS)
@pytest.mark.parametrize("reported", [None, Usage()], ids=["no report", "zeros"])
def test_an_answer_without_a_report_is_never_free(path: str, reported: Usage | None) -> None:
    document: dict[str, Any] = CHAT | {"prompt": "a cat", "input": "a cat"}
    body = form(1, 1000, "image") if "form" in BY_PATH[path].body else None
    asked = call(path, document, body=body)
    for price in (Price("t", input=D(100), output=D(100)), Price("i", input=D(100)), None):
        usage = settle(asked, reported, price=price)
        assert quota_for(usage, price or Price("t", input=D(100)), D(1))[0] > 0
        assert usage.estimated or path == "/v1/audio/speech"
