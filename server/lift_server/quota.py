"""What an owner may keep and have trained at once: documents, their bytes, trainings; and how long the queue may be.

Nothing is counted: what there is gets looked at when something is to be added. Asked within records.py's transaction,
which watches the owner's list of documents, it holds for uploads and deletions at the same time, at any front end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from lift_config.contract import (
    STREAMS,
    TURN_STREAMS,
    document_redis_key,
    job_redis_key,
    limits_redis_key,
    owner_redis_key,
    turns_redis_key,
)
from lift_config.settings import LimitSettings
from lift_server.errors import InsufficientQuota, RateLimited
from lift_server.keys import Limits

TRAINING_RETRY_S = 10
QUEUE_RETRY_S = 60


@dataclass(frozen=True)
class Use:
    """Of one limit; 0 is no limit."""

    used: int
    limit: int


class Quota:
    def __init__(self, redis: Redis, owner: str, defaults: LimitSettings) -> None:
        self.watched = owner_redis_key(owner)
        self._redis = redis
        self._owner = owner
        self._defaults = defaults

    async def keep(self, size_bytes: int) -> None:
        """InsufficientQuota where a document of so many bytes is too much."""
        limits = await self._limits()
        if not limits.documents and not limits.bytes:
            return
        sizes = await self._sizes()
        if limits.documents and len(sizes) >= limits.documents:
            raise InsufficientQuota(f"{limits.documents} documents")
        if limits.bytes and sum(sizes) + size_bytes > limits.bytes:
            raise InsufficientQuota(f"{limits.bytes} bytes of documents")

    async def train(self) -> None:
        """RateLimited where one more training is too much, for its owner or for everybody together."""
        await self._refuse_if_queue_is_full()
        limit = (await self._limits()).training
        if not limit:
            return
        if await self._unfinished() >= limit:
            raise RateLimited(f"{limit} documents in training", kind="training", retry_after_s=TRAINING_RETRY_S)

    async def use(self) -> dict[str, Use]:
        """What there is, by the limits' names."""
        limits, sizes = await self._limits(), await self._sizes()
        return {
            "documents": Use(len(sizes), limits.documents),
            "bytes": Use(sum(sizes), limits.bytes),
            "training": Use(await self._unfinished(), limits.training),
        }

    async def _refuse_if_queue_is_full(self) -> None:
        """An entry stays in its stream until its job is done. Uploads at the same moment may exceed it a little."""
        limit = self._defaults.max_queued
        if not limit:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for stream in STREAMS:
                pipe.xlen(stream)
            for stream in TURN_STREAMS:
                pipe.zcard(turns_redis_key(stream))
            queued = sum(await pipe.execute())
        if queued >= limit:
            raise RateLimited(f"{limit} documents in the queue of all", kind="queue", retry_after_s=QUEUE_RETRY_S)

    async def _sizes(self) -> list[int]:
        return [json.loads(size) for size in await self._of_documents("size_bytes")]

    async def _unfinished(self) -> int:
        jobs = {json.loads(key) for key in await self._of_documents("job_key")}
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in jobs:
                pipe.hget(job_redis_key(key), "unfinished")
            return (await pipe.execute()).count("true")

    async def _limits(self) -> LimitSettings:
        found = await self._redis.get(limits_redis_key(self._owner))
        return Limits(**json.loads(found or "{}")).or_else(self._defaults)

    async def _of_documents(self, field: str) -> list[str]:
        """That field of all the owner's documents, in one command."""
        found: Any = await self._redis.sort(self.watched, by="nosort", get=[f"{document_redis_key('*')}->{field}"])
        return [value for value in found if value is not None]
