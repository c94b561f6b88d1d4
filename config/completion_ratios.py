"""
New API's completion ratios of models that its `CompletionRatio` has no entry for: rules by name, the first that fits.

A locked rule goes before the entry as well, but for names of the form vendor/model. Known to be wrong for many a model
(gpt-4.1, o4-mini, deepseek): they are here so that what is taken over from New API costs what it did there.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from .price import ONE

Fits = Callable[[str], bool]


class Rule(NamedTuple):
    fits: Fits
    ratio: Decimal
    locked: bool = False


def starting(*prefixes: str) -> Fits:
    return lambda model: model.startswith(prefixes)


def ending(*suffixes: str) -> Fits:
    return lambda model: model.endswith(suffixes)


def named(*names: str) -> Fits:
    return lambda model: model in names


def holding(*parts: str) -> Fits:
    return lambda model: any(part in model for part in parts)


def _whole_gpt_5(model: str) -> bool:
    return model.startswith("gpt-5") and "." not in model


def _older_gpt_4_turbo(model: str) -> bool:
    return model.startswith("gpt-4-turbo") or model.endswith(("gpt-4-1106", "gpt-4-1105"))


def _flash_preview_without_thinking(model: str) -> bool:
    return model.startswith("gemini-2.5-flash-preview") and model.endswith("-nothinking")


D = Decimal
RULES = (
    Rule(ending("-all", "-gizmo-*"), D(2)),
    Rule(named("gpt-4o-2024-05-13"), D(3), locked=True),
    Rule(starting("gpt-4o-mini-tts"), D(20)),
    Rule(starting("gpt-4o"), D(4)),
    Rule(_whole_gpt_5, D(8), locked=True),
    Rule(starting("gpt-5.4-nano"), D("6.25"), locked=True),
    Rule(starting("gpt-5.4"), D(6), locked=True),
    Rule(starting("gpt-5."), D(6)),
    Rule(starting("gpt-4.5-preview"), D(2), locked=True),
    Rule(_older_gpt_4_turbo, D(3), locked=True),
    Rule(starting("gpt-"), D(2)),
    Rule(starting("o1", "o3"), D(4), locked=True),
    Rule(named("chatgpt-4o-latest"), D(3), locked=True),
    Rule(holding("claude-3", "claude-sonnet-4", "claude-opus-4", "claude-haiku-4"), D(5), locked=True),
    Rule(starting("mistral-"), D(3), locked=True),
    Rule(starting("gemini-1.5", "gemini-2.0"), D(4), locked=True),
    Rule(starting("gemini-2.5-pro"), D(8)),
    Rule(_flash_preview_without_thinking, D(4)),
    Rule(starting("gemini-2.5-flash-preview"), D("23.333333333333336")),  # 3.5 / 0.15, in the floats it is made of
    Rule(starting("gemini-2.5-flash-lite"), D(4)),
    Rule(starting("gemini-2.5-flash", "gemini-robotics-er-1.5"), D("8.333333333333334")),  # 2.5 / 0.3
    Rule(starting("gemini-3-pro-image"), D(60)),
    Rule(starting("gemini-3-pro"), D(6)),
    Rule(starting("gemini-"), D(4)),
    Rule(named("command-r"), D(3), locked=True),
    Rule(named("command-r-plus"), D(5), locked=True),
    Rule(named("command-r-08-2024", "command-r-plus-08-2024"), D(4), locked=True),
    Rule(starting("command"), D(4)),
    Rule(starting("ERNIE-Speed-", "ERNIE-Lite-", "ERNIE-Character", "ERNIE-Functions"), D(2), locked=True),
    Rule(named("llama2-70b-4096"), D("1.25"), locked=True),
    Rule(named("llama3-8b-8192"), D(2), locked=True),
    Rule(named("llama3-70b-8192"), D("1.3389830508474578"), locked=True),  # 0.79 / 0.59
)


def completion_ratio(model: str, entries: Mapping[str, Decimal]) -> Decimal:
    """What output costs relative to input, with these entries of `CompletionRatio`."""
    entry = entries.get(model)
    if entry is not None and "/" in model:
        return entry
    rule = next((rule for rule in RULES if rule.fits(model)), None)
    if rule is not None and (rule.locked or entry is None):
        return rule.ratio
    return ONE if entry is None else entry
