"""What an operator should hear of a channel that was stored as it was asked for: it may not be what was meant."""

from urllib.parse import urlsplit

from ...adapters.providers.provider import whole_url
from ...adapters.providers.registry import PROVIDERS
from ...adapters.requests.model_suffix import parse_model
from ...config.channel import Channel
from ...config.options import OptionError, Options
from ..store import Store, options
from ..store.names import meant_by
from .failures import Failure
from .own_prices import effective_prices


async def namesakes(store: Store, channel: Channel) -> list[str]:
    """Names need not be unique, but whoever looks for one of two of a name may find the other."""
    others = [other for other in await meant_by(store, "channel", channel.name) if other != channel.id]
    return [f"another channel has this name: {', '.join(map(str, others))}"] if others else []


def without_path(channel: Channel) -> list[str]:
    """A base URL that stops where others do, of a type that asks it as it stands. It is not shown: it may be secret."""
    if PROVIDERS[channel.type].address is not whole_url:
        return []
    url = urlsplit(channel.base_url)
    if url.query or url.path.rstrip("/") not in {"", "/v1"}:
        return []
    return [
        "a Custom channel sends every request to its base URL as it stands; OpenAI's paths are appended to it by"
        " --type openai"
    ]


async def unpriced(store: Store, channel: Channel) -> list[str]:
    """The models that would be refused for want of a price."""
    try:
        if Options.parse(await options.list_all(store)).accept_unknown_models:
            return []
        book = await effective_prices(store)
    except (Failure, OptionError):
        return []  # The channel is stored: what is wrong with other rows is for their own commands to say.
    without = [model for model in channel.models if book.price_for(model, parse_model(model).base) is None]
    if not without:
        return []
    verdict = "has no price, so it is" if len(without) == 1 else "have no price, so they are"
    return [f"{', '.join(without)} {verdict} not served; see `tollway price set`"]
