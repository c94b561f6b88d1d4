"""The table `prices`: an operator's own prices, over those that are shipped."""

from collections.abc import Mapping

from sqlalchemy import delete as delete_from
from sqlalchemy import select

from . import changes
from .records import PriceRow
from .schema import prices
from .store import Session, Transaction


async def list_all(session: Session) -> tuple[PriceRow, ...]:
    """Every price that was set, by model."""
    rows = await session.all(select(prices))
    # Not by the database, whose order of texts may be that of a language.
    return tuple(sorted((PriceRow(**row) for row in rows), key=lambda row: row.model))


async def put(session: Session, model: str, price: str, *, now_ms: int) -> None:
    """Set the price of a model, as text that the caller has parsed once and so knows to be a price."""
    await put_many(session, {model: price}, now_ms=now_ms)


async def put_many(session: Session, texts: Mapping[str, str], *, now_ms: int) -> None:
    """Set the prices of these models, by name, all or none. They are one change, for whoever sees it loads them all."""
    # In one order, whoever writes: those who set the same prices at once wait for each other and do not cross.
    rows = [(model, text, now_ms) for model, text in sorted(texts.items())]

    async def work(transaction: Transaction) -> None:
        await transaction.replace(prices, ("model", "price", "updated_at"), rows)
        if rows:
            await changes.note(transaction, "price", 0, now_ms=now_ms)

    await session.run(work)


async def delete(session: Session, model: str, *, now_ms: int) -> bool:
    """Back to the shipped price. False if none was set."""

    async def work(transaction: Transaction) -> bool:
        if not await transaction.change(delete_from(prices).where(prices.c.model == model)):
            return False
        await changes.note(transaction, "price", 0, now_ms=now_ms)
        return True

    return await session.run(work)
