"""
Options: what an operator may change while Tollway runs.

One frozen value, parsed from the `options` table (name -> text) and swapped whole when a row changes. Each field has
its default here, beside its name, unit and meaning, and nowhere else. Names are ours in snake case; New API's spelling
is accepted where it has the option (`NEW_API_NAMES`).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .price import read_cache_ratio


class OptionError(ValueError):
    """An option that is unknown, not of its type or out of its range. The message names it."""


def option(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    kind: str = "",
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A field. `parse` reads text that is not just a number, a switch or a list; `kind` then says what it has to be."""
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "low": low, "high": high, "kind": kind, "parse": parse}
    )


def one_of(*choices: str) -> dict[str, Any]:
    """For options that are a word out of these."""

    def parse(text: str) -> str:
        return choices[choices.index(text.strip().lower())]

    return {"kind": " or ".join(choices), "parse": parse}


MOST_IN_A_WINDOW = 100_000
"""A window keeps a number for each request in it, so there has to be a bound."""

GroupLimits = tuple[tuple[str, int, int], ...]
"""(group, requests, successful requests) each."""


def _group_limits(text: str) -> GroupLimits:
    """New API's `{"group": [requests, successful requests]}`. Raises `ValueError`."""
    found: dict[str, list[int]] = json.loads(text)
    return tuple(
        (str(group), _in_a_window(total), _in_a_window(successes)) for group, (total, successes) in found.items()
    )


def _in_a_window(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MOST_IN_A_WINDOW:
        raise ValueError
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """Every runtime option with its default. 0 means "no limit" wherever a limit is meant."""

    force_stream_usage: bool = option(
        True,
        "Ask the upstream for usage in every stream; the extra chunk is taken out again for clients that did not ask.",
    )
    retry_next: int = option(3, "How many further keys or channels a failing request may try.", low=0, high=50)
    retry_same: int = option(
        1, "How often a request goes round again when every key and channel has failed, after a pause.", low=0, high=5
    )
    retry_share: float = option(0.2, "Retries allowed, as a share of all requests (0 to 1).", low=0, high=1)
    retry_backoff_s: float = option(
        0.1, "Seconds before going round again; doubled each time, with jitter.", low=0, high=10
    )
    breaker_failures: int = option(
        5, "Upstream faults in a row that take a channel's key out of service for a model.", low=1, high=1000
    )
    breaker_cooldown_s: float = option(
        5.0, "Seconds a channel's key stays out at first; doubled each time.", low=0.1, high=3600
    )
    breaker_cooldown_max_s: float = option(300.0, "The longest such pause, in seconds.", low=1, high=86400)
    automatic_disable: bool = option(
        True,
        "Disable a channel's key when the upstream refuses the key itself (status 401 or a keyword).",
    )
    automatic_disable_keywords: tuple[str, ...] = option(
        (
            "your credit balance is too low",
            "this organization has been disabled.",
            "you exceeded your current quota",
            "permission denied",
            "the security token included in the request is invalid",
            "operation not allowed",
            "your account is not authorized",
        ),
        "Texts in an upstream's refusal that mean the key is dead; compared without case, one a line.",
    )
    affinity_seconds: float = option(
        3600.0,
        "How long a conversation prefers the channel and key that served it last; 0 turns it off.",
        low=0,
        high=86400,
    )
    requests_per_minute_user: int = option(
        0, "Requests a user may make in a minute, over all of his keys; 0: no limit.", low=0
    )
    tokens_per_minute_user: int = option(
        0, "Tokens a user may use in a minute, over all of his keys; 0: no limit.", low=0
    )
    parallel_requests_user: int = option(0, "Requests a user may have open at once; 0: no limit.", low=0)
    requests_per_minute_token: int = option(
        0, "Requests a key may make in a minute, unless it has its own limit; 0: no limit.", low=0
    )
    tokens_per_minute_token: int = option(
        0, "Tokens a key may use in a minute, unless it has its own limit; 0: no limit.", low=0
    )
    parallel_requests_token: int = option(
        0, "Requests a key may have open at once, unless it has its own limit; 0: no limit.", low=0
    )
    requests_per_minute_address: int = option(
        0, "Requests that one address (of IPv6: one network of 64 bits) may make in a minute; 0: no limit.", low=0
    )
    parallel_requests_address: int = option(
        0, "Requests that one address (of IPv6: one network of 64 bits) may have open at once; 0: no limit.", low=0
    )
    limits_without_redis: str = option(
        "local",
        "While Redis is away: local (each process counts for itself) or refuse (answer 503 to whom a limit applies).",
        **one_of("local", "refuse"),
    )
    model_request_limit: bool = option(
        False, "Limit each user's model requests by the three options below, over all of his keys."
    )
    model_request_minutes: int = option(1, "The window, in minutes, in which they are counted.", low=1, high=43_200)
    model_request_total: int = option(
        0,
        "Model requests, failed ones too, that a user may make in the window; 0: no limit.",
        low=0,
        high=MOST_IN_A_WINDOW,
    )
    model_request_successes: int = option(
        1000, "Successful model requests that a user may make in the window; 0: no limit.", low=0, high=MOST_IN_A_WINDOW
    )
    model_request_groups: GroupLimits = option(
        (),
        "Groups with numbers of their own in place of these two, as JSON: group -> [requests, successful requests].",
        kind=f'a JSON object of pairs of whole numbers from 0 to {MOST_IN_A_WINDOW}, such as {{"vip": [0, 5000]}}',
        parse=_group_limits,
    )
    default_max_tokens: int = option(
        4096,
        "Output tokens held for a request that sets no limit of its own (max_tokens).",
        low=1,
        high=10_000_000,
    )
    charge_interrupted: bool = option(
        False,
        "Charge what was held for requests that the gateway's own end cut off. Off: they cost nothing.",
    )
    accept_unknown_models: bool = option(
        False, "Serve models that have no price, at no charge, instead of refusing them."
    )
    clamp_max_tokens: bool = option(
        False,
        "Lower a request's output limit to what the balance affords instead of refusing it, down to one token; where it"
        " sets none, send default_max_tokens as its limit. No answer then costs more than was held for it, unless the"
        " upstream ignores the limit it was sent.",
    )
    quota_remind_threshold: int = option(
        0,
        "Tell the operator of a user whose balance falls below so much quota, once after each top-up; 0: never.",
        low=0,
        high=10**15,
    )
    prompt_cache_ratio: Decimal | None = option(
        None,
        "What a cached input token costs, as a share of an input token's price (0 to 1); empty: what the price says."
        " A channel's own ratio goes before it, and so does one in the price of a model.",
        kind="a number from 0 to 1, or empty",
        parse=read_cache_ratio,
    )
    log_retention_days: int = option(
        90,
        "Days that log rows are kept. 0: for ever. Hourly sums are kept for ever anyway.",
        low=0,
        high=36_500,
    )

    @classmethod
    def parse(
        cls,
        rows: Mapping[str, str],
        defaults: "Options | None" = None,
        *,
        on_bad: Callable[[str, OptionError], Any] | None = None,
    ) -> "Options":
        """
        Options from stored rows over `defaults`. Rows that are not options (other settings share the table) are passed
        over.

        Raises `OptionError` that names the option when a value is not of its type or out of range. With `on_bad`, that
        one is told the option's name and the error, and gives its value instead.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, text in rows.items():
            field = fields.get(NEW_API_NAMES.get(name, name))
            if field is None:
                continue
            try:
                values[field.name] = _parse(field, text)
            except OptionError as error:
                if on_bad is None:
                    raise
                values[field.name] = on_bad(field.name, error)
        return dataclasses.replace(defaults or cls(), **values)


NEW_API_NAMES: Mapping[str, str] = {
    "RetryTimes": "retry_next",
    "AutomaticDisableChannelEnabled": "automatic_disable",
    "AutomaticDisableKeywords": "automatic_disable_keywords",
    "SelfUseModeEnabled": "accept_unknown_models",
    "ModelRequestRateLimitEnabled": "model_request_limit",
    "ModelRequestRateLimitDurationMinutes": "model_request_minutes",
    "ModelRequestRateLimitCount": "model_request_total",
    "ModelRequestRateLimitSuccessCount": "model_request_successes",
    "ModelRequestRateLimitGroup": "model_request_groups",
    "QuotaRemindThreshold": "quota_remind_threshold",
}


def parse_option(name: str, text: str) -> Any:
    """The value of one option, checked. Raises `OptionError`, also for a name that is no option."""
    for field in dataclasses.fields(Options):
        if field.name == NEW_API_NAMES.get(name, name):
            return _parse(field, text)
    raise OptionError(f"{name} is no option")


def _parse(field: "dataclasses.Field[Any]", text: str) -> Any:
    low, high = field.metadata["low"], field.metadata["high"]
    parse: Callable[[str], Any] | None = field.metadata["parse"]
    default: object = field.default
    kind = field.metadata["kind"] or _kind(default)
    try:
        if parse is not None:
            return parse(text)
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        if isinstance(default, tuple):
            return tuple(line.strip().lower() for line in text.splitlines() if line.strip())
        value = int(text) if isinstance(default, int) else float(text)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise OptionError(f"{field.name} must be {kind}, not {text!r}") from None
    if not (low is None or value >= low) or not (high is None or value <= high):
        bounds = f"be at least {low}" if high is None else f"lie between {low} and {high}"
        raise OptionError(f"{field.name} must {bounds}, not {text!r}")
    return value


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return "a whole number" if isinstance(default, int) else "a number"
