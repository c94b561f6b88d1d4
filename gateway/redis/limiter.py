"""Limits that count over all processes of an installation: one script a request, on Redis' own clock."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from ...adapters.errors import Unavailable
from ...config.live import Live
from ...config.options import Options
from ...config.secret import Secret
from ...middleware.memory import MemoryLimiter
from ...middleware.ports import Admission, Check, LimitState, Places, Rate, Window
from .client import TIMEOUT, pool_of
from .line import TRY_EVERY, Away, Command, RedisLine
from .scripts import ADMIT, CHARGE, REFRESH

SECOND = 1_000_000
LEASE = 30.0
"""Seconds for which a place is held without a sign of life: so long it outlives a process that was killed."""
MOST_REFRESHED = 500


def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


ADMIT_DIGEST, CHARGE_DIGEST, REFRESH_DIGEST = _digest(ADMIT), _digest(CHARGE), _digest(REFRESH)


class RedisLimiter:
    """
    A `Limiter` for all processes that share a Redis and a prefix. Gives the answers that `MemoryLimiter` gives.

    While Redis is away the option `limits_without_redis` decides: `local` counts in this process, from nothing;
    `refuse` raises `Unavailable`. What was counted here stays here when Redis is back.
    """

    def __init__(
        self,
        line: RedisLine,
        *,
        options: Live[Options] | None = None,
        prefix: str = "tollway:",
        lease: float = LEASE,
    ) -> None:
        self.local_admissions = 0
        """Requests that were counted in this process, because Redis was away."""
        self._line = line
        self._options = options or Live(Options())
        self._prefix = prefix
        self._lease = lease
        self._local = MemoryLimiter()
        self._process = secrets.token_hex(8)
        self._number = 0
        self._held: dict[str, list[str]] = {}

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        url: Secret,
        *,
        options: Live[Options] | None = None,
        prefix: str = "tollway:",
        lease: float = LEASE,
        patience: float = TIMEOUT,
    ) -> AsyncGenerator["RedisLimiter"]:
        """
        A limiter with its connection, whether or not Redis is there now. `patience`: how long an exchange with Redis
        may take, `lease`: how long a place is held without a sign of life; both in seconds.

        Raises `SettingError` for a URL that is none.
        """
        line = RedisLine(pool_of(url), (ADMIT, CHARGE, REFRESH), timeout=patience)
        limiter = cls(line, options=options, prefix=prefix, lease=lease)
        await line.start()
        refreshing = asyncio.create_task(limiter._refresh())
        try:
            yield limiter
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
            await line.close()

    @property
    def is_up(self) -> bool:
        """Whether limits are counted in Redis now."""
        return self._line.is_up

    async def admit(self, checks: Sequence[Check]) -> Admission:
        if not self._line.is_up:
            return await self._admit_here(checks)
        self._number += 1
        ticket = f"{self._process}:{self._number}"
        command: list[str | int | float] = ["EVALSHA", ADMIT_DIGEST, len(checks)]
        command += [self._prefix + check.key for check in checks]
        command += (ticket, round(self._lease * SECOND))
        for check in checks:
            if type(check) is Rate:
                command += ("rate", check.limit, round(check.period * SECOND), check.cost)
            elif type(check) is Window:
                command += ("window", check.limit, round(check.period * SECOND), 1)
            else:
                command += ("places", check.limit, 0, 1)
        try:
            answer: list[int] = await self._line.ask(command)
        except (Away, asyncio.CancelledError) as error:
            # It may have arrived, or arrive yet, and nobody would give back what it took.
            self._free(ticket, [self._prefix + check.key for check in checks if type(check) is not Rate])
            if isinstance(error, Away):
                return await self._admit_here(checks)
            raise
        passed = answer[0] == 1
        held = [self._prefix + check.key for check in checks if type(check) is Places]
        if passed and held:
            self._held[ticket] = held
        answers = [
            LimitState(answer[at] / SECOND, check.limit, answer[at + 1], answer[at + 2] / SECOND)
            for at, check in zip(range(1, len(answer), 3), checks, strict=True)
        ]
        return RedisAdmission(self, passed, answers, ticket if passed else "")

    async def _admit_here(self, checks: Sequence[Check]) -> Admission:
        if self._options.current.limits_without_redis == "refuse":
            raise Unavailable("Limits cannot be checked now. Try again later.", retry_after=TRY_EVERY)
        self.local_admissions += 1
        return await self._local.admit(checks)

    def charge(self, rates: Sequence[Rate], cost: int) -> None:
        command: Command = (
            *("EVALSHA", CHARGE_DIGEST, len(rates)),
            *(self._prefix + rate.key for rate in rates),
            *(repr(cost * rate.period * SECOND / rate.limit) for rate in rates),
        )
        self._line.tell(command, instead=lambda: self._local.charge(rates, cost))

    def leave(self, ticket: str, give_back: Window | None) -> None:
        """The request of this ticket is over."""
        keys = self._held.pop(ticket, [])
        self._free(ticket, keys if give_back is None else [*keys, self._prefix + give_back.key])

    def _free(self, ticket: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._line.tell(("ZREM", key, ticket), keep=self._lease)

    async def _refresh(self) -> None:
        """Hold the places of requests that are still open; and find out, with none open, whether Redis is there."""
        while True:
            await asyncio.sleep(self._lease / 3)
            held = [(key, ticket) for ticket, keys in self._held.items() for key in keys]
            for at in range(0, len(held), MOST_REFRESHED):
                keys, tickets = zip(*held[at : at + MOST_REFRESHED], strict=True)
                lease = round(self._lease * SECOND)
                self._line.tell(("EVALSHA", REFRESH_DIGEST, len(keys), *keys, lease, *tickets))
            if not held:
                self._line.tell(("PING",))


class RedisAdmission:
    """What became of a request in Redis. `ticket` names it there; "" if it was refused or is over."""

    __slots__ = ("_limiter", "_ticket", "answers", "passed")

    def __init__(self, limiter: RedisLimiter, passed: bool, answers: Sequence[LimitState], ticket: str) -> None:
        self._limiter = limiter
        self._ticket = ticket
        self.passed = passed
        self.answers = answers

    def leave(self, *, give_back: Window | None = None) -> None:
        ticket, self._ticket = self._ticket, ""
        if ticket:
            self._limiter.leave(ticket, give_back)
