"""
The table `jobs`: work that one process does for all of an installation, from time to time.

Who has a job is told by conditional updates alone. A process that has one is alive for as long as its row in `holders`
is (see `leases`): no other clock is asked. A job's due time is one host's wall clock; where it lies further ahead than
any can, that clock was wrong, and the job is due.
"""

from sqlalchemy import and_, exists, not_, or_, select, update

from .schema import holders, jobs
from .store import Session, Store, Transaction


async def claim(store: Store, name: str, holder: str, *, now_ms: int, every_ms: int) -> int | None:
    """
    Take a job that is due and that no living process has. The number of this term, or None.

    A process that has it already takes it again: what it began was cut short.
    """
    due = or_(jobs.c.due_at <= now_ms, jobs.c.due_at > now_ms + every_ms)
    others = and_(holders.c.id == jobs.c.holder, holders.c.id != holder, holders.c.expired.is_(False))
    free = select(jobs.c.term).where(jobs.c.name == name, due, not_(exists().where(others)))

    async def work(transaction: Transaction) -> int | None:
        # Two statements: PostgreSQL, once it has waited for a row, does not look again at what the other table says.
        await transaction.one(select(jobs.c.term).where(jobs.c.name == name).with_for_update())
        row = await transaction.one(free)
        if row is None:
            return None
        term: int = row["term"] + 1
        await transaction.change(update(jobs).where(jobs.c.name == name).values(holder=holder, term=term))
        return term

    # Most of the time it is not free; to learn that, no writer has to wait.
    return await store.run(work) if await store.one(free) is not None else None


async def has(session: Session, name: str, term: int) -> bool:
    """Whether the job is still in this term, and so its process's."""
    return await session.one(select(jobs.c.term).where(jobs.c.name == name, jobs.c.term == term)) is not None


async def finish(store: Store, name: str, term: int, *, due_ms: int) -> bool:
    """The job is done until `due_ms`. False when another process has taken it meanwhile."""
    done = update(jobs).where(jobs.c.name == name, jobs.c.term == term).values(holder="", due_at=due_ms)
    return await store.change(done) == 1


async def add(store: Store, name: str) -> None:
    """Make the job known; one that is known stays as it is."""
    await store.upsert(jobs, {"name": name})
