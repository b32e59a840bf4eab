"""What waiting times are foretold from: how fast trainings were, what is queued, how many workers share it.

In: Redis. Out: Seen, read once in LOOK_S at most for the whole process, however many watch their documents.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis

from lift_config.contract import BULK_STREAM, JOBS_STREAM, JobRecord, Speed, speeds_redis_key
from lift_config.recipe import load_recipes
from lift_server.records import Records

LOOK_S = 2.0
MOST_JOBS = 200  # read of a queue; what stands behind them is told no time


@dataclass(frozen=True)
class Queue:
    """The first of those that wait or are at work, in order."""

    jobs: list[JobRecord]
    is_whole: bool


@dataclass(frozen=True)
class Seen:
    measured: Mapping[str, list[Speed]]
    queues: Mapping[str, Queue]
    workers: int
    firsts_s: dict[str, float | None] = field(default_factory=dict)  # by job; estimate.py works each out once

    def before(self, job: JobRecord, stream: str) -> list[JobRecord] | None:
        """What has its turn before a job of `stream`; None where that is not known."""
        ahead: dict[str, JobRecord] = {}
        for name in streams_before(stream):
            for one in self.queues[name].jobs:
                if one.key == job.key:
                    return list(ahead.values())
                ahead[one.key] = one
            if not self.queues[name].is_whole:
                return None
        return list(ahead.values())


class Outlook:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._seen: Seen | None = None
        self._until_s = -math.inf
        self._reading = asyncio.Lock()

    async def seen(self) -> Seen:
        """At most LOOK_S old."""
        clock = asyncio.get_running_loop().time
        async with self._reading:
            if self._seen is None or clock() >= self._until_s:
                self._seen, self._until_s = await self._look(), clock() + LOOK_S
            return self._seen

    async def _look(self) -> Seen:
        queues = {name: await self._queue(name) for name in (JOBS_STREAM, BULK_STREAM)}
        return Seen(await speeds(self._records.redis), queues, await self._records.workers())

    async def _queue(self, stream: str) -> Queue:
        keys = await self._records.queued(stream, most=MOST_JOBS)
        found = await self._records.jobs(dict.fromkeys(keys))
        return Queue([job for job in found if job is not None and job.unfinished], len(keys) < MOST_JOBS)


async def speeds(redis: Redis) -> dict[str, list[Speed]]:
    """What was measured of each recipe."""
    names = list(load_recipes())
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.lrange(speeds_redis_key(name), 0, -1)
        lists: list[list[str]] = await pipe.execute()
    return {name: [Speed.from_json(item) for item in items] for name, items in zip(names, lists, strict=True)}


def streams_before(stream: str) -> tuple[str, ...]:
    """Those whose jobs have their turn before one of `stream`; refinements step back."""
    return (JOBS_STREAM, BULK_STREAM) if stream == BULK_STREAM else (JOBS_STREAM,)
