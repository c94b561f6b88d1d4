"""An operator's own prices as they are stored, and the book that the relay charges by."""

from collections.abc import Iterable

from ...config.price_book import PriceBook
from ...config.pricing import Price, PriceError
from ..store import Store, prices
from ..store.records import PriceRow
from .failures import Failure


async def effective_prices(store: Store) -> PriceBook:
    """The prices that the relay uses: your own over the shipped ones. Raises `Failure`."""
    return PriceBook.builtin().merged(await own_prices(store))


async def own_prices(store: Store) -> dict[str, Price]:
    """Your own prices, by model. Raises `Failure`."""
    return read_prices(await prices.list_all(store))


def read_prices(rows: Iterable[PriceRow]) -> dict[str, Price]:
    """The prices in stored rows, by model. Raises `Failure`."""
    found: dict[str, Price] = {}
    for row in rows:
        try:
            found |= PriceBook.load(row.price).prices
        except PriceError as error:
            problem = f"the stored price of {row.model!r} cannot be used: {error}; see tollway price unset"
            raise Failure(problem) from None
    return found
