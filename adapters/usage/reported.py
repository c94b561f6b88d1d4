"""
Usage as OpenAI's dialect reports it: `prompt_tokens` includes cached and audio tokens, `completion_tokens` reasoning.

Also read: `input_tokens` / `output_tokens` (images, transcription), the `seconds` of transcriptions that are charged by
duration, and what vendors and gateways that speak this dialect add to it:

- cache reads: DeepSeek's `prompt_cache_hit_tokens`, Moonshot's `cached_tokens`, Anthropic's `cache_read_input_tokens`;
- cache writes: OpenRouter's `cache_write_tokens`, Anthropic's `cache_creation_input_tokens` and `cache_creation`, the
  same under LiteLLM's, New API's and Alibaba's names;
- tool calls: Anthropic's and OpenRouter's `server_tool_use`, Perplexity's `num_search_queries`, xAI's
  `num_sources_used`.
"""

from collections.abc import Mapping
from decimal import ROUND_UP, Context, Decimal
from typing import Any, TypeGuard

from msgspec.structs import astuple, replace

from ...config.pricing import Usage
from ...config.usage import ToolCalls
from ..json_shapes import EMPTY, list_of, object_of

MOST_TOKENS = 1 << 31
"""No answer is longer than this; what an upstream reports beyond it is a defect of the upstream's."""
MOST_CALLS = 100
"""The same for the calls of a tool; no more are held for either (`web_searches`)."""
SECOND_DECIMALS = 18
"""More than a float has at a tenth of a second."""

PLAIN_FIELDS = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
"""The three totals and the two details: what a usage has that says nothing else."""
BESIDES = frozenset(
    {
        "cache_creation",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "claude_cache_creation_1_h_tokens",
        "claude_cache_creation_5_m_tokens",
        "num_search_queries",
        "num_sources_used",
        "server_tool_use",
    }
)
"""What vendors say beside them that has a price."""
PLAIN_DETAILS = frozenset({"cached_tokens", "audio_tokens"})
"""What the details of a prompt have that say nothing else."""
WRITTEN = ("cache_write_tokens", "cached_creation_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
"""Tokens written to a cache, among the details of a prompt: OpenRouter's, New API's, LiteLLM's and Alibaba's name."""


def read_usage(answer: Mapping[str, Any]) -> Usage | None:
    """
    The usage in a whole answer or in one event of a stream; None when it reports none.

    Moonshot reports it among the choices, alone or beside a usage that leaves out what was cached.
    """
    usage = object_of(answer.get("usage"))
    found = usage_from(usage) if usage else None
    for choice in map(object_of, list_of(answer.get("choices"))):
        if (inside := object_of(choice.get("usage"))) and (of_choice := usage_from(inside)) is not None:
            found = of_choice if found is None else merge_usage(of_choice, found)
    return found


def usage_from(usage: Mapping[str, Any]) -> Usage | None:
    """
    A `usage` object as `Usage`; None when it holds no count at all, so that the call is estimated and not given away.

    What is negative or no whole number is no count; what is beyond reason counts as 2^31, and a part beyond its whole
    as the whole: a usage that had to be mended so is `suspicious`. Some vendors leave reasoning out of
    `completion_tokens`; where their total says so, it is added, also where nothing but the total tells of it.
    """
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is int and type(completion) is int and 0 < prompt <= MOST_TOKENS and 0 < completion <= MOST_TOKENS:
        if len(usage) == 3 and usage.get("total_tokens") == prompt + completion:
            return Usage(prompt, completion)
        inputs = object_of(usage.get("prompt_tokens_details"))
        outputs = object_of(usage.get("completion_tokens_details"))
        if (inputs and outputs) or usage.keys() <= PLAIN_FIELDS:
            return _with_details(usage, prompt, completion, inputs, outputs)
    return _Report(usage).usage()


def merge_usage(earlier: Usage, later: Usage) -> Usage:
    """
    What two reports of one answer say together: of each count the larger.

    A stream may report its input at its beginning and its output at its end, or a growing sum in every event; a zero in
    the last one takes nothing back. Reports that shrink contradict each other, and make the usage `suspicious`.
    """
    merged = Usage(*map(max, astuple(earlier), astuple(later)))
    if earlier.tool_calls and later.tool_calls:
        first, second = dict(earlier.tool_calls), dict(later.tool_calls)
        most = {tool: max(first.get(tool, 0), second.get(tool, 0)) for tool in sorted(first | second)}
        merged = replace(merged, tool_calls=tuple(most.items()))
    if 0 < later.input_tokens < earlier.input_tokens or 0 < later.output_tokens < earlier.output_tokens:
        return replace(merged, suspicious=True)
    return merged


def usage_of_both(one: Usage, other: Usage) -> Usage:
    """What two answers to one request used, each with a report of its own: the request once, and both outputs."""
    both = merge_usage(one, other)
    return replace(
        both,
        output_tokens=one.output_tokens + other.output_tokens,
        output_image_tokens=one.output_image_tokens + other.output_image_tokens,
        output_audio_tokens=one.output_audio_tokens + other.output_audio_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        suspicious=one.suspicious or other.suspicious,
    )


def bounded_seconds(seconds: Decimal) -> Decimal:
    """
    A length above 0 and below 2^31, in seconds, with at most 18 decimals, rounded up. A bill is exact or an error, and
    hundreds of digits, which an upstream may write, do not fit into one.
    """
    exponent = seconds.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -SECOND_DECIMALS:
        return seconds.quantize(Decimal(1).scaleb(-SECOND_DECIMALS), ROUND_UP, Context(prec=28))
    return seconds


def _with_details(
    usage: Mapping[str, Any], prompt: int, completion: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Usage | None:
    """The totals with the parts that text has, in the usual form; everything else is left to `_Report`."""
    cached, reasoning = inputs.get("cached_tokens", 0), outputs.get("reasoning_tokens", 0)
    if (
        type(cached) is not int
        or type(reasoning) is not int
        or not 0 <= cached <= prompt
        or not 0 <= reasoning <= completion
        or inputs.get("audio_tokens")
        or outputs.get("audio_tokens")
        or outputs.get("image_tokens")
        or (not inputs.keys() <= PLAIN_DETAILS and (inputs.get("image_tokens") or any(map(inputs.get, WRITTEN))))
        or (not usage.keys() <= PLAIN_FIELDS and not BESIDES.isdisjoint(usage))
        or (not cached and ("prompt_cache_hit_tokens" in usage or "cached_tokens" in usage))
        or usage.get("total_tokens") != prompt + completion
    ):
        return _Report(usage).usage()
    return Usage(prompt, completion, cached, reasoning_tokens=reasoning)


class _Report:
    """One report, read with care. `odd`: it held a number that cannot be true."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.report = report
        self.inputs = _parts(report, "prompt_tokens_details", "input_tokens_details", "input_token_details")
        self.outputs = _parts(report, "completion_tokens_details", "output_tokens_details", "output_token_details")
        self.odd = False
        self.counted = False
        """It held a count, be it 0."""

    def usage(self) -> Usage | None:
        report, inputs, outputs = self.report, self.inputs, self.outputs
        prompt = self.total("prompt_tokens", "input_tokens")
        completion = self.total("completion_tokens", "output_tokens")
        tools = self.tool_calls()
        if not prompt and not completion:
            return self.without_parts(tools)
        cached = (
            self.count(inputs, "cached_tokens")
            or self.count(report, "prompt_cache_hit_tokens")
            or self.count(report, "cached_tokens")
            or self.count(report, "cache_read_input_tokens")
        )
        short, long = self.written()
        if self.leaves_out_cache(prompt, cached + short + long):
            prompt = min(prompt + cached + short + long, MOST_TOKENS)
        reasoning = self.count(outputs, "reasoning_tokens")
        if reasoning and self.count(report, "total_tokens") == prompt + completion + reasoning:
            completion = min(completion + reasoning, MOST_TOKENS)
        elif not reasoning and (unseen := self.unseen(prompt, completion)):
            reasoning, completion = unseen, min(completion + unseen, MOST_TOKENS)
        return Usage(
            input_tokens=prompt,
            output_tokens=completion,
            cached_tokens=self.part(cached, prompt),
            cache_write_5m_tokens=self.part(short, prompt),
            cache_write_1h_tokens=self.part(long, prompt),
            input_audio_tokens=self.part(self.count(inputs, "audio_tokens"), prompt),
            input_image_tokens=self.part(self.count(inputs, "image_tokens"), prompt),
            output_audio_tokens=self.part(self.count(outputs, "audio_tokens"), completion),
            output_image_tokens=self.part(self.count(outputs, "image_tokens"), completion),
            reasoning_tokens=self.part(reasoning, completion),
            tool_calls=tools,
            suspicious=self.odd,
        )

    def unseen(self, prompt: int, completion: int) -> int:
        """
        Output that is in the total alone: Google's thinking. A report with a field of any other name is left alone, for
        its total may hold what that field counts: seconds of sound, for one.
        """
        if not prompt or "completion_tokens" not in self.report or not self.report.keys() <= PLAIN_FIELDS:
            return 0
        return max(self.count(self.report, "total_tokens") - prompt - completion, 0)

    def without_parts(self, tools: ToolCalls) -> Usage | None:
        """A usage without input and output tokens: of seconds, of a mere total, or of nothing."""
        seconds = self.report.get("seconds")
        if _is_number(seconds) and 0 < seconds < MOST_TOKENS:
            return Usage(seconds=bounded_seconds(Decimal(str(seconds))), tool_calls=tools, suspicious=self.odd)
        self.odd = self.odd or (_is_number(seconds) and seconds != 0)
        total = self.count(self.report, "total_tokens")
        if total or tools or self.counted or self.odd:
            return Usage(input_tokens=total, tool_calls=tools, suspicious=self.odd)
        return None

    def written(self) -> tuple[int, int]:
        """Tokens written to a cache for five minutes, and for an hour. Where only their sum is told, five minutes."""
        inputs = self.inputs
        parts = object_of(self.report.get("cache_creation") or inputs.get("cache_creation"))
        parts = parts or object_of(inputs.get("cache_creation_token_details"))
        short = self.count(parts, "ephemeral_5m_input_tokens")
        short = short or self.count(self.report, "claude_cache_creation_5_m_tokens")
        long = self.count(parts, "ephemeral_1h_input_tokens")
        long = long or self.count(self.report, "claude_cache_creation_1_h_tokens")
        both = self.count(self.report, "cache_creation_input_tokens")
        for name in WRITTEN:
            both = both or self.count(self.inputs, name)
        return max(short, both - long), long

    def leaves_out_cache(self, prompt: int, cache: int) -> bool:
        """Whether the prompt is that of Anthropic's API, which counts what was cached beside it."""
        if not cache or not ("cache_read_input_tokens" in self.report or "cache_creation_input_tokens" in self.report):
            return False
        return not self.report.get("prompt_tokens") or cache > prompt

    def tool_calls(self) -> ToolCalls:
        report = self.report
        searches = (
            self.count(object_of(report.get("server_tool_use")), "web_search_requests")
            or self.count(report, "num_search_queries")
            or self.count(report, "num_sources_used")
        )
        return (("web_search", self.part(searches, MOST_CALLS)),) if searches else ()

    def total(self, name: str, other: str) -> int:
        self.counted = self.counted or any(_is_count(self.report.get(each)) for each in (name, other))
        return self.count(self.report, name) or self.count(self.report, other)

    def count(self, table: Mapping[str, Any], name: str) -> int:
        value = table.get(name)
        if not value:
            return 0
        if not _is_count(value):
            self.odd = self.odd or _is_number(value)
            return 0
        return self.part(int(value), MOST_TOKENS)

    def part(self, count: int, whole: int) -> int:
        if count <= whole:
            return count
        self.odd = True
        return whole


def _parts(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The details under the first of these names that has any; transcriptions say `token` where others say `tokens`."""
    for name in names:
        if parts := object_of(usage.get(name)):
            return parts
    return EMPTY


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    # A whole number too large for 64 bits is read as a float, and some vendors write 12.0.
    return (type(value) is int or (type(value) is float and value.is_integer())) and value >= 0
