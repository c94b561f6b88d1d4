"""
Options: what an operator may change while Tollway runs.

One frozen value, parsed from the `options` table (name -> text) and swapped whole when a row changes. Each field has
its default here, beside its name, unit and meaning, and nowhere else. Names are ours in snake case; New API's spelling
is accepted where it has the option (`NEW_API_NAMES`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class OptionError(ValueError):
    """An option that is unknown, not of its type or out of its range. The message names it."""


def option(default: Any, meaning: str, *, low: float | None = None, high: float | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


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
    requests_per_minute_user: int = option(0, "Requests a user may make in a minute, over all of his keys.", low=0)
    tokens_per_minute_user: int = option(0, "Tokens a user may use in a minute, over all of his keys.", low=0)
    parallel_requests_user: int = option(0, "Requests a user may have open at once.", low=0)
    requests_per_minute_token: int = option(
        0, "Requests a key may make in a minute, unless it has its own limit.", low=0
    )
    tokens_per_minute_token: int = option(0, "Tokens a key may use in a minute, unless it has its own limit.", low=0)
    parallel_requests_token: int = option(
        0, "Requests a key may have open at once, unless it has its own limit.", low=0
    )
    requests_per_minute_address: int = option(0, "Requests that one address may make in a minute.", low=0)
    parallel_requests_address: int = option(0, "Requests that one address may have open at once.", low=0)
    default_max_tokens: int = option(
        4096, "Output tokens reserved when a request sets no limit of its own.", low=1, high=10_000_000
    )
    accept_unknown_models: bool = option(
        False, "Serve models that have no price, at no charge, instead of refusing them."
    )

    @classmethod
    def parse(cls, rows: Mapping[str, str], defaults: "Options | None" = None) -> "Options":
        """
        Options from stored rows over `defaults`. Rows that are not options (other settings share the table) are passed
        over.

        Raises `OptionError` that names the option when a value is not of its type or out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, text in rows.items():
            field = fields.get(NEW_API_NAMES.get(name, name))
            if field is not None:
                values[field.name] = _parse(field, text)
        return dataclasses.replace(defaults or cls(), **values)


NEW_API_NAMES: Mapping[str, str] = {
    "RetryTimes": "retry_next",
    "AutomaticDisableChannelEnabled": "automatic_disable",
    "AutomaticDisableKeywords": "automatic_disable_keywords",
    "SelfUseModeEnabled": "accept_unknown_models",
}


def parse_option(name: str, text: str) -> Any:
    """The value of one option, checked. Raises `OptionError`, also for a name that is no option."""
    for field in dataclasses.fields(Options):
        if field.name == NEW_API_NAMES.get(name, name):
            return _parse(field, text)
    raise OptionError(f"{name} is no option")


def _parse(field: "dataclasses.Field[Any]", text: str) -> Any:
    low, high = field.metadata["low"], field.metadata["high"]
    default: object = getattr(Options(), field.name)
    kind = _kind(default)
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        if isinstance(default, tuple):
            return tuple(line.strip().lower() for line in text.splitlines() if line.strip())
        value = int(text) if isinstance(default, int) else float(text)
    except (KeyError, ValueError):
        raise OptionError(f"{field.name} must be {kind}, not {text!r}") from None
    if not (low is None or value >= low) or not (high is None or value <= high):
        raise OptionError(f"{field.name} must lie between {low} and {high}, not {text!r}")
    return value


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return "a whole number" if isinstance(default, int) else "a number"
