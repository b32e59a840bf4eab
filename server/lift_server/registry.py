"""The engines that are registered in Redis (setting engine.registered), followed as they come and go.

In: Redis. Out: the engines that the server asks. What Redis does not tell while it is away, or has just lost its data,
is no reason to forget an engine that answers.
"""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.contract import ENGINES_KEY, EngineRecord, engine_redis_key
from lift_server.engine import Engine

log = logging.getLogger(__name__)

LOOK_S = 2.0
MISSES = 5  # looks at a Redis that answers, without the engine: more than it needs to register again


class Registry:
    """`base_model` and `base_revision`: of the adapters there are; engines with another one cannot answer from them."""

    def __init__(self, redis: Redis, engine: Engine, base_model: str, base_revision: str) -> None:
        self._redis, self._engine = redis, engine
        self._base = (base_model, base_revision)
        self._missed: dict[str, int] = {}  # of each engine that is known
        self._strangers: set[str] = set()

    async def follow(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        try:
            told = await registered(self._redis)
        except RedisError as error:
            log.warning("the engines were not looked up: %s", error)
            return
        here = {url for url, record in told.items() if (record.base_model, record.base_revision) == self._base}
        self._tell_of_strangers(told.keys() - here)
        missed = {url: 0 if url in here else self._missed.get(url, 0) + 1 for url in self._missed.keys() | here}
        for url in here - self._missed.keys():
            log.info("engine %s is registered", url)
        for url in [url for url, times in missed.items() if times >= MISSES]:
            log.warning("engine %s is registered no more", url)
            del missed[url]
        self._missed = missed
        await self._engine.know(sorted(missed))

    def _tell_of_strangers(self, urls: set[str]) -> None:
        for url in sorted(urls - self._strangers):
            log.warning("engine %s is not asked: it serves another base model or revision than %s", url, self._base)
        self._strangers = urls


async def registered(redis: Redis) -> dict[str, EngineRecord]:
    """Each engine with a lease, by its address."""
    urls = sorted(map(str, await redis.smembers(ENGINES_KEY)))
    told = await redis.mget([engine_redis_key(url) for url in urls]) if urls else []
    return {url: EngineRecord.from_json(record) for url, record in zip(urls, told, strict=True) if record}
