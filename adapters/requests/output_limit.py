"""How much output a request asks for; and a call with a lower limit of it, in the client's own bytes otherwise."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..call import Call
from ..json_shapes import list_of, object_of
from .json_splice import only_string, splice

OLDER, NEWER = "max_tokens", "max_completion_tokens"
"""Most vendors know the older name; OpenAI's reasoning models refuse it."""
LIMITS = frozenset({OLDER, NEWER})
KNOWS_NEWER_ONLY = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9])")
PLANS = frozenset({"prediction", "thinking", "thinking_budget", "reasoning", "extra_body"})
"""Fields that may say how much is going to be written."""
MOST_PLANNED = 1_048_576
BYTES_PER_TOKEN = 3


def limit_of(document: Mapping[str, Any]) -> int | None:
    """The larger of the two limits, for upstreams differ in which one they heed; 0 is no limit."""
    older, newer = document.get(OLDER), document.get(NEWER)
    older = older if isinstance(older, int) else 0
    newer = newer if isinstance(newer, int) else 0
    return max(older, newer) or None


def planned_output(document: Mapping[str, Any]) -> int:
    """
    Output tokens that a request announces beside an ordinary answer: what it predicts, which is billed as output also
    where the model writes something else, and the budget that it gives the model for thinking.

    Budgets: Anthropic's `thinking`, OpenRouter's `reasoning`, Alibaba's `thinking_budget`, Google's `extra_body`.
    """
    if PLANS.isdisjoint(document):
        return 0
    google = object_of(object_of(document.get("extra_body")).get("google"))
    budgets = (
        object_of(document.get("thinking")).get("budget_tokens"),
        object_of(document.get("reasoning")).get("max_tokens"),
        document.get("thinking_budget"),
        object_of(google.get("thinking_config")).get("thinking_budget"),
    )
    thinking = max((budget for budget in budgets if type(budget) is int), default=0)
    predicted = object_of(document.get("prediction")).get("content")
    texts = [predicted, *(object_of(part).get("text") for part in list_of(predicted))]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts if isinstance(text, str))
    return min(max(thinking, 0) + -(-size // BYTES_PER_TOKEN), MOST_PLANNED)


def with_output_limit(call: Call, limit: int) -> Call:
    """
    The call with at most `limit` output tokens for each answer; a field that already asks for fewer stays as it is.

    The call is JSON of an operation that generates text. Raises `BadRequest` for a body that cannot be edited without
    guessing.
    """
    document = call.document or {}
    names = [name for name in (OLDER, NEWER) if name in document]
    if not names:
        newer = call.operation.name == "chat_completions" and KNOWS_NEWER_ONLY.match(call.base_model)
        names = [NEWER if newer else OLDER]
    edits = {name: limit for name in names if not _is_within(document.get(name), limit)}
    if not edits:
        return replace(call, output_limit=limit)
    body = splice(call.body, document, edits)
    return replace(
        call,
        body=body,
        document={**document, **edits},
        output_limit=limit,
        model_span=only_string(body, "model", call.model),
    )


def _is_within(value: object, limit: int) -> bool:
    return type(value) is int and 0 < value <= limit
