"""What lists tell of a job: two fields of its record, since a list may have ten thousand. In: job keys; out: states."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from redis.asyncio import Redis

from lift_config.contract import Failure, Status, job_redis_key


@dataclass(frozen=True)
class JobState:
    status: Status
    error: Failure | None


async def job_states(redis: Redis, job_keys: Iterable[str]) -> list[JobState | None]:
    """None where there is no such job."""
    async with redis.pipeline(transaction=False) as pipe:
        for key in job_keys:
            pipe.hmget(job_redis_key(key), "status", "error")
        found = await pipe.execute()
    return [None if status is None else _state(status, error) for status, error in found]


def _state(status: str, error: str) -> JobState:
    failure = json.loads(error)
    return JobState(Status(json.loads(status)), Failure(**failure) if failure else None)
