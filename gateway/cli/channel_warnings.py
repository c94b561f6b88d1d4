"""What an operator should hear of a channel that was stored as it was asked for: it may not be what was meant."""

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
