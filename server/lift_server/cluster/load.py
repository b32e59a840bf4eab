"""What is asked and what waits. In: the queue in Redis, this host's server's /metrics. Out: a Load."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from lift_config.contract import (
    BULK_STREAM,
    JOBS_GROUP,
    JOBS_STREAM,
    AdapterState,
    job_redis_key,
    turns_redis_key,
)
from lift_server.cluster.keeper import Role
from lift_server.cluster.scaling import Load
from lift_server.gauges import queues
from lift_server.registry import registered, workers

WINDOW_S = 60.0
ENOUGH = 10  # questions in the window, to tell anything of
SHARE = 0.9
WARM = frozenset({AdapterState.RESIDENT, AdapterState.HOST, AdapterState.FETCHED})

Buckets = Counter[float]  # questions by the least bound of the histogram that they kept within


class Watch:
    """Looks at intervals; `forget` after a change, whose effect older answers do not show. `redis` decodes."""

    def __init__(self, redis: Redis, metrics_url: str) -> None:
        self._redis, self._url = redis, metrics_url
        self._looks: deque[tuple[float, Buckets]] = deque()

    async def load(self) -> Load:
        """RedisError where Redis is away."""
        found = await queues(self._redis)
        waiting = found.waiting["first"] + found.waiting["bulk"] if found else 0
        oldest_wait_s = await _oldest_wait_s(self._redis) if waiting else 0.0
        return Load(waiting, oldest_wait_s, sum(found.taken.values()) if found else 0, await self._ttft_s())

    def forget(self) -> None:
        self._looks.clear()

    async def _ttft_s(self) -> float | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(self._url) as answer,
            ):
                page = await answer.text()
        except (aiohttp.ClientError, TimeoutError):  # it starts, or is away: nothing is known then
            self.forget()
            return None
        self._looks.append((time.monotonic(), answered(page)))
        while self._looks[-1][0] - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        return quantile(self._looks[-1][1] - self._looks[0][1])


async def running(redis: Redis) -> dict[Role, int]:
    """How many of each role do run, by the leases that they keep in Redis."""
    engines = sum(record is not None for record in (await registered(redis)).values())
    return {"engine": engines, "worker": len(await workers(redis))}


def answered(page: str) -> Buckets:
    """Streamed questions to trained documents, of all time."""
    below: Buckets = Counter()
    for family in text_string_to_metric_families(page):
        if family.name != "lift_time_to_first_token_seconds":
            continue
        for name, labels, value, *_ in family.samples:
            if name.endswith("_bucket") and labels["stream"] == "true" and labels["adapter_state"] in WARM:
                below[float(labels["le"])] += int(value)
    bounds = sorted(below)
    return Counter({bound: below[bound] - below[under] for under, bound in zip([-1.0, *bounds], bounds, strict=False)})


def quantile(buckets: Buckets) -> float | None:
    """The bound within which SHARE of them kept; None where they are too few."""
    if buckets.total() < ENOUGH:
        return None
    seen = 0
    for bound in sorted(buckets):
        seen += buckets[bound]
        if seen >= SHARE * buckets.total():
            return bound
    return math.inf


async def _oldest_wait_s(redis: Redis) -> float:
    """Of the jobs that no worker was given yet: of an entry its id, which begins with Redis's clock, of bulk the upload
    whose turn is next."""
    seconds, microseconds = await redis.time()
    times_s = [*[await _first_s(redis, stream) for stream in (JOBS_STREAM, BULK_STREAM)], await _next_turn_s(redis)]
    return max((seconds + microseconds / 1e6 - one for one in times_s if one is not None), default=0.0)


async def _next_turn_s(redis: Redis) -> float | None:
    first = await redis.zrange(turns_redis_key(BULK_STREAM), 0, 0)
    received = await redis.hget(job_redis_key(str(first[0])), "received_s") if first else None
    return float(received) if received else None


async def _first_s(redis: Redis, stream: str) -> float | None:
    groups: list[Any] = await redis.xinfo_groups(stream) if await redis.exists(stream) else []
    last = next((group["last-delivered-id"] for group in groups if group["name"] == JOBS_GROUP), None)
    entries: Any = await redis.xrange(stream, min=f"({last}" if last else "-", count=1)
    return int(entries[0][0].partition("-")[0]) / 1000 if entries else None
