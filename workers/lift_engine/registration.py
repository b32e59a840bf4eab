"""Tells Redis where this engine is, as long as its core lives (setting engine.registered).

In: its address, what it serves. Out: a lease that servers and workers find it by, renewed until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.contract import ENGINE_LEASE_S, ENGINES_KEY, EngineRecord, engine_redis_key

logger = logging.getLogger(__name__)

RENEW_S = ENGINE_LEASE_S / 4


class Core(Protocol):
    """The part of vLLM's AsyncLLM used here."""

    @property
    def errored(self) -> bool: ...


async def stay_registered(redis: Redis, address: str, record: EngineRecord, core: Core) -> None:
    """Until cancelled, as at the process's end, or the core is dead; either takes the engine out at once. Redis may be
    away meanwhile, or lose its data."""
    renewing: list[asyncio.Task[None]] = []
    try:
        while not core.errored:
            # By itself: redis-py, in Python 3.11, may swallow a cancellation.
            renewing = [asyncio.create_task(_renew(redis, address, record))]
            try:
                await asyncio.shield(renewing[0])
            except RedisError as error:
                logger.warning("this engine's registration was not renewed: %s", error)
            await asyncio.sleep(RENEW_S)
    finally:
        await asyncio.gather(*renewing, return_exceptions=True)  # told above, or of no more interest
        await _leave(redis, address)


async def _renew(redis: Redis, address: str, record: EngineRecord) -> None:
    async with redis.pipeline() as pipe:
        pipe.sadd(ENGINES_KEY, address)
        pipe.set(engine_redis_key(address), record.to_json(), px=int(ENGINE_LEASE_S * 1000))
        await pipe.execute()


async def _leave(redis: Redis, address: str) -> None:
    try:
        async with redis.pipeline() as pipe:
            pipe.srem(ENGINES_KEY, address)
            pipe.delete(engine_redis_key(address))
            await pipe.execute()
    except RedisError as error:
        logger.warning("this engine's registration ends by itself: %s", error)
