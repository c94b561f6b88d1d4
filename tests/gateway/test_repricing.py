"""Past charges at another price: corrected once, exactly, with everything that they change; on every engine."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace
from tollway.config.budget import BudgetKind, Period
from tollway.config.live import Live
from tollway.config.options import Options
from tollway.config.price import Price, PricePeriod
from tollway.config.pricing import Usage
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.config.tariff import Tariff
from tollway.gateway.ledger import open_ledger
from tollway.gateway.ledger.audit import audit
from tollway.gateway.ledger.opening import journal_folder
from tollway.gateway.repricing import Repricing, reprice
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, budgets, charges, corrections, hourly, leases, logs, tokens, users
from tollway.gateway.store.batch import Batch
from tollway.gateway.store.corrections import HOLDER, MOST_ROWS, Overtaken, correcting
from tollway.gateway.store.logs import LogFilter
from tollway.gateway.store.records import ChargeRecord, LogType

from tests.servers import Servers

# The store's own tests meet the other PostgreSQL too.
ENGINES = ["sqlite", "postgresql", "mariadb-local"]
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine_name", ENGINES, indirect=True)]

HOUR = 3_600_000
MADE_AT, NOW = 1_000_000 * HOUR, 1_000_030 * HOUR
GRANTED = 10_000
WRONG, RIGHT = Price("m", input=Decimal(4), output=Decimal(8)), Price("m", input=Decimal(2), output=Decimal(10))
ALL = LogFilter(type=int(LogType.CONSUME), model="m")


@dataclass
class World:
    """A user with a limited token and a daily budget, and where the logs are."""

    store: Store
    log_store: Store | None
    folder: Path
    user_id: int
    token_id: int
    period_id: int
    charges: int = 0

    @property
    def logs(self) -> Store:
        return self.log_store or self.store

    def record(self, price: Price = WRONG, ratio: str = "1", *, limited: bool = True) -> ChargeRecord:
        """100 tokens in and 10 out, at this price."""
        tariff, usage = Tariff(price, Decimal(ratio)), Usage(100, 10)
        return ChargeRecord(
            MADE_AT,
            self.user_id,
            tariff.quota(usage),
            username="ann",
            token_id=self.token_id,
            unlimited=not limited,
            channel_id=1,
            model="m",
            input_tokens=100,
            output_tokens=10,
            breakdown=orjson.loads(orjson.dumps(tariff.bill(usage))),
            request_id=f"r{self.charges}",
            duration_ms=1000,
            budgets=(self.period_id,),
        )

    async def charge(self, records: Iterable[ChargeRecord]) -> None:
        """As a process does that has ended since."""
        written = tuple(records)
        self.charges += 1
        holder = f"h{self.charges}"
        await leases.join(self.store, holder, host="", now_ms=1)
        batch = Batch(holder, 0, len(written), written)
        assert await charges.flush(self.store, batch, MADE_AT, with_logs=self.log_store is None)
        if self.log_store is not None:
            assert await charges.flush_logs(self.log_store, batch)
        await leases.leave(self.store, holder)

    async def reprice(self, price: Price, wanted: LogFilter = ALL) -> Repricing:
        async with correcting(self.store, self.log_store, NOW) as made:
            return await reprice(self.logs, price, wanted, NOW, made)

    async def spent(self) -> tuple[int, int, int, int]:
        """By the user, the token, the budget and the hours."""
        (user,), (token,) = await users.list_all(self.store), await tokens.all_kept(self.store)
        period = (await budgets.current(self.store, MADE_AT))[1]
        hours = await hourly.totals(self.logs, hourly.HourFilter())
        assert (user.quota, user.used_quota) == (GRANTED - user.used_quota, hours.quota)
        assert period.remain_quota == GRANTED - period.used_quota
        return user.used_quota, GRANTED - token.remain_quota, period.used_quota, hours.quota

    async def audited(self) -> None:
        found = await audit(self.store, self.log_store, journal_folder(self.folder))
        assert (found.differences, found.damages, found.waiting) == ([], [], 0)


@pytest.fixture(params=["logs beside", "logs apart"])
def log_url(request: pytest.FixtureRequest, engine_name: str, servers: Servers, tmp_path: Path) -> Iterator[str]:
    """The database of the logs; empty where they have none of their own."""
    if request.param == "logs beside":
        yield ""
        return
    (tmp_path / "logs").mkdir()
    databases = servers.databases(engine_name)
    url = databases.make(tmp_path / "logs")
    yield url
    databases.drop(url)


@pytest.fixture
async def world(database_url: str, log_url: str, tmp_path: Path) -> AsyncGenerator[World]:
    async with AsyncExitStack() as stack:
        store, log_store = Store(database_url), None
        await store.connect()
        stack.push_async_callback(store.close)
        if log_url:
            log_store = Store(log_url)
            await log_store.connect()
            stack.push_async_callback(log_store.close)
        user_id = await users.create(store, username="ann", quota=GRANTED, now_ms=1)
        vault = Vault(Secret("the secret of these tests"))
        token_id, _ = await tokens.create(store, vault, user_id=user_id, remain_quota=GRANTED, now_ms=1)
        budget = await budgets.put(
            store, BudgetKind.USER, str(user_id), Period.DAILY, amount=GRANTED, soft_percent=0, now_ms=MADE_AT
        )
        period = await budgets.begin(store, budget, MADE_AT)
        assert period is not None
        yield World(store, log_store, tmp_path, user_id, token_id, period.id)


async def test_whoever_paid_pays_the_difference_once(world: World) -> None:
    await world.charge([world.record(), world.record(ratio="2"), world.record(RIGHT)])
    assert await world.spent() == (240 + 480 + 150,) * 4
    for done in (await world.reprice(RIGHT), await world.reprice(RIGHT)):
        assert await world.spent() == (150 + 300 + 150,) * 4
        await world.audited()
        assert done.looked_at == 3
    assert (done.charges, done.quota) == (0, 0)


async def test_a_correction_is_an_event_that_refers_to_its_charge(world: World) -> None:
    await world.charge([world.record()])
    (before,) = await logs.find(world.logs, LogFilter())
    await world.reprice(RIGHT)
    event, charge = await logs.find(world.logs, LogFilter())
    assert charge == before
    assert (event.charge_id, event.type, event.created_at) == (f"{HOLDER}-1", LogType.CORRECTION, NOW)
    assert (event.request_id, event.quota, event.outcome) == (charge.charge_id, 150 - 240, "corrected")
    assert event.price_version == RIGHT.version
    assert event.breakdown == {"group_ratio": "1", "input": [100, "2"], "output": [10, "10"]}
    assert event.other == {"request_id": "r0", "charged": 150, "limited": True, "budgets": [world.period_id]}
    assert (event.input_tokens, event.output_tokens) == (0, 0)
    (user,) = await users.list_all(world.store)
    assert user.request_count == 1
    assert await hourly.totals(world.logs, hourly.HourFilter()) == hourly.Totals(1, 150, 100, 10, 0)
    assert await corrections.of(world.logs, [charge]) == (event,)


async def test_earlier_corrections_count(world: World) -> None:
    await world.charge([world.record()])
    for price, costs in ((RIGHT, 150), (Price("m", input=Decimal(1)), 50), (WRONG, 240), (Price("m"), 0), (RIGHT, 150)):
        await world.reprice(price)
        assert await world.spent() == (costs,) * 4
        await world.audited()


async def test_an_unlimited_token_goes_on_counting_only(world: World) -> None:
    await world.charge([world.record(limited=False)])
    await world.reprice(RIGHT)
    (token,) = await tokens.all_kept(world.store)
    assert (token.remain_quota, token.used_quota, token.free_quota) == (GRANTED, 150, 150)
    assert token.accessed_at == MADE_AT  # by the charge, not by the correction
    await world.audited()


async def test_the_price_is_that_of_the_time_of_the_call(world: World) -> None:
    """Not that of its end, which is what the row tells."""
    changed = datetime.fromtimestamp(MADE_AT / 1000 - 0.5, UTC)
    dated = Price("m", input=Decimal(4), output=Decimal(8), periods=(PricePeriod(None, changed, RIGHT),))
    await world.charge([world.record(), replace(world.record(), duration_ms=100)])
    done = await world.reprice(dated)
    assert (done.looked_at, done.charges, done.quota) == (2, 1, 150 - 240)


async def test_only_the_charges_that_are_wanted(world: World) -> None:
    await world.charge([world.record(), replace(world.record(), created_at=MADE_AT + 5)])
    await world.charge([replace(world.record(), model="n"), replace(world.record(), user_id=0)])
    for wanted, charges_ in (
        (LogFilter(type=2, model="m", since=MADE_AT + 1), 1),
        (LogFilter(type=2, model="m", user_id=world.user_id), 1),
        (ALL, 1),
        (LogFilter(type=2, model="n", until=MADE_AT), 0),
    ):
        assert (await world.reprice(RIGHT, wanted)).charges == charges_
    await world.audited()


async def test_hours_can_be_made_again(world: World) -> None:
    await world.charge([world.record(), replace(world.record(), created_at=MADE_AT + 2 * HOUR)])
    await world.reprice(RIGHT)
    assert await hourly.rebuild(world.logs, NOW) == 0
    assert await hourly.rebuild(world.logs, MADE_AT + 2 * HOUR) == 0


async def test_a_correction_is_charged_in_full_and_leases_are_asked_for(world: World) -> None:
    """The balance of 200 does not cover the 2,400 that are missing; a server holds 7,000 that nobody uses."""
    await world.charge([world.record() for _ in range(12)])
    await world.store.run(lambda transaction: users.add_quota(transaction, world.user_id, 20, now_ms=NOW))
    async with open_ledger(world.store, Settings(data_dir=world.folder), Live(Options())) as ledger:
        purse = ledger.core.user(world.user_id)
        await ledger.fund([purse], 7_000)
        purse.used_at = ledger.clock()  # or it would go back by itself
        free = purse.leased
        left = GRANTED + 20 - 12 * 240 - free
        dear = Price("m", input=Decimal(4) + Decimal(left + 100) / 12 / 50, output=Decimal(8))
        done = await world.reprice(dear)
        assert done.quota > left
        found = await audit(world.store, world.log_store, journal_folder(world.folder))
        assert found.differences == []
        for _ in range(60):  # it looks for leases that are wanted four times a second
            await asyncio.sleep(0.05 if purse.leased else 0)
        assert purse.leased == 0
        (user,) = await users.list_all(world.store)
        assert user.quota == free + left - done.quota
    await world.audited()


async def test_a_balance_may_fall_below_zero(world: World) -> None:
    await world.charge([world.record()])
    await world.reprice(Price("m", input=Decimal(1000)))
    (user,) = await users.list_all(world.store)
    assert user.quota == GRANTED - 50_000
    await world.audited()


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("step", ["before", "logged", "charged"])
async def test_who_is_cut_off_and_begins_again_corrects_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, batches: int, step: str
) -> None:
    """Killed in a batch: before it, between the two databases, and before its leases are given back."""
    count = 3 * MOST_ROWS
    await world.charge([replace(world.record(), created_at=MADE_AT + i) for i in range(count)])
    calls = 0
    module, name = {
        "before": (charges, "flush_logs" if world.log_store else "flush"),
        "logged": (charges, "flush"),
        "charged": (leases, "give_back_all"),
    }[step]
    real = getattr(module, name)

    async def cut(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls > batches:
            raise Killed
        return await real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, cut)
        patched.setattr(leases, "expire", lambda *_: asyncio.sleep(0))
        with pytest.raises(Killed):
            await world.reprice(RIGHT)
    found = await audit(world.store, world.log_store, journal_folder(world.folder))
    assert found.clean
    assert found.waiting == (MOST_ROWS if step == "logged" and world.log_store else 0)
    await world.reprice(RIGHT)
    assert await world.spent() == (count * 150,) * 4
    assert await leases.amounts(world.store, HOLDER) == {}
    assert (await world.reprice(RIGHT)).charges == 0
    await world.audited()


async def test_two_at_the_same_time_correct_nothing_twice(world: World) -> None:
    count = 2 * MOST_ROWS
    await world.charge([replace(world.record(), created_at=MADE_AT + i) for i in range(count)])
    ended = await asyncio.gather(*(world.reprice(RIGHT) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Repricing | Overtaken) for each in ended)
    assert any(isinstance(each, Repricing) for each in ended)
    await world.reprice(RIGHT)
    assert await world.spent() == (count * 150,) * 4
    await world.audited()
