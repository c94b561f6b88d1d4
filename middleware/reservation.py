"""The quota that a call may cost, to be held before its upstream is asked; and the output that a balance affords."""

from msgspec.structs import replace

from ..adapters.call import Call
from ..adapters.errors import BadRequest
from ..adapters.requests.output_limit import LIMITS, planned_output, with_output_limit
from ..adapters.requests.upstream_request import as_sent, upstream_name
from ..adapters.usage.chargeable import answers_of, most_usage
from ..adapters.usage.token_estimates import BYTES_PER_TOKEN, HOUR, is_plain
from ..adapters.usage.web_searches import asks_more
from ..config.channel import Channel, MappingCycle
from ..config.options import Options
from ..config.pricing import Usage
from ..config.tariff import Tariff


def reservation(call: Call, tariff: Tariff, options: Options, channel: Channel | None = None) -> int:
    """
    What the call may cost, at the tariff: its input as estimated and its output up to the caller's limit, or to
    `default_max_tokens` where there is none, which a model that writes less does not reach.

    An ordinary conversation takes a few operations; everything else is looked into: pictures, sound and files count by
    the rules of the model that `channel` asks. What the channel overrides counts as it is sent.
    """
    call = as_sent(call, channel)
    if (
        call.operation.dialect == "openai_chat"
        and tariff.text_only
        and is_plain(call)
        and not (tariff.sells_more and asks_more(call))
        and not (tariff.sells_hours and HOUR in call.body)
    ):
        limit = default_limit(call, tariff, options) if call.output_limit is None else call.output_limit
        return tariff.reserve(len(call.body) // BYTES_PER_TOKEN + 1, limit * call.choices)
    return tariff.cover(expected_usage(call, default_limit(call, tariff, options), tariff, channel))


def expected_usage(call: Call, limit: int, tariff: Tariff, channel: Channel | None) -> Usage:
    """The most that a call `as_sent` is likely to use of what `channel` calls its model."""
    try:
        model = call.base_model if channel is None else upstream_name(channel, call)
    except MappingCycle:
        model = call.base_model  # nobody will be asked
    return most_usage(call, limit, tariff.price, model)


def no_price(call: Call) -> BadRequest:
    """The refusal of a model that has no price, or none for what is asked of it."""
    return BadRequest(
        f"The model {call.model!r} has no price for {call.operation.path}, so it is not served.",
        param="model",
        code="model_price_error",
    )


def default_limit(call: Call, tariff: Tariff, options: Options) -> int:
    """The output to expect of an answer whose length the caller does not limit, and what he announces besides."""
    limit, most = options.default_max_tokens + planned_output(call.document or {}), tariff.price.max_output
    return limit if most is None else min(limit, most)


def is_mostly_output(call: Call, quota: int, tariff: Tariff, channel: Channel | None = None) -> bool:
    """Whether of `quota`, its reservation, more than half is for the output, which the caller can limit."""
    if not can_be_limited(call, channel):
        return False
    return tariff.cover(_writing(expected_usage(as_sent(call, channel), 0, tariff, channel), 0)) < quota / 2


def can_be_limited(call: Call, channel: Channel | None = None) -> bool:
    """Whether the output of a call has a limit that the gateway can lower, and that the channel does not set itself."""
    if channel is not None and not LIMITS.isdisjoint(channel.param_override):
        return False
    return call.operation.generates and not call.is_form


def limited(call: Call, tariff: Tariff, options: Options) -> Call:
    """The call with its output limited to what `reservation` takes for it, so that it cannot cost more."""
    return call if call.output_limit is not None else with_output_limit(call, default_limit(call, tariff, options))


def clamped(call: Call, tariff: Tariff, affordable: int, channel: Channel | None = None) -> tuple[Call, int] | None:
    """
    A `limited` call with the highest output limit for which quota of `affordable` is enough, and the quota to hold for
    it. None where that is not even one token.
    """
    limit, sent = call.output_limit or 0, as_sent(call, channel)
    expected, answers = expected_usage(sent, limit, tariff, channel), answers_of(sent)
    most = affordable_output(expected, answers, limit, tariff, affordable)
    if not most:
        return None
    # The body with the lower number is no longer than the one that `expected` was made by.
    return with_output_limit(call, most), tariff.cover(_writing(expected, most * answers))


def one_token(call: Call, tariff: Tariff, channel: Channel | None = None) -> int:
    """The least quota for which a call is not refused: what `clamped` holds for answers of one token."""
    sent = as_sent(call, channel)
    return tariff.cover(_writing(expected_usage(sent, 1, tariff, channel), answers_of(sent)))


def affordable_output(expected: Usage, answers: int, limit: int, tariff: Tariff, affordable: int) -> int:
    """The most output tokens of each answer, up to `limit`, for which quota of `affordable` covers the call; or 0."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if tariff.cover(_writing(expected, middle * answers)) <= affordable:
            low = middle
        else:
            high = middle - 1
    return low


def within_limit(usage: Usage, reported: Usage | None, call: Call, channel: Channel | None = None) -> Usage:
    """
    The usage with no more output than the call asked for, where it is we who counted more: one token may have many
    characters. What the upstream has `reported` stays.
    """
    sent = as_sent(call, channel)
    if sent.output_limit is None or (reported is not None and reported.output_tokens >= usage.output_tokens):
        return usage
    most = sent.output_limit * answers_of(sent)
    return replace(
        usage,
        output_tokens=min(usage.output_tokens, most),
        output_audio_tokens=min(usage.output_audio_tokens, most),
        output_image_tokens=min(usage.output_image_tokens, most),
    )


def _writing(expected: Usage, output: int) -> Usage:
    """The usage with so many tokens of the output that it has."""
    return replace(
        expected,
        output_tokens=output,
        output_audio_tokens=output if expected.output_audio_tokens else 0,
        output_image_tokens=output if expected.output_image_tokens else 0,
    )
