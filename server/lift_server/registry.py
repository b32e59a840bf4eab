"""The engines that are registered in Redis (setting engine.registered), followed as they come and go; the workers.

In: Redis. Out: the engines that the server asks. What Redis does not tell while it is away, or has just lost its data,
is no reason to forget an engine that answers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lift_config.contract import ENGINES_KEY, WORKER_PREFIX, EngineRecord, engine_redis_key
from lift_server.engine import Engine

log = logging.getLogger(__name__)

LOOK_S = 2.0
MISSES = 5  # looks at a Redis that answers, without the engine: more than it needs to register again


class Registry:
    """`base_model` and `base_revision`: of the adapters there are; engines with another one cannot answer from them."""

    def __init__(self, redis: Redis, engine: Engine, base_model: str, base_revision: str) -> None:
        self._redis, self._engine = redis, engine
        self._base = (base_model, base_revision)
        self._missed: dict[str, int] = {}  # of every address that is told, or was lately
        self._known: set[str] = set()
        self._strangers: set[str] = set()

    async def follow(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        try:
            told = await registered(self._redis)
            here = {url for url, record in told.items() if record and self._is_ours(record)}
            self._tell_of_strangers({url for url, record in told.items() if record} - here)
            self._missed = {
                url: 0 if told.get(url) else self._missed.get(url, 0) + 1 for url in self._missed.keys() | told.keys()
            }
            await self._forget({url for url, times in self._missed.items() if times >= MISSES})
        except RedisError as error:
            log.warning("the engines were not looked up: %s", error)
            return
        for url in here - self._known:
            log.info("engine %s is registered", url)
        self._known = (self._known & self._missed.keys()) - self._strangers | here
        self._engine.know(sorted(self._known))

    async def _forget(self, urls: set[str]) -> None:
        """Out of the set too: an engine that was killed left its address there. One that lives will add it again."""
        for url in urls:
            del self._missed[url]
            log.warning("engine %s is registered no more", url)
        if urls:
            await self._redis.srem(ENGINES_KEY, *urls)

    def _is_ours(self, record: EngineRecord) -> bool:
        return (record.base_model, record.base_revision) == self._base

    def _tell_of_strangers(self, urls: set[str]) -> None:
        for url in sorted(urls - self._strangers):
            log.warning("engine %s is not asked: it serves another base model or revision than %s", url, self._base)
        self._strangers = urls


async def workers(redis: Redis) -> list[str]:
    """The names of those that hold a lease."""
    found = redis.scan_iter(f"{WORKER_PREFIX}*", count=1000)
    return sorted([str(key).removeprefix(WORKER_PREFIX) async for key in found])


async def registered(redis: Redis) -> dict[str, EngineRecord | None]:
    """Each engine by its address; None where its lease has ended, or says nothing of use."""
    urls = sorted(map(str, await redis.smembers(ENGINES_KEY)))
    told: list[Any] = await redis.mget([engine_redis_key(url) for url in urls]) if urls else []
    return {url: _read(url, record) for url, record in zip(urls, told, strict=True)}


def _read(url: str, record: str | None) -> EngineRecord | None:
    try:
        return EngineRecord.from_json(record) if record else None
    except ValueError as error:
        log.warning("engine %s is not asked: %s", url, error)
        return None
