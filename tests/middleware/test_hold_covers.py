"""What is held covers what is charged: for any report that the vendor's rules allow, and for our own count."""

import time
from base64 import b64encode
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tollway.adapters.call import Call
from tollway.adapters.media.vendor_rules import (
    MediaOptions,
    audio_tokens,
    image_tokens,
    pdf_tokens,
    rules_for,
)
from tollway.adapters.operations import BY_PATH
from tollway.adapters.usage.chargeable import answers_of, most_usage, settled_usage
from tollway.adapters.usage.prompt_texts import prompt_texts
from tollway.adapters.usage.reported import usage_from
from tollway.adapters.usage.token_estimates import Sent
from tollway.adapters.usage.web_searches import FOUND_TOKENS, USUAL_SEARCHES, most_searches
from tollway.config.channel import Channel, ChannelType
from tollway.config.options import Options
from tollway.config.price import Tier
from tollway.config.price_book import PriceBook
from tollway.config.pricing import Price, Usage
from tollway.config.tariff import Tariff
from tollway.middleware.reservation import clamped, limited, reservation

D = Decimal
CHAT = BY_PATH["/v1/chat/completions"]
BOOK = PriceBook.builtin()
OPTIONS = Options(default_max_tokens=500, clamp_max_tokens=True)
MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1-mini",
    "gpt-5",
    "o3",
    "claude-sonnet-4-5",
    "gemini-2.5-flash",
    "glm-4v",
    "x",
)


@dataclass(frozen=True)
class Part:
    """A part of a message, and what it counts for by the rules of a model's vendor."""

    content: dict[str, Any]
    kind: str
    measure: tuple[int, ...] = ()
    detail: str = ""

    def tokens(self, model: str) -> int:
        match self.kind:
            case "image":
                return image_tokens(model, (self.measure[0], self.measure[1]), self.detail)
            case "audio":
                return audio_tokens(model, self.measure[0])
            case "pdf":
                return pdf_tokens(model, self.measure[0])
            case "film":
                return image_tokens(model, (1024, 1024)) * (self.measure[0] // 2 * 2)
            case _:
                return 0  # text, by the bytes of the body


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0" + b"x" * 40


def picture(width: int, height: int, detail: str = "", *, here: bool = True) -> Part:
    url = data_url("image/png", png(width, height)) if here else "https://example.com/a.png"
    return Part({"type": "image_url", "image_url": {"url": url, "detail": detail}}, "image", (width, height), detail)


def recording(seconds: int, where: str = "") -> Part:
    wave = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + (800).to_bytes(4, "little") * 2 + b"\1\0\x08\0" + b"data\0\0\0\0"
    data = b64encode(wave + b"\0" * (800 * seconds)).decode()
    if where == "data":
        return Part({"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}}, "audio", (seconds,))
    if where == "alone":
        return Part({"type": "input_audio", "input_audio": data}, "audio", (seconds,))
    return Part({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}, "audio", (seconds,))


def named(kind: str, value: Any) -> Part:
    return Part({"type": kind, kind: value}, "")


def frames(count: int) -> Part:
    """A film as pictures, which are here and elsewhere."""
    film = ["https://example.com/a.png", data_url("image/png", png(64, 64))] * (count // 2)
    return Part({"type": "video", "video": film}, "film", (count,))


def pdf(pages: int) -> Part:
    data = b"%PDF-1.4\n" + b"1 0 obj <</Type /Page /Parent 2 0 R>> endobj\n" * pages
    return Part({"type": "file", "file": {"file_data": data_url("application/pdf", data)}}, "pdf", (pages,))


SIDES = st.integers(1, 9000)
PARTS = st.one_of(
    st.builds(picture, SIDES, SIDES, st.sampled_from(["", "low", "high", "auto"]), here=st.booleans()),
    st.builds(recording, st.integers(1, 40), st.sampled_from(["", "data", "alone"])),
    st.integers(1, 20).map(frames),
    st.integers(1, 60).map(pdf),
    st.text("aZ 中é", max_size=200).map(lambda text: Part({"type": "text", "text": text}, "text")),
)
SEARCHES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search_20250305", "max_uses": 9}, {"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"type": "web_search", "max_uses": -1}]},
        {"search_parameters": {"mode": "auto"}},
        {"plugins": [{"id": "web"}]},
    ]
)
USD = st.sampled_from([D("0.15"), D("2.5"), D(40)])
PRICES = st.builds(
    Price,
    st.just("m"),
    input=USD,
    output=USD,
    cached_input=st.none() | st.just(D("0.1")),
    cache_write_5m=st.none() | st.just(D(3)),
    cache_write_1h=st.none() | st.just(D(6)),
    input_audio=st.none() | st.just(D(40)),
    input_image=st.none() | st.just(D(10)),
    tools=st.sampled_from([{}, {"web_search": D(10)}]),
    per_call=st.sampled_from([D(0), D("0.01")]),
    tiers=st.sampled_from([(), (Tier(1000, {"input": D(5), "output": D(80)}),)]),
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Call, list[Part]]:
    parts = draw(st.lists(PARTS, max_size=4))
    content: Any = [part.content for part in parts] or draw(st.text(max_size=100))
    document = {"model": "alias", "messages": [{"role": "user", "content": content}], **draw(SEARCHES)}
    if draw(st.booleans()):
        document["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    limit = draw(st.none() | st.integers(1, 3000))
    if limit is not None:
        document["max_tokens"] = limit
    return Call(
        CHAT, "alias", "alias", body=orjson.dumps(document), document=document, output_limit=limit, choices=1
    ), parts


@st.composite
def reports(draw: st.DrawFn, call: Call, parts: list[Part], model: str, price: Price) -> Usage:
    """What an upstream may truthfully say. One whose searches have no price does not search."""
    image = sum(part.tokens(model) for part in parts if part.kind == "image")
    audio = sum(part.tokens(model) for part in parts if part.kind == "audio")
    files = sum(part.tokens(model) for part in parts if part.kind == "pdf")
    searches = draw(st.integers(0, most_searches(call) if price.tools else 0))
    media = sum(len(orjson.dumps(part.content)) for part in parts if part.kind != "text")
    text = max(len(call.body) - media, 0) // 3
    tokens = image + audio + files + text + min(searches, USUAL_SEARCHES) * FOUND_TOKENS
    plain = tokens - image - audio
    hour = draw(st.integers(0, plain)) if b'"1h"' in call.body else 0
    short = draw(st.integers(0, plain - hour))
    return Usage(
        tokens,
        draw(st.integers(0, (call.output_limit or OPTIONS.default_max_tokens) * answers_of(call))),
        cached_tokens=draw(st.integers(0, plain - hour - short)),
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=hour,
        input_audio_tokens=audio,
        input_image_tokens=image,
        tool_calls=(("web_search", searches),) if searches else (),
    )


def channel_to(model: str) -> Channel:
    return Channel(1, "c", ChannelType.OPENAI, ("alias",), model_mapping={"alias": model})


@settings(derandomize=True, deadline=None, max_examples=400)
@given(data=st.data(), model=st.sampled_from(MODELS), price=PRICES, ask=asked())
def test_a_truthful_report_never_costs_more_than_was_held(
    data: st.DataObject, model: str, price: Price, ask: tuple[Call, list[Part]]
) -> None:
    (call, parts), tariff, channel = ask, Tariff(price, D(1)), channel_to(model)
    usage = settled_usage(
        call, data.draw(reports(call, parts, model, price)), delivered_tokens=0, images=0, model=model
    )
    assert tariff.quota(usage) <= reservation(call, tariff, OPTIONS, channel)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data(), model=st.sampled_from(MODELS), price=PRICES, ask=asked(), share=st.floats(0, 1.2))
def test_a_clamped_call_costs_no_more_than_the_balance(
    data: st.DataObject, model: str, price: Price, ask: tuple[Call, list[Part]], share: float
) -> None:
    tariff, channel = Tariff(price, D(1)), channel_to(model)
    call = limited(ask[0], tariff, OPTIONS)
    balance = int(reservation(call, tariff, OPTIONS, channel) * share)
    found = clamped(call, tariff, balance, channel)
    if found is None:
        return
    smaller, held = found
    usage = data.draw(reports(smaller, ask[1], model, price))
    assert tariff.quota(settled_usage(smaller, usage, delivered_tokens=0, images=0, model=model)) <= held <= balance


@pytest.mark.parametrize("options", [MediaOptions(), MediaOptions(measure=False)], ids=["measured", "flat"])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(model=st.sampled_from(MODELS), price=PRICES, ask=asked())
def test_our_own_count_costs_no_more_than_was_held(
    options: MediaOptions, model: str, price: Price, ask: tuple[Call, list[Part]]
) -> None:
    call, tariff = ask[0], Tariff(price, D(1))
    texts = prompt_texts(call, model, options)
    counted = texts.counted(sum(len(text.encode("utf-8", "surrogatepass")) // 3 for text in texts.texts))
    limit = call.output_limit or OPTIONS.default_max_tokens
    for sent in (Sent(*counted), None):
        usage = settled_usage(call, None, delivered_tokens=limit, images=0, sent=sent, model=model)
        assert tariff.quota(usage) <= reservation(call, tariff, OPTIONS, channel_to(model))


def chat(content: Any, model: str, **fields: Any) -> Call:
    document = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    return Call(CHAT, model, model, body=orjson.dumps(document), document=document, output_limit=1)


@pytest.mark.parametrize(
    ("model", "part", "tokens"),
    [
        pytest.param("gpt-4o-mini", picture(1024, 1024), 25_501, id="a square"),
        pytest.param("gpt-4o-mini", picture(100, 100), 8_500, id="a small one"),
        pytest.param("gpt-4o-mini", picture(1024, 1024, "low"), 8_499, id="low, also where pictures are not measured"),
        pytest.param("gpt-4o-mini", picture(1, 1, here=False), 48_169, id="elsewhere: the largest"),
        pytest.param("gpt-4o", picture(1, 1, here=False), 1_445, id="elsewhere, in smaller tiles"),
        pytest.param("gpt-4.1-mini", picture(1, 1, here=False), 2_488, id="elsewhere, in patches"),
        pytest.param("claude-sonnet-4-5", picture(1000, 1000), 1_334, id="by its area"),
        pytest.param("qwen-vl-max", picture(1, 1), 4_096, id="by no known rule"),
        pytest.param("gemini-2.5-flash", recording(100), 3_200, id="sound"),
        pytest.param("gpt-4o-mini", pdf(3), 3 * 27_001, id="three pages"),
        pytest.param("gpt-4o", Part({"type": "video_url", "video_url": {"url": "https://a"}}, ""), 8192, id="a film"),
        pytest.param("gpt-4o", Part({"type": "video", "video": "https://a"}, ""), 8192, id="a film, Alibaba's way"),
        pytest.param("gpt-4o", frames(12), 12 * 1_445, id="a film as pictures"),
        pytest.param("gpt-4o", named("input_audio", {"data": "https://a/b.mp3"}), 4096, id="a recording elsewhere"),
        pytest.param("gpt-4o", named("input_audio", "https://a/b.mp3"), 4096, id="the same, Mistral's way"),
        pytest.param("gpt-4o", named("audio_url", {"url": "oss://a/b.mp3"}), 4096, id="the same, vLLM's way"),
        pytest.param("gpt-4o", named("document_url", "https://a/b.pdf"), 4096, id="a document elsewhere"),
        pytest.param("gpt-4o", named("file_url", {"url": "https://a/b.pdf"}), 4096, id="the same, Zhipu's way"),
        pytest.param("gpt-4o", recording(100, "data"), 1_000, id="sound in an address"),
        pytest.param("gpt-4o", recording(100, "alone"), 1_000, id="sound by itself"),
    ],
)
def test_media_is_held_by_the_rules_of_the_model(model: str, part: Part, tokens: int) -> None:
    price = BOOK.price_for("gpt-4o", "gpt-4o")
    assert price is not None
    call = chat([part.content], model)
    usage = most_usage(call, 1, price)
    assert tokens <= usage.input_tokens <= tokens + len(call.body) // 3 + 1


def test_the_rules_are_those_of_the_model_that_is_asked() -> None:
    asked, price = chat([picture(1024, 1024).content], "gpt-4o-mini"), BOOK.price_for("gpt-4o-mini", "gpt-4o-mini")
    assert price is not None
    tariff = Tariff(price, D(1))
    mapped = Channel(1, "c", ChannelType.OPENAI, ("gpt-4o-mini",), model_mapping={"gpt-4o-mini": "claude-haiku-4-5"})
    assert reservation(asked, tariff, OPTIONS) >= tariff.quota(Usage(25_501))
    assert reservation(asked, tariff, OPTIONS, mapped) < tariff.quota(Usage(3_000))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(MODELS), st.integers(1, 2**32), st.integers(1, 2**32))
def test_no_picture_is_larger_than_the_largest(model: str, width: int, height: int) -> None:
    assert image_tokens(model, (width, height)) <= rules_for(model).image.largest()


# --- searches


@pytest.mark.parametrize(
    ("model", "fields", "searches"),
    [
        ("m", {}, 0),
        ("m", {"tools": [{"type": "function", "function": {"name": "web_search"}}]}, 0),
        ("m", {"tools": "web_search", "plugins": {}, "search_parameters": []}, 0),
        ("m", {"web_search_options": {}}, 5),
        ("m", {"web_search_options": None}, 0),
        ("m", {"tools": [{"type": "web_search"}]}, 5),
        ("m", {"tools": [{"type": "openrouter:web_search", "max_uses": 2}]}, 2),
        ("m", {"tools": [{"type": "web_search", "max_uses": 10**9}]}, 100),
        ("m", {"tools": [{"type": "web_search", "max_uses": True}]}, 5),
        ("m", {"search_parameters": {"mode": "on"}}, 20),
        ("m", {"search_parameters": {"mode": "on", "max_search_results": 3}}, 3),
        ("m", {"search_parameters": {"mode": "off"}}, 0),
        ("m", {"plugins": [{"id": "web"}, {"id": "file-parser"}]}, 5),
        ("perplexity/sonar-deep-research", {}, 50),
    ],
)
def test_searches_that_a_request_may_cause_are_held(model: str, fields: dict[str, Any], searches: int) -> None:
    call = chat("hi", model, **fields)
    assert most_searches(call) == searches
    price = Price("m", input=D(1), output=D(1), tools={"web_search": D(10)})
    tariff = Tariff(price, D(1))
    fees = reservation(call, tariff, OPTIONS) - tariff.reserve(len(call.body) // 3 + 1, 1)
    assert fees == searches * 5000 + min(searches, 5) * 4000
    unsold = Tariff(Price("m", input=D(1), output=D(1)), D(1))
    assert reservation(call, unsold, OPTIONS) == unsold.reserve(len(call.body) // 3 + 1, 1)


SEARCHED = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "server_tool_use": {"web_search_requests": 3},
    "num_search_queries": 3,
    "num_sources_used": 3,
}


@pytest.mark.parametrize("name", ["gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api", "sonar"])
def test_a_search_that_the_price_of_a_call_includes_is_charged_once(name: str) -> None:
    price, usage = BOOK.price_for(name, name), usage_from(SEARCHED)
    assert price is not None
    assert usage is not None
    assert price.per_call
    assert usage.tool_calls == (("web_search", 3),)
    tariff = Tariff(price, D(1))
    assert tariff.quota(usage) == tariff.quota(Usage(10, 5))
    call = chat("hi", name, web_search_options={})
    usage = replace(usage, output_tokens=1)
    assert tariff.quota(usage) <= reservation(call, tariff, OPTIONS) <= tariff.quota(usage) + 100


def test_no_price_has_both_a_fee_for_each_call_and_one_for_each_search() -> None:
    sold = [price for price in BOOK.prices.values() if price.per_call]
    assert sold
    assert not [price.model for price in sold if price.tools]


def test_what_is_made_to_be_slow_is_not_looked_at_for_long() -> None:
    slow = data_url("image/jpeg", b"\xff\xd8" + b"\xff\xe0\0\2" * 400)
    pages = data_url("application/pdf", b"%PDF-1.4" + b"/Type " * 30_000)
    picture = {"type": "image_url", "image_url": {"url": slow}}
    file = {"type": "file", "file": {"file_data": pages}}
    call, price = chat([picture] * 3000 + [file] * 30, "gpt-4o"), BOOK.price_for("gpt-4o", "gpt-4o")
    assert price is not None
    best = 1.0
    for _ in range(3):
        began = time.perf_counter()
        most_usage(call, 1, price)
        best = min(best, time.perf_counter() - began)
    assert best < 0.3  # all of it would take a second
