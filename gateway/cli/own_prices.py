"""An operator's own prices as they are stored, and the book that the relay charges by."""

from collections.abc import Mapping

from ...config.price_book import PriceBook
from ...config.pricing import Price, PriceError
from ..store import Store, prices
from ..store.records import PriceRow
from .failures import Failure


async def effective_prices(store: Store) -> PriceBook:
    """The prices that the relay uses: your own over the shipped ones. Raises `Failure`."""
    rows = await prices.list_all(store)
    return PriceBook.builtin().merged({model: price for row in rows for model, price in own_of(row).items()})


def own_of(row: PriceRow) -> Mapping[str, Price]:
    try:
        return PriceBook.load(row.price).prices
    except PriceError as error:
        raise Failure(f"the stored price of {row.model!r} cannot be used: {error}; see tollway price unset") from None
