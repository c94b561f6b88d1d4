"""Which provider a channel's type number means."""

from collections.abc import Mapping

from ...config.channel import ChannelType
from .azure import AZURE
from .compatible import COMPATIBLE
from .deepseek import DEEPSEEK
from .perplexity import PERPLEXITY
from .provider import Provider

PROVIDERS: Mapping[ChannelType, Provider] = {
    provider.type: provider for provider in (*COMPATIBLE, AZURE, DEEPSEEK, PERPLEXITY)
}
