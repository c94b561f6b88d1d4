"""Providers that speak OpenAI's protocol as it is: a row each. Base URLs: each vendor's API reference."""

from ...config.channel import Channel, ChannelType
from ...config.secret import Secret
from ..outgoing import Headers
from .provider import TEXT_OPERATIONS, Provider, bearer, whole_url

CHAT = frozenset({"chat_completions"})


def openai_auth(key: Secret, channel: Channel) -> Headers:
    """A bearer key, and the organization to charge where the channel names one."""
    headers = bearer(key, channel)
    if channel.organization:
        headers.append((b"openai-organization", channel.organization.encode()))
    return headers


COMPATIBLE: tuple[Provider, ...] = (
    Provider(ChannelType.OPENAI, "OpenAI", "https://api.openai.com", auth=openai_auth),
    Provider(ChannelType.OPENAI_MAX, "OpenAIMax", "https://api.openaimax.com"),
    Provider(ChannelType.OH_MY_GPT, "OhMyGPT", "https://api.ohmygpt.com"),
    Provider(ChannelType.CUSTOM, "Custom", address=whole_url, key_needed=False),
    Provider(ChannelType.AILS, "AILS", "https://api.caipacity.com"),
    Provider(ChannelType.AI_PROXY, "AIProxy", "https://api.aiproxy.io"),
    Provider(ChannelType.API2GPT, "API2GPT", "https://api.api2gpt.com"),
    Provider(ChannelType.AIGC2D, "AIGC2D", "https://api.aigc2d.com"),
    Provider(ChannelType.AI360, "360", "https://api.360.cn", TEXT_OPERATIONS, stream_usage=False),
    Provider(ChannelType.OPENROUTER, "OpenRouter", "https://openrouter.ai/api", TEXT_OPERATIONS),
    Provider(ChannelType.FASTGPT, "FastGPT", "https://fastgpt.run/api/openapi", CHAT, stream_usage=False),
    Provider(ChannelType.MOONSHOT, "Moonshot", "https://api.moonshot.cn", CHAT),
    Provider(
        ChannelType.LINGYIWANWU, "LingYiWanWu", "https://api.lingyiwanwu.com", TEXT_OPERATIONS, stream_usage=False
    ),
    Provider(ChannelType.SILICONFLOW, "SiliconFlow", "https://api.siliconflow.cn"),
    Provider(
        ChannelType.MISTRAL, "Mistral", "https://api.mistral.ai", stream_usage=False, unsupported=("stream_options",)
    ),
    Provider(ChannelType.XINFERENCE, "Xinference", key_needed=False),
    Provider(ChannelType.XAI, "xAI", "https://api.x.ai", TEXT_OPERATIONS | {"images_generations"}),
    Provider(ChannelType.SUBMODEL, "Submodel", "https://llm.submodel.ai", CHAT),
    Provider(ChannelType.NEW_API, "New API"),
    Provider(ChannelType.ECHO, "Echo", "http://echo.invalid", transport="echo", key_needed=False),
)
