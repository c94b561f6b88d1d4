"""A running gateway as the tests use it: accounts and channels made in its store, charges read from its log."""

import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tollway.config.channel import Channel, ChannelType
from tollway.config.secret import Secret
from tollway.gateway.app import Tollway
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, channels, logs, tokens, users
from tollway.gateway.store.records import LogRow

from .running import Served
from .wire import MODEL, Answer, OpenRequest, ask

T = TypeVar("T")

DOLLAR = 500_000
_numbers = itertools.count(1)


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Account:
    """A user with one token. The group is the account's own, so that its channels are nobody else's."""

    user_id: int
    token_id: int
    key: str
    group: str


async def new_account(
    store: Store, vault: Vault, *, quota: int = DOLLAR, token_group: str = "", **token: Any
) -> Account:
    """`token`: fields of the token, which is unlimited if none is given."""
    number = next(_numbers)
    group = f"group-{number}"
    user_id = await users.create(store, username=f"user-{number}", group=group, quota=quota, now_ms=now_ms())
    limits = token or {"unlimited": True}
    token_id, key = await tokens.create(
        store, vault, user_id=user_id, name=f"token-{number}", group=token_group, now_ms=now_ms(), **limits
    )
    return Account(user_id, token_id, key.reveal(), group)


async def new_channel(store: Store, vault: Vault, group: str, url: str = "", **fields: Any) -> Channel:
    """A channel that serves `group`: of type Echo, or an OpenAI one at `url`."""
    given: dict[str, Any] = {
        "name": f"channel-{next(_numbers)}",
        "type": ChannelType.OPENAI if url else ChannelType.ECHO,
        "models": (MODEL,),
        "keys": (Secret("sk-upstream"),) if url else (),
        "base_url": url,
        "groups": (group,),
    }
    return await channels.create(store, vault, Channel(id=0, **given | fields), now_ms=now_ms())


@dataclass(frozen=True)
class Balance:
    """What the database holds: the user's quota, the token's remainder, and what both have used."""

    quota: int
    used: int
    requests: int
    token_remains: int
    token_used: int


class Gateway:
    """A served `Tollway`. What is changed through it is in force when the call returns, without waiting for a poll."""

    def __init__(self, app: Tollway, served: Served) -> None:
        self.app = app
        self.served = served
        self.address = served.address
        assert app.snapshot is not None
        assert app.ledger is not None
        self.snapshot = app.snapshot
        self.ledger = app.ledger

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def change(self, work: Callable[[Store, Vault], Awaitable[T]]) -> T:
        """The result of `work(store, vault)` on the server's loop, once the server has taken the change over."""

        async def on_loop() -> T:
            result = await work(self.snapshot.store, self.snapshot.vault)
            await self.snapshot.poll()
            return result

        return self.served.run(on_loop())

    def account(self, **fields: Any) -> Account:
        return self.change(lambda store, vault: new_account(store, vault, **fields))

    def channel(self, account: Account, url: str = "", **fields: Any) -> Channel:
        return self.change(lambda store, vault: new_channel(store, vault, account.group, url, **fields))

    def ask(self, path: str, account: Account, body: Any = None, **options: Any) -> Answer:
        return ask(self.address, path, account.key, body, **options)

    def chat(self, account: Account, body: Any, **options: Any) -> Answer:
        return self.ask("/v1/chat/completions", account, body, **options)

    def open_chat(self, account: Account, body: dict[str, Any]) -> OpenRequest:
        return OpenRequest(self.address, account.key, body)

    def charges(self, account: Account) -> list[LogRow]:
        """The account's charges, oldest first, once everything that is settled has been written."""

        async def on_loop() -> list[LogRow]:
            await self.ledger.flush()
            found = await logs.find(self.snapshot.store, logs.LogFilter(user_id=account.user_id))
            return list(reversed(found))

        return self.served.run(on_loop())

    def charge(self, account: Account, within: float = 2.0) -> LogRow:
        """The account's one charge, waited for: the client may have its answer before the last layer is left."""
        give_up = time.monotonic() + within
        while not (found := self.charges(account)) and time.monotonic() < give_up:
            time.sleep(0.005)
        assert len(found) == 1, found
        return found[0]

    def held(self, account: Account) -> tuple[int, int]:
        """What is held of user and token at this moment."""
        core = self.ledger.core
        purses = core.users.get(account.user_id), core.tokens.get(account.token_id)
        user, token = (0 if purse is None else purse.held for purse in purses)
        return user, token

    def balance(self, account: Account) -> Balance:
        async def on_loop() -> Balance:
            await self.ledger.flush()
            user = await users.by_id(self.snapshot.store, account.user_id)
            (token,) = await tokens.by_ids(self.snapshot.store, [account.token_id])
            assert user is not None
            return Balance(user.quota, user.used_quota, user.request_count, token.remain_quota, token.used_quota)

        return self.served.run(on_loop())
