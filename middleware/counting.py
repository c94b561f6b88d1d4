"""What was sent and delivered, counted, where an upstream does not report it or cannot be believed."""

from dataclasses import dataclass, field
from functools import partial

from ..adapters.call import Call
from ..adapters.media.vendor_rules import MediaOptions
from ..adapters.usage.chargeable import TEXT
from ..adapters.usage.prompt_texts import prompt_texts
from ..adapters.usage.token_estimates import Sent
from ..config.pricing import Usage
from .ports import TokenCounter
from .state import Outcome


@dataclass(frozen=True, slots=True)
class Counting:
    """How texts and media of a conversation are counted."""

    counter: TokenCounter
    media: MediaOptions = field(default_factory=MediaOptions)

    async def count(self, call: Call, outcome: Outcome, usage: Usage) -> tuple[Sent | None, int | None]:
        """
        What was sent, and the tokens that were delivered; None for what nobody needs to count.

        `usage` is what would be charged without: only what is estimated in it is counted.
        """
        if not usage.estimated or call.operation.name not in TEXT:
            return None, None
        model = outcome.upstream_model or call.base_model
        sent = delivered = None
        if outcome.usage is None or not outcome.usage.input_tokens:
            sent = Sent(*await self.counter.count(partial(prompt_texts, call, model, self.media), model))
        if outcome.delivered_tokens and outcome.read_texts is not None:
            delivered = (await self.counter.count(outcome.read_texts, model)).tokens
        return sent, delivered
