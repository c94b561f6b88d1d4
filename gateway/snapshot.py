"""
Everything the relay looks up, in memory, and kept true by polling the store's change list.

Loaded whole at the start; afterwards a change reloads its own row (tokens, users) or its own table (the small ones).
The relay itself never asks the store.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..config.groups import GroupError, GroupRatios
from ..config.live import Live
from ..config.options import OptionError, Options
from ..config.price_book import PriceBook
from ..config.pricing import Price, PriceError
from ..middleware.memory import MemoryChannelPool
from ..middleware.state import Candidate, Principal
from .secrets_at_rest import CannotDecrypt, Vault
from .store import Store, StoreError, changes, channels, groups, options, prices, tokens, users
from .store.records import Role, TokenRow, TokenStatus, UserRow, UserStatus

log = logging.getLogger("tollway.snapshot")

POLL_EVERY = 0.5
REFRESH_EVERY = 0.2

BalancesChanged = Callable[[Collection[int], Collection[int]], None]


def _nobody(user_ids: Collection[int], token_ids: Collection[int]) -> None:
    """Nobody has asked to be told."""


async def _to_nobody() -> None:
    """Nobody listens: the others poll."""


class TokenIndex:
    """Who owns which key, by the key's keyed hash: the keys themselves are nowhere."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._principals: dict[str, Principal] = {}
        self._hashes: dict[int, str] = {}

    def find(self, key: str) -> Principal | None:
        return self._principals.get(self._vault.token_hash(key))

    def put(self, token: TokenRow, principal: Principal) -> None:
        self.drop(token.id)
        self._principals[token.key_hash] = principal
        self._hashes[token.id] = token.key_hash

    def keep(self, token_ids: Set[int]) -> None:
        """Drop all others."""
        for token_id in self._hashes.keys() - token_ids:
            self.drop(token_id)

    def drop(self, token_id: int) -> None:
        key_hash = self._hashes.pop(token_id, None)
        if key_hash is not None:
            self._principals.pop(key_hash, None)


class CurrentPrices(Live[PriceBook]):
    """The price book as it is now."""

    def price_for(self, model: str, base_model: str) -> Price | None:
        return self.current.price_for(model, base_model)


class CurrentRatios(Live[GroupRatios]):
    """The groups' ratios as they are now."""

    def ratio(self, user_group: str, used_group: str) -> Decimal:
        return self.current.ratio(user_group, used_group)


class Snapshot:
    """The relay's view of the store."""

    def __init__(self, store: Store, vault: Vault, *, defaults: Options) -> None:
        self.store = store
        self.vault = vault
        self.options = Live(defaults)
        self.tokens = TokenIndex(vault)
        self.prices = CurrentPrices(PriceBook.builtin())
        self.ratios = CurrentRatios(GroupRatios())
        self.pool = MemoryChannelPool(options=self.options, on_dead_key=self._on_dead_key)
        self.balances_changed: BalancesChanged = _nobody
        """Told of the users and tokens whose rows were changed."""
        self.all_changed: Callable[[], Awaitable[None]] = _to_nobody
        """Called when everything was loaded, at the start or because changes may have been missed."""
        self.tell_others: Callable[[], Awaitable[None]] = _to_nobody
        """Called when this process has written what others should see before they next poll."""
        self._defaults = defaults
        self._builtin = self.prices.current
        self._own_prices: Mapping[str, Mapping[str, Price]] = {}
        """By the name in its row, as it could be read last."""
        self._group_options = self.ratios.current
        self._enabled_again: set[tuple[int, int]] = set()
        """Keys that were disabled and are not any more: id of the channel, index."""
        self._seen = 0
        self._refreshed = 0.0
        self._next_refresh: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Everything. Raises `StoreError`."""
        seen = await changes.latest(self.store)
        await self._load_options()
        await self._load_prices()
        await self._load_channels()
        await self._load_all_tokens()
        await self.all_changed()
        self._seen = seen  # not before all of it is loaded: who fails half way has yet to see what he missed

    async def run(self) -> None:
        """Follow the change list for as long as the process serves. A store that is away is asked again."""
        while True:
            await asyncio.sleep(POLL_EVERY)
            try:
                await self.poll()
            except StoreError as error:
                log.warning("changes cannot be read now: %s", error)
            except Exception:
                # A row that cannot be understood must not end the watch over all others.
                log.exception("a change cannot be taken over; the relay goes on with what it knows")

    async def refresh(self) -> None:
        """
        Take over what is new, for somebody who misses something. Five times a second at most, whoever asks: all who
        wait share one look, which begins after they came.
        """
        if self._next_refresh is None:
            self._next_refresh = task = asyncio.create_task(self._refresh())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.shield(self._next_refresh)

    async def _refresh(self) -> None:
        await asyncio.sleep(self._refreshed + REFRESH_EVERY - time.monotonic())
        self._refreshed = time.monotonic()
        self._next_refresh = None
        try:
            await self.poll()
        except StoreError as error:
            log.warning("changes cannot be read now: %s", error)

    async def poll(self) -> None:
        """Take over what has changed since the last time."""
        async with self._polling:
            await self._poll()

    async def _poll(self) -> None:
        try:
            found = await changes.since(self.store, self._seen)
        except changes.Forgotten:
            log.warning("changes may have been missed: everything is loaded again")
            return await self.load()
        if found:
            kinds = {change.kind for change in found}
            if kinds & {"option", "group"}:
                await self._load_options()
            if "price" in kinds:
                await self._load_prices()
            if "channel" in kinds:
                await self._load_channels()
            user_ids = {change.ref for change in found if change.kind == "user"}
            token_ids = {change.ref for change in found if change.kind == "token"}
            if kinds & {"option", "group"}:  # which groups a user may use has changed, for any of them
                await self._load_all_tokens()
            else:
                await self._reload(user_ids, token_ids)
            self.balances_changed(user_ids, token_ids)
            self._seen = found[-1].id

    async def _reload(self, user_ids: set[int], token_ids: set[int]) -> None:
        kept = {token.id: token for token in await tokens.by_ids(self.store, token_ids)} if token_ids else {}
        for token_id in token_ids - kept.keys():
            self.tokens.drop(token_id)
        for user_id in user_ids:
            for token in await tokens.of_user(self.store, user_id):
                kept[token.id] = token
        owners = user_ids | {token.user_id for token in kept.values()}
        if owners:
            await self._load_tokens(await users.by_ids(self.store, owners), kept.values())

    async def _load_all_tokens(self) -> None:
        owners, rows = await users.list_all(self.store), await tokens.all_kept(self.store)
        self.tokens.keep({row.id for row in rows})
        await self._load_tokens(owners, rows)

    async def _load_tokens(self, owners: Iterable[UserRow], rows: Iterable[TokenRow]) -> None:
        owners, rows = tuple(owners), tuple(rows)
        by_id = {owner.id: owner for owner in owners}
        for token in rows:
            owner = by_id.get(token.user_id)
            if owner is None or owner.deleted_at is not None:
                self.tokens.drop(token.id)
            else:
                self.tokens.put(token, principal_of(token, owner, self.ratios.current))

    async def _load_options(self) -> None:
        rows = await options.list_all(self.store)
        self.options.swap(Options.parse(rows, self._defaults, on_bad=self._keep_option))
        own = {group.name: group.ratio for group in await groups.list_all(self.store)}
        try:
            self._group_options = GroupRatios.from_options(rows)
        except GroupError as error:
            log.error("the options of groups stay as they were: %s", error)
        set_here = self._group_options
        try:
            self.ratios.swap(replace(set_here, ratios={**set_here.ratios, **own}))
        except GroupError as error:
            log.error("the groups' ratios stay as they were: %s", error)

    def _keep_option(self, name: str, error: OptionError) -> Any:
        log.error("the option %s stays as it was: %s", name, error)
        return getattr(self.options.current, name)

    async def _load_prices(self) -> None:
        own: dict[str, Mapping[str, Price]] = {}
        for row in await prices.list_all(self.store):
            try:
                own[row.model] = PriceBook.load(row.price).prices
            except PriceError as error:
                log.error("the price of %s stays as it was: %s", row.model, error)
                own[row.model] = self._own_prices.get(row.model, {})
        self._own_prices = own
        self.prices.swap(self._builtin.merged({name: price for row in own.values() for name, price in row.items()}))

    async def _load_channels(self) -> None:
        before = {channel.id: channel.disabled_keys for channel in self.pool.index.channels}
        found = await channels.list_all(self.store, self.vault, on_locked=_log_locked)
        for channel in found:
            enabled = before.get(channel.id, frozenset()) - channel.disabled_keys
            self._enabled_again.update((channel.id, index) for index in enabled)
        self.pool.replace(found)

    def _on_dead_key(self, candidate: Candidate, reason: str) -> None:
        task = asyncio.create_task(self._disable_key(candidate, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _disable_key(self, candidate: Candidate, reason: str) -> None:
        channel, index, now_ms = candidate.channel, candidate.key_index, int(time.time() * 1000)
        key = channel.keys[index] if channel.keys else None
        # A request that was on its way while its key was disabled, or another put in its place, says nothing new; nor
        # does one of before the key was enabled again: then only a channel as it is now can tell.
        current = next((each for each in self.pool.index.channels if each.id == channel.id), None)
        if (
            current is None
            or index in current.disabled_keys
            or ((channel.id, index) in self._enabled_again and channel is not current)
            or current.keys[index : index + 1] != channel.keys[index : index + 1]
        ):
            return
        try:
            disabled = await channels.disable_key(
                self.store, self.vault, channel.id, index, reason=reason, now_ms=now_ms, key=key
            )
        except (StoreError, CannotDecrypt) as error:
            log.error("channel %d has a dead key that cannot be written off now: %s", channel.id, error)
            return
        if disabled is not None:  # by this request, and not by another one a moment before
            log.warning("channel %d (%s): key %d is disabled: %s", channel.id, channel.name, index, reason)
            await self.tell_others()


def principal_of(token: TokenRow, owner: UserRow, ratios: GroupRatios) -> Principal:
    """The token and its owner as the relay sees them."""
    group = token.group or owner.group
    disabled = ""
    if owner.status is not UserStatus.ENABLED:
        disabled = "user"
    elif token.status is TokenStatus.DISABLED:
        disabled = "token"
    elif group != owner.group and group not in ratios.usable(owner.group):
        disabled = "group"
    return Principal(
        token_id=token.id,
        user_id=owner.id,
        token_name=token.name,
        username=owner.username,
        group=group,
        user_group=owner.group,
        is_admin=owner.role >= Role.ADMIN,
        unlimited=token.unlimited,
        models=None if token.models is None else frozenset(token.models),
        networks=token.allow_ips or (),
        expires_at=0.0 if token.status is TokenStatus.EXPIRED else token.expires_at and token.expires_at / 1000,
        disabled=disabled,
        exhausted=token.status is TokenStatus.EXHAUSTED,
        requests_per_minute=token.requests_per_minute,
        tokens_per_minute=token.tokens_per_minute,
        parallel_requests=token.parallel_requests,
    )


def _log_locked(channel_id: int, error: Exception) -> None:
    log.error("channel %d is left out: %s", channel_id, error)
