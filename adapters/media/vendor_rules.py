"""
Input tokens of pictures, sound and files in a conversation, by the rules of the model's vendor.

Pure arithmetic on sizes: a picture's width and height come from the head of its file. What is only named by an address
is not fetched, and counts as a picture of `USUAL_SIZE`; a hold takes it for the largest that its model sees.

Rules: OpenAI, guide "Images and vision"; Anthropic, "Vision"; Google, "Understand and count tokens"; for other vendors
and for pictures that are not to be measured, the flat numbers that New API takes.
"""

import math
import re
from binascii import Error, a2b_base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..json_shapes import object_of, text_of
from .image_size import Size, size_in_address

ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
USUAL_SIZE: Size = (1024, 1024)
PAGE_SIZE: Size = (1275, 1650)
"""A page of a document, seen at 150 dots an inch."""
PAGE_TEXT = 1500
"""Text tokens of a page, beside its picture (Anthropic, "PDF support": 1,500 to 3,000)."""
MOST_PAGES = 1000

OTHER_IMAGE, OTHER_AUDIO, VIDEO, FILE = 520, 256, 8192, 4096
"""Tokens of media whose rule or content is not known."""
OTHER_LARGEST = 4096
"""A picture of 1024 x 1024 in patches of 16 x 16: what is held where the rule is not known."""

TEXT_FILE_BYTES_PER_TOKEN = 4
PDF_BYTES_PER_TOKEN = 16
"""Base64 of a PDF: text is packed, and each page is also seen as a picture."""
VIDEO_BYTES_PER_TOKEN = 400
"""Base64 of a film of 1 Mbit/s at 300 tokens a second (Gemini, "Video understanding")."""
MOST_FILE_TOKENS = 262_144
"""A hundred full pages, as text and as pictures: what OpenAI takes in one request ("File inputs")."""
MOST_HELD_PAGES = 100
PAGE_BYTES = 16 * 1024
"""A hold takes a PDF to have no more pages than one for so many bytes, unless they are seen."""
PDF_LOOK = 512 * 1024
"""Characters of base64 in which a hold looks for pages, in all PDFs of a request: about 3 ms."""


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """
    Whether pictures and sound are measured: at all (`GET_MEDIA_TOKEN`), and in requests that do not stream
    (`GET_MEDIA_TOKEN_NOT_STREAM`). Those that are not count flat.
    """

    measure: bool = True
    measure_not_stream: bool = True

    def measures(self, stream: bool) -> bool:
        return self.measure and (stream or self.measure_not_stream)


class Tiles(NamedTuple):
    """
    OpenAI: `base` tokens, and `tile` for each 512 x 512 of a picture that is first shrunk to fit 2048 x 2048, then to a
    short side of 768. A small one is not enlarged: 128 x 64 is billed as one tile.
    """

    base: int
    tile: int

    def tokens(self, size: Size, low: bool) -> int:
        if low:
            return self.base
        width, height = size
        scale = min(1.0, 2048 / max(size), 768 / min(size))
        return self.base + self.tile * _ceil(width * scale / 512) * _ceil(height * scale / 512)

    def flat(self) -> int:
        return 3 * self.base

    def largest(self) -> int:
        return self.base + 8 * self.tile  # 768 x 2048


class Patches(NamedTuple):
    """OpenAI: patches of 32 x 32, at most 1,536, to which the picture is shrunk; a patch costs `hundredths` / 100."""

    hundredths: int

    def tokens(self, size: Size, low: bool) -> int:
        width, height = size
        patches = -(-width // 32) * -(-height // 32)
        if patches > MOST_PATCHES:
            # Shrunk to the area, and a little more, so that whole patches fit on one side.
            scale = math.sqrt(MOST_PATCHES * 32 * 32 / (width * height))
            across, down = width * scale / 32, height * scale / 32
            scale *= min((math.floor(side) or side) / side for side in (across, down))
            patches = min(_ceil(width * scale / 32) * _ceil(height * scale / 32), MOST_PATCHES)
        return (patches * self.hundredths + 50) // 100

    def flat(self) -> int:
        return 3 * 85

    def largest(self) -> int:
        return (MOST_PATCHES * self.hundredths + 50) // 100


MOST_PATCHES = 1536


class Area(NamedTuple):
    """Anthropic: a token for 750 pixels, of a picture that is first shrunk to a long side of 1,568 and 1,600 tokens."""

    def tokens(self, size: Size, low: bool) -> int:
        width, height = size
        scale = min(1.0, 1568 / max(size))
        return min(_ceil(width * scale * height * scale / 750), 1600)

    def flat(self) -> int:
        return OTHER_IMAGE

    def largest(self) -> int:
        return 1600


class Crops(NamedTuple):
    """
    Google: 258 tokens up to 384 x 384; a larger picture is cut into squares of two thirds of its short side, each 258.

    Squares are at least 256 wide: a ribbon is not cut into hundreds.
    """

    def tokens(self, size: Size, low: bool) -> int:
        width, height = size
        if max(size) <= 384:
            return 258
        unit = max(int(min(size) / 1.5), 256)
        return 258 * min(-(-width // unit) * -(-height // unit), MOST_CROPS)

    def flat(self) -> int:
        return OTHER_IMAGE

    def largest(self) -> int:
        return 258 * MOST_CROPS


MOST_CROPS = 64


class Flat(NamedTuple):
    """So many tokens, whatever the picture; `most` are held for one."""

    each: int
    most: int

    def tokens(self, size: Size, low: bool) -> int:
        return self.each

    def flat(self) -> int:
        return self.each

    def largest(self) -> int:
        return self.most


ImageRule = Tiles | Patches | Area | Crops | Flat


class MediaRules(NamedTuple):
    """`audio` is tokens a second, 0 where a recording counts flat; `page` tokens of a PDF page, 0: text and picture."""

    image: ImageRule
    audio: int = 0
    page: int = 0


OPENAI_AUDIO = 10
"""A token for 100 ms (OpenAI, guide "Realtime", costs)."""

RULES: tuple[tuple[str, MediaRules], ...] = (
    ("glm-4", MediaRules(Flat(1047, 1047))),
    ("gpt-4.1-mini", MediaRules(Patches(162), OPENAI_AUDIO)),
    ("gpt-4.1-nano", MediaRules(Patches(246), OPENAI_AUDIO)),
    ("o4-mini", MediaRules(Patches(172), OPENAI_AUDIO)),
    ("gpt-5-mini", MediaRules(Patches(162), OPENAI_AUDIO)),
    ("gpt-5-nano", MediaRules(Patches(246), OPENAI_AUDIO)),
    ("gpt-4o-mini", MediaRules(Tiles(2833, 5667), OPENAI_AUDIO)),
    ("gpt-5", MediaRules(Tiles(70, 140), OPENAI_AUDIO)),
    ("o1", MediaRules(Tiles(75, 150), OPENAI_AUDIO)),
    ("o3", MediaRules(Tiles(75, 150), OPENAI_AUDIO)),
    ("computer-use-preview", MediaRules(Tiles(65, 129), OPENAI_AUDIO)),
    ("gpt-", MediaRules(Tiles(85, 170), OPENAI_AUDIO)),
    ("chatgpt-", MediaRules(Tiles(85, 170), OPENAI_AUDIO)),
    ("claude", MediaRules(Area())),
    ("gemini", MediaRules(Crops(), audio=32, page=258)),
)
"""How names begin, first match; `anthropic.claude...` and the like are looked at behind their dots and slashes."""
OTHERS = MediaRules(Flat(OTHER_IMAGE, OTHER_LARGEST))
VENDOR = re.compile(r"^(?:.*/)?(?:ft:)?(?:[a-z]+\.)*")


@lru_cache(maxsize=1024)
def rules_for(model: str) -> MediaRules:
    """The rules of a model; flat numbers for those that are not known."""
    name = VENDOR.sub("", model.lower(), count=1)
    return next((rules for prefix, rules in RULES if name.startswith(prefix)), OTHERS)


def image_tokens(model: str, size: Size | None, detail: str = "", *, measured: bool = True) -> int:
    """
    Tokens of a picture of `size` (None: it has content, but no size that can be read).

    `detail` is OpenAI's: what is not `low` counts as `high`. Other vendors have no such choice.
    """
    rule = rules_for(model).image
    if not measured:
        return rule.flat()
    low = detail == "low"
    if size is None:
        return rule.base if low and isinstance(rule, Tiles) else rule.flat()
    return rule.tokens(size, low)


def image_part_tokens(model: str, part: Mapping[str, Any], *, measured: bool = True) -> int:
    """Tokens of an `image_url` or `input_image` part, whose picture is a `data:` address or somewhere else."""
    address, detail = picture_of(part)
    size = size_in_address(address) if measured and address.startswith("data:") else USUAL_SIZE
    return image_tokens(model, size, detail, measured=measured)


def most_image_tokens(model: str, address: str, detail: str, *, measured: bool) -> int:
    """
    The most that a picture may count for, whether pictures are measured when it is charged or not.

    One that is elsewhere, cannot be read, or is not to be looked at (`measured`) counts as the model's largest.
    """
    rule = rules_for(model).image
    if detail == "low" and isinstance(rule, Tiles):
        return rule.flat()
    size = size_in_address(address) if measured else None
    if size is None or isinstance(rule, Flat):
        return rule.largest()
    return max(rule.tokens(size, False), rule.flat())


def picture_of(part: Mapping[str, Any]) -> tuple[str, str]:
    """The address and the `detail` of a part that is a picture."""
    picture = object_of(part.get("image_url")) or {"url": part.get("image_url"), "detail": part.get("detail")}
    return text_of(picture, "url"), text_of(picture, "detail")


def audio_tokens(model: str, seconds: int | None, *, measured: bool = True) -> int:
    """Tokens of a recording; None: nobody knows how long it is."""
    rate = rules_for(model).audio
    return rate * seconds if rate and measured and seconds is not None else OTHER_AUDIO


def data_of(value: object) -> str:
    """A `data:` address, bare or as `url`, with what it holds; "" for one that only says where to look."""
    address = value if isinstance(value, str) else text_of(object_of(value), "url")
    return address if address.startswith("data:") else ""


def recording_of(value: object) -> tuple[str, int]:
    """
    What an `input_audio` or `audio_url` part holds: base64 and where it begins. ("", 0) where it only says where the
    recording is. It stands in `data` (OpenAI), in `url` (vLLM), or alone (Mistral).
    """
    fields = object_of(value)
    data = value if isinstance(value, str) else text_of(fields, "data") or text_of(fields, "url")
    if data.startswith("data:"):
        return data, data.find(",", 0, 256) + 1
    return ("", 0) if ELSEWHERE.match(data) else (data, 0)


def frame_tokens(model: str) -> int:
    """Tokens of a picture of a film that is sent as pictures (Alibaba's `video`): none of them is measured."""
    return image_tokens(model, USUAL_SIZE)


def pdf_tokens(model: str, pages: int) -> int:
    """Tokens of a document of so many pages, each as text and as a picture where the vendor does not say otherwise."""
    rules = rules_for(model)
    page = rules.page or PAGE_TEXT + rules.image.tokens(PAGE_SIZE, low=False)
    return page * min(max(pages, 1), MOST_PAGES)


def file_tokens(data: str) -> int:
    """Tokens of a file in base64, bare or as a `data:` address; flat where only its name is sent."""
    per_token = TEXT_FILE_BYTES_PER_TOKEN if pdf_start(data) is None else PDF_BYTES_PER_TOKEN
    return min(max(len(data) // per_token, FILE), MOST_FILE_TOKENS)


def most_file_tokens(model: str, data: str, look: int) -> int:
    """The most that a file may count for; of a PDF, the first `look` characters are searched for its pages."""
    start = pdf_start(data)
    if start is None:
        return file_tokens(data)
    pages = len(data) * 3 // 4 // PAGE_BYTES + 1
    end = start + look // 4 * 4
    with suppress(Error, ValueError):  # what is no base64 goes by its length
        pages = max(pages, pdf_pages(a2b_base64(data[start:end])))
    return max(pdf_tokens(model, min(pages, MOST_HELD_PAGES)), file_tokens(data))


def pdf_start(data: str) -> int | None:
    """Where the base64 of a PDF begins, bare or in a `data:` address; None for another file."""
    start = data.find(",", 0, 256) + 1 if data.startswith("data:") else 0
    return start if data.startswith("JVBERi", start) else None


PAGE = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
COUNT = re.compile(rb"/Count\s{1,8}(\d{1,6})")


def pdf_pages(data: bytes) -> int:
    """
    Pages of a PDF, at least 1: its page objects, else the largest count that it gives, else a page for 64 KiB.

    Newer files may pack all of this into streams, which are not unpacked.
    """
    if pages := sum(1 for _ in PAGE.finditer(data)):
        return pages
    counted = max((int(match[1]) for match in COUNT.finditer(data)), default=0)
    return min(counted, len(data) // 64) or len(data) // 65536 + 1


def _ceil(value: float) -> int:
    """Rounded up, at least 1; a side that is whole but for the floating point stays what it is."""
    return max(math.ceil(value - 1e-9), 1)
