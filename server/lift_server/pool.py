"""A server's connections to Redis: as many as help, however many requests come at once.

In: an address. Out: clients whose commands wait for a connection, and transactions that leave the others some.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline

CONNECTIONS = 32
TRANSACTIONS = 16  # each holds a connection while it looks with another


def connect(url: str, **options: Any) -> Redis:
    """A thousand questions at once would each open a connection of their own, and most would time out before Redis
    accepts them. ConnectionError for a command that got none within 20 s (redis-py's default)."""
    return Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, **options))


class Transactions:
    """WATCHes that run at once: were they to hold all connections, none could go on."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._running = asyncio.Semaphore(TRANSACTIONS)

    @asynccontextmanager
    async def __call__(self, *watched: str) -> AsyncIterator[Pipeline]:
        """A pipeline that looks until `multi`. WatchError from its `execute` where one of `watched` changed since."""
        async with self._running, self._redis.pipeline() as pipe:
            await pipe.watch(*watched)
            yield pipe
