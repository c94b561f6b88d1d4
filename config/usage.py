"""Usage: what one call used, in the kinds of things that have prices."""

from decimal import Decimal

from msgspec import Struct

from .amounts import ZERO
from .price import Tool

ToolCalls = tuple[tuple[Tool, int], ...]
"""(tool, calls) each, in the order of the tools' names; a tool stands once."""


class Usage(Struct, frozen=True):
    """
    What one call used. `input_tokens` and `output_tokens` are totals; the other token counts are parts of them.

    Parts do not overlap: an audio or image token that was read from the cache is counted in `cached_tokens` only.
    Reasoning tokens are output and cost what output costs. `image_size` ("1024x1792") and `image_quality` ("hd") are
    empty when the client left them to the vendor. `seconds` is the length of transcribed audio. `tool_calls`: calls of
    the vendor's own tools. `estimated`: counted here because the upstream did not say. `suspicious`: the upstream's
    report was negative, absurd, or contradicted itself, and was brought into bounds.

    Raises `ValueError` on a negative count.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    seconds: Decimal = ZERO
    image_size: str = ""
    image_quality: str = ""
    estimated: bool = False
    tool_calls: ToolCalls = ()
    suspicious: bool = False

    def __post_init__(self) -> None:
        # The bitwise or of whole numbers is below 0 when one of them is; with `min` a usage took twice as long to make.
        every = (
            self.input_tokens
            | self.output_tokens
            | self.cached_tokens
            | self.cache_write_5m_tokens
            | self.cache_write_1h_tokens
            | self.input_audio_tokens
            | self.output_audio_tokens
            | self.input_image_tokens
            | self.output_image_tokens
            | self.reasoning_tokens
            | self.images
        )
        seconds = self.seconds
        if (
            every < 0
            or (seconds is not ZERO and (not seconds.is_finite() or seconds < 0))
            or (self.tool_calls and min(calls for _, calls in self.tool_calls) < 0)
        ):
            raise ValueError(f"a usage is made of counts >= 0: {self}")

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens
