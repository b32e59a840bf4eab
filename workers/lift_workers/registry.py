"""Where the engines are: as the settings say, or as they are registered in Redis (setting engine.registered).

In: settings, Redis. Out: addresses, asked for before every round through them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from lift_config.contract import ENGINES_KEY, EngineRecord, engine_redis_key
from lift_config.settings import Settings

logger = logging.getLogger(__name__)

LookUp = Callable[[], Awaitable[Sequence[str]]]

LOOK_S = 2.0


def engines(settings: Settings, redis: Redis) -> LookUp:
    return Registered(redis, settings).urls if settings.engine.registered else fixed(settings.engine_urls)


def fixed(urls: Sequence[str]) -> LookUp:
    async def look_up() -> Sequence[str]:
        return urls

    return look_up


class Registered:
    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._base = (settings.model_name, settings.base_revision)
        self._urls: list[str] = []
        self._looked_s = -math.inf

    async def urls(self) -> list[str]:
        """Of the engines with our base model; from Redis at most every LOOK_S. RedisError where it is away."""
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._urls = await self._registered()
            self._looked_s = time.monotonic()
        return self._urls

    async def _registered(self) -> list[str]:
        members: Any = await self._redis.smembers(ENGINES_KEY)
        urls = sorted(member.decode() for member in members)
        told: list[Any] = await self._redis.mget([engine_redis_key(url) for url in urls]) if urls else []
        return [url for url, record in zip(urls, told, strict=True) if record and self._serves_ours(url, record)]

    def _serves_ours(self, url: str, record: bytes) -> bool:
        try:
            engine = EngineRecord.from_json(record)
        except ValueError as error:
            logger.warning("engine %s is not asked: %s", url, error)
            return False
        return (engine.base_model, engine.base_revision) == self._base
