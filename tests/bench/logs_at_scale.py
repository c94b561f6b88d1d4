"""
Questions to a log of millions of rows, on each engine; what a request costs in writes; what retention does to writers.

    python tests/bench/logs_at_scale.py --rows 5000000 --engines sqlite postgresql-local mariadb-local

Fills a new database with a month of rows (`tests/many_logs.py`), asks for pages of 100 and for sums of hours, prints
the indexes that were used and the times, writes batches of charges, removes old rows while others are written, and
drops the database. Exits with 1 where an answer took more than 100 ms, or where charges are written less than twice as
fast as one process makes them at most (`--peak`).
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from sqlalchemy import Select, func, select, text
from tollway.gateway.store import Store, hourly, logs, spending
from tollway.gateway.store.schema import hourly as hours

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import log_writes

from tests.many_logs import BEGIN, END, PAGES, SUMS, Asked, fill, plan_of
from tests.servers import ENGINES, Servers

MOST_MS = 100.0
TIMES = 5
SHOWN = 400
INDEX = re.compile(r"\b(?:ix|pk)_\w+|\bPRIMARY\b|sqlite_autoindex_\w+")

Question = Callable[[Any], Awaitable[object]]


def questions(far: int) -> Iterator[tuple[str, Question]]:
    """What is asked, by name. `far`: the id of a row in the middle, behind which a page begins."""
    for name, wanted in PAGES.items():
        yield f"page: {name}", lambda session, wanted=wanted: logs.find(session, wanted)
    for name in ("newest", "user", "user, rare", "channel and model, rarely together"):
        yield f"deep page: {name}", lambda session, name=name: logs.find(session, PAGES[name], before=far)
    for name, wanted in SUMS.items():
        yield f"sums: {name}", lambda session, wanted=wanted: hourly.totals(session, wanted)
    of_user = hours.c.user_id == 0, hours.c.hour >= BEGIN
    yield "sums: a user's month by model", lambda session: session.all(_spent(hours.c.model).where(*of_user))
    yield "sums: a user's month by hour", lambda session: session.all(_spent(hours.c.hour).where(*of_user))
    yield "sums: the month by hour", lambda session: session.all(_spent(hours.c.hour).where(hours.c.hour >= BEGIN))
    yield "sums: the last week by user", lambda session: spending.spent_lately(session, "user_id", END)
    yield "sums: the last week by token", lambda session: spending.spent_lately(session, "token_id", END)


def _spent(by: Any) -> Select[Any]:
    return select(by, func.sum(hours.c.quota).label("quota"), func.sum(hours.c.requests).label("requests")).group_by(by)


async def ask_all(store: Store, rows: int, *, show_plans: bool) -> list[str]:
    """Print a line for each question; those that took too long."""
    slow: list[str] = []
    for name, question in questions(rows // 2):
        asked, taken = Asked(store), list[float]()
        for _ in range(TIMES):
            asked.queries.clear()
            begun = time.perf_counter()
            await question(asked)
            taken.append((time.perf_counter() - begun) * 1000)
        plans = [await plan_of(store, query) for query in asked.queries]
        used = dict.fromkeys(index for plan in plans for index in INDEX.findall(plan))
        print(f"{name:<52} first {taken[0]:6.1f} ms, median {median(taken):6.1f} ms   {', '.join(used)}", flush=True)
        for plan in plans if show_plans else ():
            print(f"    {plan[:SHOWN]}")
        if median(taken) > MOST_MS:
            slow.append(f"{store.address.dialect}: {name} took {median(taken):.0f} ms")
    return slow


async def measure(url: str, rows: int, peak: int, *, show_plans: bool) -> list[str]:
    store = Store(url)
    await store.connect()
    try:
        begun = time.perf_counter()
        await fill(store, rows)
        print(f"{rows:,} rows and their hours, made in {time.perf_counter() - begun:.0f} s")
        if store.address.dialect == "postgresql":
            await store.change(text("ANALYZE logs"))
            await store.change(text("ANALYZE usage_hourly"))
        slow = await ask_all(store, rows, show_plans=show_plans)
        slow += await log_writes.write(store, peak)
        await log_writes.retain(store)
        return slow
    finally:
        await store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--peak", type=int, default=2_000, help="requests a second that one process can serve")
    parser.add_argument("--plans", action="store_true", help="show what the databases say they do")
    given = parser.parse_args()
    servers, slow = Servers(), list[str]()
    try:
        for name in given.engines:
            print(f"\n{name}")
            try:
                databases = servers.databases(name)
            except pytest.skip.Exception as reason:
                print(f"left out: {reason}")
                continue
            with tempfile.TemporaryDirectory(prefix="tollway-logs-") as folder:
                url = databases.make(Path(folder))
                try:
                    slow += asyncio.run(measure(url, given.rows, given.peak, show_plans=given.plans))
                finally:
                    databases.drop(url)
    finally:
        servers.close()
    print("\n".join(slow) or "\nEvery answer came in time, and the charges are written fast enough.")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
