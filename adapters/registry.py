"""Which provider a channel's type number means."""

from collections.abc import Mapping

from ..config.channel import ChannelType
from .provider import Provider
from .providers.azure import AZURE
from .providers.compatible import COMPATIBLE
from .providers.deepseek import DEEPSEEK
from .providers.perplexity import PERPLEXITY

PROVIDERS: Mapping[ChannelType, Provider] = {
    provider.type: provider for provider in (*COMPATIBLE, AZURE, DEEPSEEK, PERPLEXITY)
}
