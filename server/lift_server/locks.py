"""Locks that all servers of a Redis share, over what takes several writes to Redis and store.

In: names. Out: turns. A lock is a lease: a server that dies with one keeps the others waiting for LEASE_S at most, and
one that is stopped for longer may find that another went on. Turns are awaited within a server, asked for between two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from lift_config.contract import lock_redis_key

log = logging.getLogger(__name__)

LEASE_S = 10.0
RENEW_S = LEASE_S / 4
ASK_S = 0.05


class LocalLocks:
    """Locks of this server alone, by name; one that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __call__(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


class Locks:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._local = LocalLocks()

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[None]:
        """Not reentrant. RedisError where Redis is away at the beginning; afterwards the caller's own writes tell."""
        lock = self._redis.lock(lock_redis_key(name), timeout=LEASE_S, sleep=ASK_S, thread_local=False)
        async with self._local(name):
            await lock.acquire()
            renewing = asyncio.create_task(_renew(lock, name))
            try:
                yield
            finally:
                renewing.cancel()
                await _release(lock, name)


async def _renew(lock: Lock, name: str) -> None:
    """Until cancelled, or until it is another's."""
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await lock.reacquire()
        except LockError:
            log.warning("the lock %s was lost: another server may go on", name)
            return
        except RedisError as error:
            log.warning("the lock %s was not renewed: %s", name, error)


async def _release(lock: Lock, name: str) -> None:
    """What cannot be let go now ends by itself after LEASE_S; what was done under it is done."""
    try:
        await lock.release()
    except RedisError as error:  # LockError is one: it was lost meanwhile
        log.warning("the lock %s was not let go: %s", name, error)
