"""
Usage as OpenAI's dialect reports it: `prompt_tokens` includes cached and audio tokens, `completion_tokens` reasoning.

Also read: `input_tokens` / `output_tokens` (images, transcription), DeepSeek's `prompt_cache_hit_tokens`, and the
`seconds` of transcriptions that are charged by duration.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec.structs import astuple

from ..config.pricing import Usage
from .shapes import EMPTY, object_of

# No answer is longer than this; what an upstream reports beyond it is a defect of the upstream's.
MOST_TOKENS = 1 << 31

COUNTS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")


def read_usage(answer: Mapping[str, Any]) -> Usage | None:
    """The usage in a whole answer or in one event of a stream; None when it reports none."""
    usage = answer.get("usage")
    return usage_from(usage) if isinstance(usage, dict) and usage else None  # pyright: ignore[reportUnknownArgumentType]


def usage_from(usage: Mapping[str, Any]) -> Usage | None:
    """
    A `usage` object as `Usage`; None when it holds no count at all, so that the call is estimated and not given away.

    What is negative or no whole number is no count; what is beyond reason counts as 2^31. Some vendors leave reasoning
    out of `completion_tokens`; where their total says so, it is added.
    """
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is int and type(completion) is int and 0 < prompt <= MOST_TOKENS and 0 < completion <= MOST_TOKENS:
        if len(usage) == 3 and "total_tokens" in usage:
            return Usage(prompt, completion)
        inputs, outputs = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
        if inputs and outputs and type(inputs) is dict and type(outputs) is dict:
            return _with_details(usage, prompt, completion, inputs, outputs)  # pyright: ignore[reportUnknownArgumentType]
    return _whole(usage)


def merge_usage(earlier: Usage, later: Usage) -> Usage:
    """
    What two reports of one answer say together: of each count the larger.

    A stream may report its input at its beginning and its output at its end, or a growing sum in every event; a zero in
    the last one takes nothing back.
    """
    return Usage(*map(max, astuple(earlier), astuple(later)))


def _with_details(
    usage: Mapping[str, Any], prompt: int, completion: int, inputs: dict[str, Any], outputs: dict[str, Any]
) -> Usage | None:
    """The totals with the parts that text has, in the usual form; everything else is left to `_whole`."""
    cached, reasoning = inputs.get("cached_tokens", 0), outputs.get("reasoning_tokens", 0)
    if (
        type(cached) is not int
        or type(reasoning) is not int
        or not 0 <= cached <= prompt
        or not 0 <= reasoning <= completion
        or inputs.get("audio_tokens")
        or inputs.get("image_tokens")
        or outputs.get("audio_tokens")
        or outputs.get("image_tokens")
        or (not cached and "prompt_cache_hit_tokens" in usage)
        or (reasoning and usage.get("total_tokens") != prompt + completion)
    ):
        return _whole(usage)
    return Usage(prompt, completion, cached, reasoning_tokens=reasoning)


def _whole(usage: Mapping[str, Any]) -> Usage | None:
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    completion = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    if not prompt and not completion:
        return _without_parts(usage)
    inputs = _parts(usage, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    outputs = _parts(usage, "completion_tokens_details", "output_tokens_details", "output_token_details")
    if not inputs and not outputs and "prompt_cache_hit_tokens" not in usage:
        return Usage(input_tokens=prompt, output_tokens=completion)
    cached = _count(inputs, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens")
    reasoning = _count(outputs, "reasoning_tokens")
    if reasoning and _count(usage, "total_tokens") == prompt + completion + reasoning:
        completion = min(completion + reasoning, MOST_TOKENS)
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_tokens=min(cached, prompt),
        input_audio_tokens=min(_count(inputs, "audio_tokens"), prompt),
        input_image_tokens=min(_count(inputs, "image_tokens"), prompt),
        output_audio_tokens=min(_count(outputs, "audio_tokens"), completion),
        output_image_tokens=min(_count(outputs, "image_tokens"), completion),
        reasoning_tokens=min(reasoning, completion),
    )


def _parts(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The details under the first of these names that has any; transcriptions say `token` where others say `tokens`."""
    for name in names:
        if parts := object_of(usage.get(name)):
            return parts
    return EMPTY


def _without_parts(usage: Mapping[str, Any]) -> Usage | None:
    """A usage without input and output tokens: of seconds, of a mere total, or of nothing."""
    seconds = usage.get("seconds")
    if isinstance(seconds, int | float) and seconds is not True and 0 < seconds < MOST_TOKENS:
        return Usage(seconds=Decimal(str(seconds)))
    total = _count(usage, "total_tokens")
    return Usage(input_tokens=total) if total or any(_is_count(usage.get(name)) for name in COUNTS) else None


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return min(int(value), MOST_TOKENS) if value and _is_count(value) else 0


def _is_count(value: object) -> bool:
    # A whole number too large for 64 bits is read as a float, and some vendors write 12.0.
    return (type(value) is int or (type(value) is float and value.is_integer())) and value >= 0
