"""A call with a lower limit of output than its client has set, in the client's own bytes otherwise."""

import re

from msgspec.structs import replace

from .call import Call
from .splice import only_string, splice

OLDER, NEWER = "max_tokens", "max_completion_tokens"
"""Most vendors know the older name; OpenAI's reasoning models refuse it."""
KNOWS_NEWER_ONLY = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9])")


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
