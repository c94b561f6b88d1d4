"""
What a call is charged for: the usage its upstream reports where that can be true, estimates for what it leaves out.

`most_usage` is asked before the call and sizes its hold; `settled_usage` is asked after it. A number of ours makes a
usage `estimated`, if it is one that the price charges.
"""

import math
from decimal import Decimal
from typing import cast

from msgspec.structs import replace

from ...config.amounts import ZERO
from ...config.pricing import Price, Usage
from ..call import Call
from ..json_shapes import text_of
from ..media.recording_length import longest_seconds
from ..operations import MAX_CHOICES, Operation
from .images_and_audio import (
    HEARD_TOKENS,
    TRANSCRIPT_TOKENS,
    answered_tokens,
    drawn_tokens,
    edited_tokens,
    image_kind,
    pictures_of,
    sound_seconds,
    spoken_tokens,
)
from .reported import bounded_seconds
from .token_estimates import HOUR, Sent, estimate_text, is_plain, likely_sent, most_sent
from .web_searches import found_tokens, most_searches

TEXT = frozenset({"chat_completions", "completions", "embeddings", "moderations"})
"""Operations that are charged by tokens alone."""

HIDDEN_TOKENS = 131_072
"""Input that an upstream may add to what was sent (its own instructions, tools, what a search found): beyond the bytes
of the body and this, a report is not believed."""
LARGEST_CONTEXT = 2_097_152
"""The same for a body that names media, which may fill a model's whole context from afar."""
LONGEST_OUTPUT = 1_048_576
"""More than any model writes for one choice."""
LONGEST_ENVELOPE = 4096
"""Bytes that a whole answer may have beside its text."""
BYTES_OF_TOKEN = 4
MOST_UNSEEN = 8
"""Text delivered is estimated at 3.5 characters a token. A report of fewer tokens than one for 28 is of something else:
of the beginning of a stream, or of nothing."""


def is_doubtful(reported: Usage | None, size: int) -> bool:
    """
    Whether the text of a whole answer of `size` bytes has to be counted: it reports no output, or so little that there
    may be far more. Most answers have 5 bytes a token.
    """
    if reported is None or not reported.output_tokens:
        return True
    return size > LONGEST_ENVELOPE + MOST_UNSEEN * BYTES_OF_TOKEN * reported.output_tokens


def settled_usage(
    call: Call,
    reported: Usage | None,
    *,
    delivered_tokens: int,
    images: int,
    audio_bytes: int = 0,
    seconds: Decimal | None = None,
    price: Price | None = None,
    sent: Sent | None = None,
    model: str = "",
) -> Usage:
    """
    What to charge for an answer, or for the part of one that came.

    `delivered_tokens` is an estimate of the text that was delivered, `images` how many pictures came (0: nobody knows),
    `audio_bytes` the bytes of sound, `seconds` the length of a recording where the answer tells it beside its usage.
    With `price`, only what it charges is estimated. `sent` is what was sent, where it has been counted. `model` is the
    upstream's name of the model, by whose rules media counts.

    An input of 0 is replaced by an estimate of what was sent, and so is an output far below what was delivered; counts
    that cannot be true are cut; seconds count for recordings only, and so on: a report can err, but not to nothing.
    One whose counts were cut, or that knows of no input, is `suspicious`.
    """
    name = call.operation.name
    if name in TEXT:
        if (
            reported is not None
            and 0 < reported.input_tokens <= len(call.body) + HIDDEN_TOKENS
            and reported.output_tokens <= HIDDEN_TOKENS
            and delivered_tokens <= MOST_UNSEEN * reported.output_tokens
            and reported.seconds is ZERO
            and not audio_bytes
        ):
            return reported
        return _text_usage(call, reported, delivered_tokens, audio_bytes, sent, model or call.base_model)
    if name.startswith("images_"):
        return _image_usage(call, reported, images, price)
    if name == "audio_speech":
        return _speech_usage(call, reported, audio_bytes, price)
    return _transcript_usage(call, reported, delivered_tokens, seconds, price)


def most_usage(call: Call, default_output: int, price: Price, model: str = "") -> Usage:
    """
    The most that a call is likely to use. `default_output` is for each choice, where the caller sets no limit; `model`
    is the upstream's name of the model.

    Beyond these bounds go only: text with more than a token for three bytes, files and films that are named by an
    address, sound below 24 kbit/s that does not say how long it is, and more searches than `most_searches` expects.
    """
    name = call.operation.name
    document = call.document or {}
    if name == "audio_speech":
        spoken = spoken_tokens(document, most=True)
        return Usage(_speech_input(call, price), spoken, output_audio_tokens=spoken)
    sent = most_sent(call, model or call.base_model)
    if name.startswith("audio_"):
        seconds = sound_seconds(call, most=True)
        heard = seconds * HEARD_TOKENS
        output = max(seconds * TRANSCRIPT_TOKENS, 1)
        return Usage(sent.tokens + heard, output, input_audio_tokens=heard, seconds=Decimal(seconds))
    if name.startswith("images_"):
        size, quality = image_kind(call)
        pictures = pictures_of(call)
        output = drawn_tokens(document, most=True) * pictures
        return Usage(
            sent.tokens,
            output,
            input_image_tokens=sent.image,
            output_image_tokens=output,
            images=pictures,
            image_size=size,
            image_quality=quality,
        )
    limit = default_output if call.output_limit is None else call.output_limit
    output = limit * answers_of(call) if call.operation.generates else 0
    searches = most_searches(call) if "web_search" in price.tools else 0
    tokens = sent.tokens + found_tokens(searches)
    return Usage(
        tokens,
        output,
        cache_write_1h_tokens=tokens if HOUR in call.body else 0,
        input_audio_tokens=sent.audio,
        input_image_tokens=sent.image,
        output_audio_tokens=output if _speaks(call) else 0,
        output_image_tokens=output if _draws(price) else 0,
        tool_calls=(("web_search", searches),) if searches else (),
    )


def is_sold(operation: Operation, price: Price) -> bool:
    """
    Whether the price has a figure for something that the operation uses, or none at all, for what is free.

    False for a conversation with a model whose price is by the minute or by the picture: it would cost nothing.
    """
    by_picture, by_minute = any(price.per_image.values()), bool(price.per_minute)
    if not (by_picture or by_minute) or price.per_call or price.tools or price.tiers or _charges_tokens(price):
        return True
    if operation.name.startswith("images_"):
        return by_picture
    return by_minute and operation.name in ("audio_transcriptions", "audio_translations")


def answers_of(call: Call) -> int:
    """How many answers are written: `n`, or `best_of` where that is more, for each of the prompts."""
    if call.operation.name != "completions":
        return call.choices
    document = call.document or {}
    best_of, prompts = document.get("best_of"), document.get("prompt")
    choices = max(call.choices, best_of) if type(best_of) is int else call.choices
    if not isinstance(prompts, list) or not prompts:
        return choices
    # An array of numbers is one prompt, in tokens.
    items = cast(list[object], prompts)
    return choices if isinstance(items[0], int) else choices * len(items)


def _draws(price: Price) -> bool:
    """Whether the output of a conversation may be pictures, at a price above that of text."""
    every = (price, *(tier for _, tier in price.tier_prices))
    return any((each.output_image or ZERO) > each.output for each in every)


def _speaks(call: Call) -> bool:
    """Whether a conversation is to be answered in sound, which has a price of its own."""
    document = call.document or {}
    modalities = document.get("modalities")
    return bool(document.get("audio")) or (isinstance(modalities, list) and "audio" in modalities)


def _text_usage(
    call: Call, reported: Usage | None, delivered: int, audio_bytes: int, sent: Sent | None, model: str
) -> Usage:
    if not call.operation.generates:
        delivered = 0
    spoken = answered_tokens(call.document or {}, audio_bytes)
    if reported is None:
        usage = Usage(output_tokens=delivered + spoken, output_audio_tokens=spoken, estimated=True)
        return _with_sent(usage, sent or likely_sent(call, model))
    usage = replace(reported, seconds=ZERO) if reported.seconds else reported
    usage = _bounded(call, usage)
    if not usage.input_tokens:
        usage = replace(_with_sent(usage, sent or likely_sent(call, model)), suspicious=True)
    if delivered + spoken > MOST_UNSEEN * usage.output_tokens:
        audio = max(usage.output_audio_tokens, spoken)
        usage = replace(usage, output_tokens=delivered + spoken, output_audio_tokens=audio, estimated=True)
    return usage


def _bounded(call: Call, usage: Usage) -> Usage:
    """The usage with counts that can be true."""
    most_in = len(call.body) + (HIDDEN_TOKENS if call.is_form or is_plain(call) else LARGEST_CONTEXT)
    limit = LONGEST_OUTPUT if call.output_limit is None else call.output_limit + HIDDEN_TOKENS
    most_out = limit * answers_of(call)
    if usage.input_tokens <= most_in and usage.output_tokens <= most_out:
        return usage
    tokens_in, tokens_out = min(usage.input_tokens, most_in), min(usage.output_tokens, most_out)
    return replace(
        usage,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cached_tokens=min(usage.cached_tokens, tokens_in),
        input_audio_tokens=min(usage.input_audio_tokens, tokens_in),
        input_image_tokens=min(usage.input_image_tokens, tokens_in),
        output_audio_tokens=min(usage.output_audio_tokens, tokens_out),
        output_image_tokens=min(usage.output_image_tokens, tokens_out),
        reasoning_tokens=min(usage.reasoning_tokens, tokens_out),
        cache_write_5m_tokens=min(usage.cache_write_5m_tokens, tokens_in),
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, tokens_in),
        estimated=True,
        suspicious=True,
    )


def _with_sent(usage: Usage, sent: Sent) -> Usage:
    return replace(
        usage,
        input_tokens=sent.tokens,
        input_audio_tokens=sent.audio,
        input_image_tokens=sent.image,
        cached_tokens=0,
        cache_write_5m_tokens=0,
        cache_write_1h_tokens=0,
        estimated=True,
    )


def _charges_tokens(price: Price) -> bool:
    dear = (price.input, price.output, price.input_audio, price.output_audio, price.input_image, price.output_image)
    return any(dear)


def _image_usage(call: Call, reported: Usage | None, images: int, price: Price | None) -> Usage:
    """Pictures, by the piece and by tokens: the price says which of them counts."""
    size, quality = image_kind(call)
    # Some vendors have fields of their own for a series of pictures, so more than `n` may be right.
    counted = min(images or call.choices, MAX_CHOICES)
    usage = Usage() if reported is None else _bounded(call, replace(reported, seconds=ZERO))
    if images > MAX_CHOICES:
        usage = replace(usage, suspicious=True)
    by_tokens = price is None or _charges_tokens(price)
    by_piece = price is None or bool(price.per_image)
    estimated = usage.estimated or (by_piece and not images and reported is None)
    usage = replace(usage, images=counted, image_size=size, image_quality=quality, estimated=estimated)
    if not by_tokens:
        return usage
    if not usage.input_tokens:
        pictures = edited_tokens(call, most=False) if call.operation.name == "images_edits" else 0
        prompt = estimate_text(text_of(call.document or {}, "prompt"))
        usage = replace(usage, input_tokens=prompt + pictures, input_image_tokens=pictures, estimated=True)
    if not usage.output_tokens:
        drawn = counted * drawn_tokens(call.document or {}, most=False)
        usage = replace(usage, output_tokens=drawn, output_image_tokens=drawn, estimated=True)
    if not usage.output_image_tokens:  # OpenAI's streams tell their sum only
        usage = replace(usage, output_image_tokens=usage.output_tokens)
    return usage


def _speech_input(call: Call, price: Price | None) -> int:
    """Characters where nothing but the input has a price; else tokens. Characters, where the price is not known."""
    document = call.document or {}
    characters = len(text_of(document, "input"))
    if price is None or not (price.output or price.output_audio):
        return characters
    return estimate_text(text_of(document, "input")) + estimate_text(text_of(document, "instructions"))


def _speech_usage(call: Call, reported: Usage | None, audio_bytes: int, price: Price | None) -> Usage:
    document = call.document or {}
    if price is not None and not (price.output or price.output_audio):
        return Usage(len(text_of(document, "input")))
    usage = Usage() if reported is None else _bounded(call, replace(reported, seconds=ZERO))
    if not usage.input_tokens:
        usage = replace(usage, input_tokens=_speech_input(call, price), estimated=True)
    if not usage.output_tokens:
        spoken = spoken_tokens(document, audio_bytes)
        usage = replace(usage, output_tokens=spoken, output_audio_tokens=spoken, estimated=True)
    if not usage.output_audio_tokens:
        usage = replace(usage, output_audio_tokens=usage.output_tokens)
    return usage


def _transcript_usage(
    call: Call, reported: Usage | None, delivered: int, seconds: Decimal | None, price: Price | None
) -> Usage:
    """A recording, by seconds and by tokens: the price says which of them counts."""
    usage = Usage() if reported is None else _bounded(call, reported)
    if not usage.seconds and seconds is not None and seconds.is_finite() and seconds > 0:
        usage = replace(usage, seconds=seconds)
    longest = longest_seconds(len(call.body))
    if usage.seconds > longest:
        usage = replace(usage, seconds=Decimal(longest), estimated=True)
    elif usage.seconds:
        usage = replace(usage, seconds=bounded_seconds(usage.seconds))
    if price is None:  # what the upstream has reported is what it charges
        by_tokens = reported is None or reported.input_tokens > 0 or not usage.seconds
        by_seconds = not usage.input_tokens
    else:
        by_tokens, by_seconds = _charges_tokens(price), bool(price.per_minute)
    if by_seconds and not usage.seconds:
        usage = replace(usage, seconds=Decimal(sound_seconds(call, most=False)), estimated=True)
    if by_tokens and not usage.input_tokens:
        heard = math.ceil((usage.seconds or sound_seconds(call, most=False)) * HEARD_TOKENS)
        prompt = estimate_text(text_of(call.document or {}, "prompt"))
        usage = replace(usage, input_tokens=prompt + heard, input_audio_tokens=heard, estimated=True)
    if by_tokens and delivered > MOST_UNSEEN * usage.output_tokens:
        usage = replace(usage, output_tokens=delivered, estimated=True)
    return usage
