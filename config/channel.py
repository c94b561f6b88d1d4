"""A channel: one configured upstream account, with its models, keys, routing figures and overrides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal

from .masking import masked, secrets_in_fields, secrets_in_headers
from .secret import Secret

Disconnect = Literal["cancel", "drain"]
KeyMode = Literal["random", "polling"]

LONGEST_MODEL = 255
"""Characters of a model's name, wherever one is named: in a request, a channel or a price."""

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class ChannelStatus(IntEnum):
    """New API's numbers. Only `ENABLED` takes traffic; only `AUTO_DISABLED` is ever enabled again by a passing test."""

    ENABLED = 1
    DISABLED = 2
    AUTO_DISABLED = 3


class ChannelType(IntEnum):
    """
    Which provider a channel speaks to. The numbers are New API's and never change; from 1000 on they are ours.

    28, 29, 30 and 32 were never used there and are not used here.
    """

    OPENAI = 1
    AZURE = 3
    OPENAI_MAX = 6
    OH_MY_GPT = 7
    CUSTOM = 8
    AILS = 9
    AI_PROXY = 10
    API2GPT = 12
    AIGC2D = 13
    AI360 = 19
    OPENROUTER = 20
    FASTGPT = 22
    MOONSHOT = 25
    PERPLEXITY = 27
    LINGYIWANWU = 31
    SILICONFLOW = 40
    MISTRAL = 42
    DEEPSEEK = 43
    XINFERENCE = 47
    XAI = 48
    SUBMODEL = 53
    NEW_API = 60
    ECHO = 1000


@dataclass(frozen=True, slots=True)
class Channel:
    """
    One upstream account as the relay sees it: an immutable snapshot of a row, with its keys decrypted.

    `priority`: higher tiers are tried first. `weight`: share of the traffic inside a tier; 0 beside a positive weight
    is tried last. `models` are the names clients use; `model_mapping` says what the upstream calls them.
    `disconnect`: what happens when the client hangs up: `cancel` stops the upstream and charges what was delivered,
    `drain` reads on to learn the usage. `disabled_keys` holds indexes into `keys`. `prompt_cache_ratio`: what a cached
    input token costs here, as a share of an input token's price (0 to 1), or None for what the price says.

    `repr` leaves out what operators may write a secret into besides the keys.
    """

    id: int
    name: str
    type: ChannelType
    models: tuple[str, ...]
    keys: tuple[Secret, ...] = ()
    base_url: str = field(default="", repr=False)
    groups: tuple[str, ...] = ("default",)
    priority: int = 0
    weight: int = 1
    status: ChannelStatus = ChannelStatus.ENABLED
    key_mode: KeyMode = "random"
    disabled_keys: frozenset[int] = frozenset()
    model_mapping: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    status_code_mapping: Mapping[int, int] = field(default_factory=lambda: NOTHING)
    header_override: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)
    param_override: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    disconnect: Disconnect = "cancel"
    auto_ban: bool = True
    api_version: str = ""
    organization: str = ""
    test_model: str = ""
    proxy: str = field(default="", repr=False)
    tag: str = ""
    prompt_cache_ratio: Decimal | None = None

    def without_secrets(self, text: str) -> str:
        """What an upstream has said, with what it repeats of the channel's secrets masked (see `masking`)."""
        keys = (key.reveal() for key in self.keys)
        overrides = secrets_in_headers(self.header_override), secrets_in_fields(self.param_override)
        return masked(text, chain(keys, *overrides))

    def bytes_without_secrets(self, data: bytes) -> bytes:
        """The same of what has not been decoded."""
        return self.without_secrets(data.decode("latin-1")).encode("latin-1")


class MappingCycle(ValueError):
    """A `model_mapping` that leads back to a name it came from."""


def mapped_model(mapping: Mapping[str, str], model: str) -> str:
    """
    The upstream's name of `model`: followed as a chain (a -> b -> c gives c). A name mapped to itself ends the chain.

    Raises `MappingCycle` on a longer cycle.
    """
    seen = {model}
    while (target := mapping.get(model)) is not None and target != model:
        if target in seen:
            raise MappingCycle(f"model_mapping leads from {target!r} back to itself")
        seen.add(target)
        model = target
    return model
