"""Perplexity: OpenAI's chat, without the version in the path (docs.perplexity.ai)."""

from ...config.channel import ChannelType
from .provider import Provider, Target


def address(target: Target) -> str:
    return f"{target.root}/chat/completions"


PERPLEXITY = Provider(
    ChannelType.PERPLEXITY,
    "Perplexity",
    "https://api.perplexity.ai",
    frozenset({"chat_completions"}),
    address=address,
    stream_usage=False,
    unsupported=("stream_options",),
)
