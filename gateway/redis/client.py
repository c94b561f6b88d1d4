"""The way to Redis: from the setting to connections that give up soon."""

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ...config.secret import Secret
from ...config.settings import SettingError

TIMEOUT = 0.25
"""Seconds. Redis answers in a thousandth or two, or it is away."""
MOST_CONNECTIONS = 4
FAILURES = (RedisError, OSError, TimeoutError)
"""Whatever says that Redis cannot be used now."""


def pool_of(url: Secret) -> ConnectionPool:
    """
    Connections to `redis://`, `rediss://` or `unix://`. None is opened yet, and nothing is retried: who asks decides
    what happens without Redis, and how long to wait for it.

    Raises `SettingError`, which does not show the URL, for it may hold a password.
    """
    try:
        return ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url.reveal(),
            max_connections=MOST_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=TIMEOUT,
            decode_responses=True,
            client_name="tollway",
        )
    except (ValueError, TypeError):
        raise SettingError("REDIS_CONN_STRING is no URL of a Redis: redis://user:password@host:port/number") from None
