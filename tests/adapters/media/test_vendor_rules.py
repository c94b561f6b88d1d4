"""Pictures, sound and files cost what their vendors' own examples say; hostile ones cost no accident."""

import time
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollway.adapters.media.image_size import Size, size_in_address
from tollway.adapters.media.vendor_rules import (
    MediaOptions,
    audio_tokens,
    image_part_tokens,
    image_tokens,
    pdf_pages,
    pdf_tokens,
    rules_for,
)

steady = settings(derandomize=True, deadline=None, max_examples=300)


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # OpenAI, "Images and vision": the worked examples, and what its API billed for 128 x 64.
        pytest.param("gpt-4o", (1024, 1024), "high", 765, id="4o, a square"),
        pytest.param("gpt-4o", (2048, 4096), "high", 1105, id="4o, a tall one"),
        pytest.param("gpt-4o", (4096, 8192), "low", 85, id="4o, low"),
        pytest.param("gpt-4o", (1024, 1024), "auto", 765, id="4o, auto"),
        pytest.param("gpt-4o", (1024, 1024), "", 765, id="4o, no detail"),
        pytest.param("gpt-4o", (128, 64), "high", 255, id="4o, a small one is not enlarged"),
        pytest.param("gpt-4o", (1, 100_000), "high", 85 + 4 * 170, id="4o, a hair"),
        pytest.param("gpt-4.1", (1024, 1024), "high", 765, id="4.1"),
        pytest.param("gpt-4o-mini", (128, 64), "high", 8500, id="4o-mini, small"),
        pytest.param("gpt-4o-mini", (1024, 1024), "high", 25501, id="4o-mini, a square"),
        pytest.param("gpt-4o-mini-2024-07-18", (1024, 1024), "low", 2833, id="4o-mini, low"),
        pytest.param("gpt-5", (1024, 1024), "high", 630, id="5"),
        pytest.param("o1", (1024, 1024), "high", 675, id="o1"),
        pytest.param("o3-2025-04-16", (128, 64), "high", 225, id="o3, small"),
        pytest.param("computer-use-preview", (1024, 1024), "high", 581, id="computer use"),
        pytest.param("gpt-4.1-mini", (1024, 1024), "high", 1659, id="4.1-mini, 1024 patches"),
        pytest.param("gpt-4.1-mini", (1800, 2400), "high", 2352, id="4.1-mini, shrunk to 1452 patches"),
        pytest.param("gpt-4.1-mini", (1800, 2400), "low", 2352, id="4.1-mini knows no low"),
        pytest.param("gpt-4.1-nano", (1024, 1024), "high", 2519, id="4.1-nano"),
        pytest.param("o4-mini", (1024, 1024), "high", 1761, id="o4-mini"),
        pytest.param("gpt-5-mini", (32, 33), "high", 3, id="5-mini, two patches"),
        pytest.param("gpt-5-nano", (1024, 1024), "high", 2519, id="5-nano"),
        pytest.param("openai/gpt-4o-mini", (1024, 1024), "low", 2833, id="behind its vendor's name"),
        pytest.param("ft:gpt-4o-mini:acme::x", (1024, 1024), "low", 2833, id="fine-tuned"),
        # Anthropic, "Vision": the table of costs.
        pytest.param("claude-sonnet-4-5", (200, 200), "", 54, id="claude, small"),
        pytest.param("claude-sonnet-4-5", (1000, 1000), "", 1334, id="claude, a square megapixel"),
        pytest.param("claude-3-5-haiku", (1092, 1092), "", 1590, id="claude, the largest square"),
        pytest.param("us.anthropic.claude-3-haiku", (8000, 8000), "low", 1600, id="claude, shrunk"),
        pytest.param("claude-3-haiku", (3136, 100), "", 105, id="claude, shrunk to its long side"),
        # Google, "Understand and count tokens" and "Image understanding".
        pytest.param("gemini-2.5-flash", (384, 384), "", 258, id="gemini, small"),
        pytest.param("gemini-2.5-flash", (960, 540), "", 1548, id="gemini, six squares"),
        pytest.param("gemini-2.0-flash", (10, 4_000), "", 16 * 258, id="gemini, a ribbon"),
        pytest.param("glm-4v-plus", (1024, 1024), "", 1047, id="glm"),
        pytest.param("qwen-vl-max", (1024, 1024), "", 520, id="another vendor"),
    ],
)
def test_pictures_cost_what_the_vendor_says(model: str, size: Size, detail: str, tokens: int) -> None:
    assert image_tokens(model, size, detail) == tokens


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-4o", 255), ("gpt-5", 210), ("gpt-4.1-mini", 255), ("claude-3-haiku", 520), ("glm-4v", 1047), ("x", 520)],
)
def test_pictures_that_are_not_measured_are_flat(model: str, tokens: int) -> None:
    assert image_tokens(model, (4096, 4096), "high", measured=False) == tokens
    assert image_tokens(model, (4096, 4096), "low", measured=False) == tokens
    assert image_tokens(model, None) == tokens


@pytest.mark.parametrize(
    ("options", "streaming", "whole"),
    [
        (MediaOptions(), True, True),
        (MediaOptions(measure_not_stream=False), True, False),
        (MediaOptions(measure=False), False, False),
        (MediaOptions(measure=False, measure_not_stream=True), False, False),
    ],
)
def test_options_say_when_pictures_are_measured(options: MediaOptions, streaming: bool, whole: bool) -> None:
    assert (options.measures(True), options.measures(False)) == (streaming, whole)


@steady
@given(
    st.sampled_from(["gpt-4o", "gpt-4.1-mini", "o4-mini", "claude-3", "gemini-2.5-pro", "x"]),
    st.integers(1, 2**32),
    st.integers(1, 2**32),
    st.sampled_from(["low", "high", "auto", ""]),
)
def test_no_size_is_an_accident(model: str, width: int, height: int, detail: str) -> None:
    assert 1 <= image_tokens(model, (width, height), detail) <= 258 * 64


@steady
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_patches_are_at_most_1536(width: int, height: int) -> None:
    assert image_tokens("gpt-4.1-mini", (width, height)) <= 2488
    assert image_tokens("gpt-4.1-mini", (width, height)) == pytest.approx(
        image_tokens("gpt-4.1-mini", (height, width)), abs=1
    )


def address(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0" + b"x" * 100


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + b"\0\0\0;"


def jpeg(width: int, height: int, *before: bytes, marker: int = 0xC0) -> bytes:
    frame = b"\xff%c\0\x11\x08" % marker + height.to_bytes(2) + width.to_bytes(2) + b"\3" + b"\0" * 9
    return b"\xff\xd8" + b"".join(before) + frame + b"\xff\xda" + b"x" * 50


def segment(marker: int, size: int) -> bytes:
    return b"\xff%c" % marker + size.to_bytes(2) + b"\xff\xc0" * ((size - 2) // 2)


def webp(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + rest + b"\0" * 20


LOSSY = b"\0\0\0\x9d\x01\x2a" + (300).to_bytes(2, "little") + (200 | 0x4000).to_bytes(2, "little")
LOSSLESS = b"\x2f" + (299 | 199 << 14 | 1 << 28).to_bytes(4, "little")
EXTENDED = b"\x10\0\0\0" + (299).to_bytes(3, "little") + (199).to_bytes(3, "little")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(300, 200), id="PNG"),
        pytest.param(gif(300, 200), id="a GIF of 14 bytes"),
        pytest.param(gif(300, 200) + b"x" * 100, id="GIF"),
        pytest.param(jpeg(300, 200), id="JPEG"),
        pytest.param(jpeg(300, 200, marker=0xC2), id="progressive JPEG"),
        pytest.param(jpeg(300, 200, *[segment(0xE1, 65_534)] * 3, segment(0xC4, 30)), id="JPEG behind 200 KB of notes"),
        pytest.param(jpeg(300, 200, b"\xff\xff", segment(0xDB, 68)), id="JPEG with fill bytes"),
        pytest.param(webp(b"VP8 ", LOSSY), id="WebP, lossy"),
        pytest.param(webp(b"VP8L", LOSSLESS), id="WebP, lossless"),
        pytest.param(webp(b"VP8X", EXTENDED), id="WebP, extended"),
    ],
)
def test_sizes_are_read_from_the_head(data: bytes) -> None:
    assert size_in_address(address(data)) == (300, 200)
    assert size_in_address(address(data[:9])) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data:",
        "data:image/png",
        "data:image/png;base64,",
        "data:image/png;base64,not base64 at all, for sure not",
        "data:image/png,plain",
        "https://example.com/a.png",
        address(b"BM" + b"\0" * 100),
        address(png(0, 200)),
        address(jpeg(0, 0)),
        address(b"\xff\xd8" + b"\xff" * 100_000),
        address(b"\xff\xd8" + b"\xff\xd0" * 100_000),
        address(b"\xff\xd8" + segment(0xE1, 2) * 100_000),
        address(webp(b"VP8Z", LOSSY)),
        "data:image/png;base64," + "字" * 100,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_picture_has_no_size(text: str) -> None:
    began = time.perf_counter()
    assert size_in_address(text) is None
    assert time.perf_counter() - began < 0.05


HEADS = st.sampled_from([b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8", b""])


@steady
@given(HEADS, st.binary(max_size=60), st.text(max_size=3))
def test_no_head_is_an_accident(head: bytes, rest: bytes, tail: str) -> None:
    size = size_in_address(address(head + rest) + tail)
    assert size is None or min(size) >= 1


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        pytest.param({"image_url": {"url": address(png(512, 512)), "detail": "high"}}, 255, id="by its size"),
        pytest.param({"image_url": {"url": address(png(512, 512)), "detail": "low"}}, 85, id="low"),
        pytest.param({"image_url": address(png(512, 512)), "detail": "low"}, 85, id="an address alone"),
        pytest.param({"image_url": {"url": "https://example.com/a.png"}}, 765, id="elsewhere: the usual size"),
        pytest.param({"image_url": {"url": "https://example.com/a.png", "detail": "low"}}, 85, id="elsewhere, low"),
        pytest.param({"image_url": {"url": "data:image/png;base64,AAAA"}}, 255, id="no picture"),
        pytest.param({"image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}, 85, id="no picture, low"),
        pytest.param({"image_url": {"url": 7, "detail": []}}, 765, id="other types"),
        pytest.param({"image_url": None}, 765, id="null"),
        pytest.param({"file_id": "f"}, 765, id="by its id"),
    ],
)
def test_parts_with_pictures(part: dict[str, Any], tokens: int) -> None:
    assert image_part_tokens("gpt-4o", part) == tokens
    assert image_part_tokens("gpt-4o", part, measured=False) == 255


@pytest.mark.parametrize(
    ("model", "seconds", "tokens"),
    [("gpt-4o-audio-preview", 60, 600), ("gemini-2.5-flash", 60, 1920), ("qwen-omni", 60, 256), ("gpt-4o", None, 256)],
)
def test_sound_costs_by_the_second(model: str, seconds: int | None, tokens: int) -> None:
    assert audio_tokens(model, seconds) == tokens
    assert audio_tokens(model, seconds, measured=False) == 256


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        pytest.param(b"%PDF-1.4 /Type /Pages /Count 2 /Type /Page /Type/Page\n", 2, id="page objects"),
        pytest.param(b"%PDF-1.5 /Type /Pages /Count 7" + b"x" * 1000, 7, id="a page tree"),
        pytest.param(b"%PDF-1.5" + b"x" * 200_000, 4, id="packed: by its size"),
        pytest.param(b"%PDF-1.5 /Count 999999", 1, id="more pages than bytes"),
        pytest.param(b"", 1, id="nothing"),
    ],
)
def test_pages_of_a_document(data: bytes, pages: int) -> None:
    assert pdf_pages(data) == pages


@pytest.mark.parametrize(
    ("model", "page"), [("gemini-2.5-flash", 258), ("gpt-4o", 2265), ("claude-sonnet-4-5", 3100), ("x", 2020)]
)
def test_documents_cost_by_the_page(model: str, page: int) -> None:
    assert pdf_tokens(model, 1) == pdf_tokens(model, 0) == page
    assert pdf_tokens(model, 12) == 12 * page
    assert pdf_tokens(model, 10**9) == 1000 * page


@steady
@given(st.text(max_size=30))
def test_every_name_has_rules(model: str) -> None:
    assert rules_for(model).image.flat() > 0


def test_long_names_are_read_quickly() -> None:
    began = time.perf_counter()
    for name in ("a." * 50_000, "a/" * 50_000, "ft:" * 50_000, "a" * 100_000):
        rules_for(name)
    assert time.perf_counter() - began < 0.2
