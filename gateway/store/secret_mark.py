"""
The mark by which a database knows its `CRYPTO_SECRET` again (`Vault.mark`): a row of `options` that is no option.

Who writes under another secret than that of the mark would write what nobody can read.
"""

from sqlalchemy import select

from . import options as option_rows
from .schema import options
from .store import Session, Store, Transaction

NAME = "crypto_secret_fingerprint"


async def read(session: Session) -> str | None:
    """The mark; None in a database that nobody has opened with a secret yet."""
    row = await session.one(select(options.c.value).where(options.c.key == NAME))
    return None if row is None else row["value"]


async def set_first(store: Store, mark: str) -> str:
    """Leave it where there is none yet, and return what there is."""
    return await option_rows.set_first(store, NAME, mark)


async def replace(transaction: Transaction, mark: str) -> None:
    """Of several who would at once, each has its turn only if it has noted a change before."""
    await transaction.upsert(options, {"key": NAME, "value": mark})
