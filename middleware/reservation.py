"""The quota that a call may cost, to be held before its upstream is asked."""

from ..adapters.call import Call
from ..adapters.estimate import most_usage
from ..adapters.text_estimate import BYTES_PER_TOKEN, is_plain
from ..config.options import Options
from ..config.tariff import Tariff


def reservation(call: Call, tariff: Tariff, options: Options) -> int:
    """
    What the call may cost, at the tariff: its input as estimated and its output up to the caller's limit, or to
    `default_max_tokens` where there is none.

    An ordinary conversation takes a few operations; everything else is looked into.
    """
    if call.operation.dialect == "openai_chat" and tariff.text_only and is_plain(call):
        limit = options.default_max_tokens if call.output_limit is None else call.output_limit
        return tariff.reserve(len(call.body) // BYTES_PER_TOKEN + 1, limit * call.choices)
    return tariff.cover(most_usage(call, options.default_max_tokens, tariff.price))
