"""
Model names that say more than a model: `o3-mini-high` is `o3-mini` with high reasoning effort.

Only OpenAI's reasoning families carry an effort in their names; anybody else's `-high` is part of the name.
"""

import re
from dataclasses import dataclass

EFFORTS = ("xhigh", "high", "medium", "low", "minimal", "none")
EFFORT_SUFFIX = re.compile(rf"((?:o[134]|gpt-5(?:\.[0-9]+)?)(?:-.*)?)-({'|'.join(EFFORTS)})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name taken apart: the model itself, and the reasoning effort that the name asked for, if it did."""

    base: str
    effort: str | None = None


def parse_model(name: str) -> ModelName:
    """`gpt-5-mini-high` gives (`gpt-5-mini`, `high`); names without a known suffix come back as they are."""
    match = EFFORT_SUFFIX.fullmatch(name)
    return ModelName(match[1], match[2]) if match else ModelName(name)
