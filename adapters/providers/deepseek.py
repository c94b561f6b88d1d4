"""DeepSeek: OpenAI's chat, with completions still in the beta part of its API (api-docs.deepseek.com)."""

from ...config.channel import ChannelType
from .provider import Provider, Target, same_path


def address(target: Target) -> str:
    """`{base}/beta/completions` for completions, the caller's path for everything else."""
    if target.operation.name == "completions":
        return f"{target.root.removesuffix('/v1').removesuffix('/beta')}/beta/completions"
    return same_path(target)


DEEPSEEK = Provider(
    ChannelType.DEEPSEEK,
    "DeepSeek",
    "https://api.deepseek.com",
    frozenset({"chat_completions", "completions"}),
    address=address,
)
